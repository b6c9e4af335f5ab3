"""Prompts -> groups: G scored samples of each prompt, drawn with the trainer's own weights.

The samples of finished prompts are scored on another thread while other prompts decode, so that scoring adds little
time to sampling.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.errors import EndedByStop
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.rewards.score import Score
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import BY_NAME, Task
from onethinker_jax.train.rl.saved_rollouts import SavedDraw, SavedStep


@dataclass(frozen=True)
class GroupStats:
    """Scores and lengths of the G samples of a prompt: what advantages and metrics are computed from."""

    task: Task
    scores: list[Score]
    lengths: list[int]  # tokens
    ended: list[bool]  # False: cut off at the length limit
    max_accuracy: float = 1.0
    prompt: tuple[int, int] = (0, 0)  # its tokens and patches

    @property
    def rewards(self) -> list[float]:
        """The total reward of each sample."""
        return [score.overall for score in self.scores]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the samples, 1 being the task's largest: what the group filter goes by."""
        return float(np.mean([score.accuracy for score in self.scores])) / self.max_accuracy

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "GroupStats":
        """The statistics from what `to_json` gave."""
        scores = [Score(**score) for score in saved["scores"]]
        prompt = tuple(saved["prompt"])
        return cls(**{**saved, "task": BY_NAME[saved["task"]], "scores": scores, "prompt": prompt})

    def to_json(self) -> dict[str, Any]:
        """As JSON, for a checkpoint and for the other processes."""
        return {**asdict(self), "task": str(self.task)}


@dataclass(frozen=True)
class Group:
    """G samples of one prompt. `position` is the record's place in the stream: it finds the prompt again."""

    position: int
    record: Record
    prompt: Example
    samples: Samples
    scores: list[Score]
    max_accuracy: float = 1.0

    @property
    def task(self) -> Task:
        """The task of its record."""
        return task_of(self.record)

    @property
    def stats(self) -> GroupStats:
        """Scores and lengths of its samples."""
        lengths = [len(ids) for ids in self.samples.tokens]
        prompt = len(self.prompt.tokens), len(self.prompt.patches)
        return GroupStats(
            self.task, self.scores, lengths, list(self.samples.ended), self.max_accuracy, prompt
        )

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of a group that waits for the next step."""
        return {
            "position": self.position,
            "tokens": [ids.tolist() for ids in self.samples.tokens],
            "logprobs": [values.tolist() for values in self.samples.logprobs],
            "ended": self.samples.ended,
            "scores": [asdict(score) for score in self.scores],
            "max_accuracy": self.max_accuracy,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], stream: RecordStream, sampler: Sampler) -> "Group":
        """The group again; its record and prompt come from the stream and the processor."""
        record = stream.at(saved["position"])
        prompt = sampler.prompt(record)
        tokens = [np.array(ids, np.int32) for ids in saved["tokens"]]
        samples = Samples(
            tokens,
            [np.array(values, np.float32) for values in saved["logprobs"]],
            list(saved["ended"]),
            [sampler.processor.response(prompt.opening, ids) for ids in tokens],
        )
        scores = [Score(**score) for score in saved["scores"]]
        return cls(saved["position"], record, prompt, samples, scores, saved["max_accuracy"])


@dataclass
class RolloutSeconds:
    """How long a rollout's parts took; `reward_wait` is the part of `reward` that the sampler did not cover."""

    prompts: float = 0.0  # waiting for prompts that were not made ahead
    reward: float = 0.0
    reward_wait: float = 0.0


class Stopped(EndedByStop):
    """A rollout that nobody waits for any more."""


class StopFlag:
    """Set once. It has no lock, as an Event has: a signal's handler may set it while the code it interrupts does."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """From any thread."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set


@dataclass
class RolloutWatch:
    """What whoever asked for a rollout sees of it, and the event by which it is stopped."""

    seconds: RolloutSeconds = field(default_factory=RolloutSeconds)
    stop: StopFlag = field(default_factory=StopFlag)
    tell: Callable[[int], None] = lambda finished: None  # called with the number of prompts that are finished


def roll_out(
    params: nnx.State,
    stream: PromptStream,
    count: int,
    sampler: Sampler,
    scorer: Scorer,
    *,
    seed: int,
    step: int,
    watch: RolloutWatch | None = None,
    saved: SavedStep | None = None,
) -> list[Group]:
    """The next `count` usable records of the stream as scored groups.

    With `saved` the samples of prompts that were sampled before are read, and those of others written as they end.

    Raises MediaError or PackingError naming a record that cannot be decoded or is too long, unless the stream
    skips bad records; RewardUnavailable when the service is gone; Stopped soon after `watch.stop` is set.
    """
    watch = watch or RolloutWatch()
    seconds = watch.seconds
    began = time.perf_counter()
    positions, records, prompts = _next_prompts(stream, count, watch.stop)
    seconds.prompts += time.perf_counter() - began
    draw = None if saved is None else saved.of_draw(step, positions, prompts)
    before = {} if draw is None else draw.read(prompts)
    samples = {number: samples_of_prompt for number, (samples_of_prompt, _) in before.items()}
    scored = {number: scores for number, (_, scores) in before.items() if scores is not None}
    missing = [None if number in before else prompt for number, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(1, thread_name_prefix="rewards") as pool:
        scoring = _Scoring(scorer, pool, seconds, draw)
        if unscored := [number for number in before if number not in scored]:
            scoring.begin(unscored, [records[n] for n in unscored], [samples[n] for n in unscored])
        parts = sampler.parts(params, missing, seed=seed, step=step, halted=watch.stop.is_set)
        for numbers, samples_of_part in parts:
            for number, samples_of_prompt in zip(numbers, samples_of_part, strict=True):
                samples[number] = samples_of_prompt
                if draw is not None:
                    draw.keep(number, samples_of_prompt)
            if watch.stop.is_set():
                raise Stopped
            watch.tell(len(samples))
            scoring.begin(numbers, [records[number] for number in numbers], samples_of_part)
        if watch.stop.is_set():
            raise Stopped
        scored.update(scoring.end())
    return [
        Group(position, record, prompt, samples[number], scored[number], scorer.max_accuracy(record))
        for number, (position, record, prompt) in enumerate(zip(positions, records, prompts, strict=True))
    ]


class _Scoring:
    """The scores of a rollout's parts, computed one after the other in the pool's thread while others are sampled."""

    def __init__(
        self,
        scorer: Scorer,
        pool: ThreadPoolExecutor,
        seconds: RolloutSeconds,
        saved: SavedDraw | None = None,
    ):
        """Scores are also written to `saved`."""
        self._scorer, self._pool, self._seconds, self._saved = scorer, pool, seconds, saved
        self._waiting: list[Future[dict[int, list[Score]]]] = []
        self._scores: dict[int, list[Score]] = {}

    def begin(self, numbers: Sequence[int], records: Sequence[Record], samples: Sequence[Samples]) -> None:
        """Has the next part scored; raises what an earlier one raised, where that is known by now."""
        before = self._waiting[-1] if self._waiting else None
        self._waiting.append(self._pool.submit(self._score, numbers, records, samples, before))
        while len(self._waiting) > 1 and self._waiting[0].done():
            self._collect()

    def end(self) -> dict[int, list[Score]]:
        """Waits for the scores of all parts, by the prompts' numbers."""
        while self._waiting:
            self._collect()
        return self._scores

    def _score(
        self,
        numbers: Sequence[int],
        records: Sequence[Record],
        samples: Sequence[Samples],
        before: Future[dict[int, list[Score]]] | None,
    ) -> dict[int, list[Score]]:
        if before is not None:
            before.result()  # ended by now; if it failed, this raises and no more scores are asked for
        began = time.perf_counter()
        scored = self._scorer(records, [samples_of_prompt.texts for samples_of_prompt in samples])
        self._seconds.reward += time.perf_counter() - began
        by_number = dict(zip(numbers, scored, strict=True))
        if self._saved is not None:
            for number, scores in by_number.items():
                self._saved.keep_scores(number, scores)
        return by_number

    def _collect(self) -> None:
        began = time.perf_counter()
        self._scores.update(self._waiting.pop(0).result())
        self._seconds.reward_wait += time.perf_counter() - began


def _next_prompts(
    stream: PromptStream, count: int, stop: StopFlag
) -> tuple[list[int], list[Record], list[Example]]:
    """Places in the stream, records and prompts of the next `count` records that are not bad."""
    found: list[tuple[int, Record, Example]] = []
    while len(found) < count:
        if stop.is_set():
            raise Stopped
        found.append(stream.next(wanted=count - len(found)))
    positions, records, prompts = zip(*found, strict=True)
    return list(positions), list(records), list(prompts)
