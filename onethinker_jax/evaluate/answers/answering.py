"""Records -> answers with their scores, as they come: prompts are read a bounded number ahead of the sampler.

A video's prompt takes 75 MB of memory with 128 frames. Memory holds the prompts that are read ahead, not more for
more records. A record that cannot be used is raised, or reported and left out, as `BadRecords` says.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flax import nnx

from onethinker_jax.data_pipeline.batches.ordered_examples import OrderedExamples
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError, task_of
from onethinker_jax.errors import SkippableError
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.score import Score
from onethinker_jax.sampler_settings import PROMPTS_AHEAD, SamplerSettings
from onethinker_jax.scoring import Scorer
from onethinker_jax.text_output import json_text

logger = logging.getLogger("onethinker_jax.evaluate")

LINE_SECONDS = 10.0
"""Between two lines on how far it is."""


@dataclass(frozen=True)
class Answered:
    """The answer to the record of a number. `score` is None where scoring failed, `mask_iou` without masks."""

    number: int
    response: str
    score: Score | None = None
    mask_iou: float | None = None


@contextmanager
def read_prompts(
    records: Sequence[Record], make: Callable[[Record], Example], *, workers: int, bad: BadRecords
) -> Iterator[Iterator[Example | None]]:
    """The records' prompts in order, made by threads a few ahead; None for a bad record, which was reported.

    `workers`: processes that decode media; as many prompts are made at once. What `make` raises beyond
    MediaError, PackingError and RecordError, or what `bad` raises of these, is raised at the record's turn.
    """
    threads = max(workers, 1)
    examples = OrderedExamples(
        iter(range(len(records))),
        records.__getitem__,
        make,
        bad=bad,
        size=len(records),
        workers=threads,
        ahead=threads,
        name="prompts",
    )

    def in_order() -> Iterator[Example | None]:
        for _ in records:
            _, made = examples.next()
            yield None if made is None else made[1]

    try:
        yield in_order()
    finally:
        examples.close()


def answer_records(
    sampler: Sampler,
    params: nnx.State,
    records: Sequence[Record],
    prompts: Iterator[Example | None],
    scorer: Scorer,
    *,
    seed: int = 0,
    ahead: int = PROMPTS_AHEAD,
    bad: BadRecords,
) -> Iterator[list[Answered]]:
    """The answers of a `sampler` that draws one sample a prompt, in parts as they are through and scored.

    A record whose scoring fails for its own media or truth is `bad`'s to raise or to leave out. Whatever is
    raised while a part is scored, its answers come first, without scores.

    Raises PackingError naming a record that is too long, MediaError naming a file, RewardUnavailable.
    """
    for numbers, samples in sampler.parts(params, prompts, seed=seed, step=0, ahead=ahead):
        part = [Answered(number, one.texts[0]) for number, one in zip(numbers, samples, strict=True)]
        try:
            scored = _scored(part, records, scorer, bad)
        except BaseException:
            yield part
            raise
        yield scored


def _scored(
    part: list[Answered], records: Sequence[Record], scorer: Scorer, bad: BadRecords
) -> list[Answered]:
    """The part with its scores, in one call; where a record of it spoils that, one by one without the bad ones."""
    try:
        scored = scorer([records[one.number] for one in part], [[one.response] for one in part])
        return [
            _with_masks(one, records[one.number], score, scorer)
            for one, (score,) in zip(part, scored, strict=True)
        ]
    except SkippableError as error:
        record = records[part[0].number]
        if len(part) > 1:
            return [scored for one in part for scored in _scored([one], records, scorer, bad)]
        named = error if isinstance(error, RecordError) else RecordError(f"{record}: {error}")
        bad.report(named, problem_id=record.problem_id, response=part[0].response)
        return []


def _with_masks(one: Answered, record: Record, score: Score, scorer: Scorer) -> Answered:
    iou = None
    if record.segmentation is not None:
        masks = scorer.predict_masks(record, one.response)
        iou = 0.0 if masks is None else masks.iou
    return Answered(one.number, one.response, score, iou)


def answer_row(record: Record, response: str, score: Score | None, mask_iou: float | None) -> dict[str, Any]:
    """A line of predictions.jsonl; without a score where scoring failed."""
    scores = dict.fromkeys(field.name for field in fields(Score))
    return {
        "problem_id": record.problem_id,
        "task": str(task_of(record)),
        "response": response,
        "answer": record.answer,
        **(scores if score is None else asdict(score)),
        "mask_iou": mask_iou,
    }


class PredictionFile:
    """predictions.jsonl: a line as soon as an answer is there; in the order of the records once all are."""

    def __init__(self, folder: Path):
        self.path, self._metrics = folder / "predictions.jsonl", folder / "metrics.json"
        self.count = 0
        self._open = ExitStack()

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def append(self, part: Sequence[Answered], records: Sequence[Record]) -> None:
        """Writes a part of the answers; the first takes the place of an earlier evaluation's, and of its means."""
        if part and not self.count:
            self._metrics.unlink(missing_ok=True)
            self._file = self._open.enter_context(self.path.open("w", encoding="utf-8"))
        for one in part:
            row = answer_row(records[one.number], one.response, one.score, one.mask_iou)
            self._file.write(json_text(row) + "\n")
            self._file.flush()
            self.count += 1

    def said(self) -> str:
        """How many answers are kept, and where."""
        return f"{self.count:,} answers are in {self.path}" if self.count else "no answer is kept"


class Progress:
    """Lines on how many of the records are through and how long the others will take."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic):
        self._total, self._clock, self._done = total, clock, 0
        self._began = self._line_at = clock()

    def reached(self, done: int) -> None:
        """Says so where the last line is some time ago, and at the end."""
        self._done, now = done, self._clock()
        if done == self._total or now >= self._line_at + LINE_SECONDS:
            self._line_at = now
            left = (now - self._began) / max(done, 1) * (self._total - done)
            more = f", about {_duration(left)} left" if 0 < done < self._total else ""
            logger.info("%s of %s records%s", f"{done:,}", f"{self._total:,}", more)


def fitted(
    settings: SamplerSettings, prompts: Iterator[Example | None], count: int, ahead: int
) -> tuple[SamplerSettings, Iterator[Example | None]]:
    """Where no more than `ahead` are to come, settings for their very sizes; and the prompts again."""
    if count > ahead:
        return settings, prompts
    first = list(prompts)
    sizes = [(len(prompt.tokens), len(prompt.patches)) for prompt in first if prompt is not None]
    return settings.fitted_to(sizes) if sizes else settings, _given_away(first)


def _given_away(prompts: list[Example | None]) -> Iterator[Example | None]:
    """Each once, without keeping it."""
    prompts.reverse()
    while prompts:
        yield prompts.pop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
