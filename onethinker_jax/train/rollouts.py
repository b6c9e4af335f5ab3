"""Prompts -> groups: G scored samples of each prompt, drawn with the trainer's own weights.

While a batch of prompts decodes, the samples of the batch before it are scored on another thread: with more
prompts than rows, the time of the rewards hides behind that of the sampler.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.loader import RecordStream
from onethinker_jax.data_pipeline.media import MediaError
from onethinker_jax.data_pipeline.packing import PackingError
from onethinker_jax.data_pipeline.processor import Example
from onethinker_jax.data_pipeline.records import Record, RecordError
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.rewards.score import Score
from onethinker_jax.scoring import Scorer


@dataclass(frozen=True)
class Group:
    """G samples of one prompt.  ``position`` is the record's place in the stream: it finds the prompt again."""

    position: int
    record: Record
    prompt: Example
    samples: Samples
    scores: list[Score]
    max_accuracy: float = 1.0

    @property
    def rewards(self) -> list[float]:
        """The total reward of each sample."""
        return [score.overall for score in self.scores]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the samples, 1 being the most the task gives: what the group filter looks at."""
        return float(np.mean([score.accuracy for score in self.scores])) / self.max_accuracy

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
        tokens = [np.array(ids, np.int32) for ids in saved["tokens"]]
        samples = Samples(
            tokens,
            [np.array(values, np.float32) for values in saved["logprobs"]],
            list(saved["ended"]),
            [sampler.processor.decode(ids) for ids in tokens],
        )
        scores = [Score(**score) for score in saved["scores"]]
        return cls(saved["position"], record, sampler.prompt(record), samples, scores, saved["max_accuracy"])


@dataclass
class RewardSeconds:
    """How long scoring took, and how much of that the sampler did not cover: the loop had to wait for it."""

    spent: float = 0.0
    waited: float = 0.0


def roll_out(
    params: nnx.State,
    stream: RecordStream,
    count: int,
    sampler: Sampler,
    scorer: Scorer,
    *,
    seed: int,
    step: int,
    seconds: RewardSeconds | None = None,
) -> list[Group]:
    """The next ``count`` usable records of the stream as scored groups; adds to ``seconds`` what scoring took.

    Raises MediaError or PackingError naming a record that cannot be decoded or is too long, unless the stream
    skips bad records; RewardUnavailable when the service is gone.
    """
    positions, records, prompts = _next_prompts(stream, count, sampler)
    seconds = seconds or RewardSeconds()
    samples: list[Samples] = []
    scores: list[list[Score]] = []

    def score(part: Sequence[Record], of_part: Sequence[Samples]) -> list[list[Score]]:
        began = time.perf_counter()
        scored = scorer(part, [of_one.texts for of_one in of_part])
        seconds.spent += time.perf_counter() - began
        return scored

    def collect(scoring: Future[list[list[Score]]]) -> None:
        began = time.perf_counter()
        scores.extend(scoring.result())
        seconds.waited += time.perf_counter() - began

    with ThreadPoolExecutor(1, thread_name_prefix="rewards") as pool:
        scoring = None
        for of_part in sampler.parts(params, prompts, seed=seed, step=step):
            if scoring is not None:
                collect(scoring)
            part = records[len(samples) : len(samples) + len(of_part)]
            samples += of_part
            scoring = pool.submit(score, part, of_part)
        if scoring is not None:
            collect(scoring)
    most = map(scorer.max_accuracy, records)
    return [Group(*parts) for parts in zip(positions, records, prompts, samples, scores, most, strict=True)]


def _next_prompts(
    stream: RecordStream, count: int, sampler: Sampler
) -> tuple[list[int], list[Record], list[Example]]:
    """Places in the stream, records and prompts of the next ``count`` records that are not bad."""
    found: list[tuple[int, Record, Example]] = []
    bad_in_a_row = 0
    while len(found) < count:
        position, record = stream.position, stream.next()
        try:
            found.append((position, record, sampler.prompt(record)))
            bad_in_a_row = 0
        except (MediaError, PackingError, RecordError) as error:
            stream.bad.report(
                error, record=record.origin, problem_id=record.problem_id, problem=record.problem
            )
            bad_in_a_row += 1
            if bad_in_a_row > 2 * stream.size:
                raise RecordError(f"none of {stream.size} records can be used") from None
    positions, records, prompts = zip(*found, strict=True)
    return list(positions), list(records), list(prompts)
