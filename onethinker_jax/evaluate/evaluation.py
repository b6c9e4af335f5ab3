"""A model and a benchmark file in OneThinker's format -> its answers, their scores, and a table a task.

    python -m onethinker_jax.evaluate MODEL_DIRECTORY eval_file.json --out results

Segmentation answers prompt the reward service's mask back end, and the masks are held against the record's.
Answers are in the folder as soon as they are scored.  The trainer scores its held-out records through the same
functions.

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax.interrupts import interrupts_end_at_once, interrupts_raise

if __name__ == "__main__":  # the imports below take seconds
    interrupts_end_at_once("stopped before anything was done")

from onethinker_jax.command_line import UsageError, help_if_asked, parse
from onethinker_jax.evaluate_arguments import Arguments

if __name__ == "__main__":
    help_if_asked(Arguments, prog="python -m onethinker_jax.evaluate")

import dataclasses
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.answering import (
    Answered,
    PredictionFile,
    Progress,
    answer_records,
    answer_row,
    fitted,
    read_prompts,
)
from onethinker_jax.data_pipeline.bad_records import BadRecords
from onethinker_jax.data_pipeline.chat import ProcessorError
from onethinker_jax.data_pipeline.media import MediaError
from onethinker_jax.data_pipeline.packing import PackingError
from onethinker_jax.data_pipeline.prompts import PromptError
from onethinker_jax.data_pipeline.records import Record, RecordError, iter_records, task_of
from onethinker_jax.model.config import ConfigError
from onethinker_jax.model.hf_weights import WeightsError
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler, prompt_of
from onethinker_jax.rewards.addresses import AddressError
from onethinker_jax.rewards.client import RewardRequestError, RewardUnavailable
from onethinker_jax.rewards.pool import ScoringError, score_pool
from onethinker_jax.rewards.score import GroundTruthError, Score
from onethinker_jax.rewards.security import SecurityError
from onethinker_jax.rewards.sidecar import connect
from onethinker_jax.scoring import Scorer
from onethinker_jax.text_output import json_text

logger = logging.getLogger("onethinker_jax.evaluate")  # also as __main__

EXPECTED = (
    AddressError,
    ConfigError,
    GroundTruthError,
    MediaError,
    OSError,
    PackingError,
    ProcessorError,
    PromptError,
    RecordError,
    RewardRequestError,
    RewardUnavailable,
    ScoringError,
    SecurityError,
    WeightsError,
)
"""Errors that a user can mend: one line, no traceback."""


@dataclass(frozen=True)
class Prediction:
    """A record's answer.  ``mask_iou`` is None unless the record has true masks."""

    record: Record
    response: str
    score: Score
    mask_iou: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer with what it is an answer to."""
        return answer_row(self.record, self.response, self.score, self.mask_iou)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], record: Record) -> "Prediction":
        """The prediction again."""
        score = Score(**{field.name: row[field.name] for field in dataclasses.fields(Score)})
        return cls(record, row["response"], score, row["mask_iou"])


@dataclass(frozen=True)
class TaskResult:
    """Means over the held-out records of one task."""

    task: str
    records: int
    overall: float
    accuracy: float
    format: float
    mask_iou: float | None


def evaluate(
    sampler: Sampler,
    params: nnx.State,
    records: Sequence[Record],
    scorer: Scorer,
    *,
    seed: int = 0,
    tell: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """One prediction a record, in order, of a ``sampler`` that draws one sample a prompt.

    ``tell`` hears how many records are answered.

    Raises PackingError naming a record that is too long, MediaError naming a file, RewardUnavailable.
    """
    bad, workers = BadRecords(), sampler.processor.media.workers
    found: dict[int, Prediction] = {}
    with read_prompts(records, sampler.prompt, workers=workers, bad=bad) as prompts:
        for part in answer_records(sampler, params, records, prompts, scorer.single(), seed=seed, bad=bad):
            found |= _predictions(part, records)
            if tell is not None:
                tell(len(found))
    return [found[number] for number in range(len(records))]


def _predictions(part: Sequence[Answered], records: Sequence[Record]) -> dict[int, Prediction]:
    """By the record's number, of the answers that have scores."""
    return {
        one.number: Prediction(records[one.number], one.response, one.score, one.mask_iou)
        for one in part
        if one.score is not None
    }


def by_task(predictions: Sequence[Prediction]) -> list[TaskResult]:
    """Means of each task, in the order of their names."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[task_of(prediction.record)].append(prediction)
    return [_means(task, groups[task]) for task in sorted(groups)]


def over_all(predictions: Sequence[Prediction]) -> TaskResult:
    """Means over all records."""
    return _means("all tasks", predictions)


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """One JSON object a line; the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json_text(prediction.to_json()) + "\n")
    temporary.replace(path)


def read_predictions(path: Path, records: Sequence[Record]) -> list[Prediction]:
    """What ``write_predictions`` wrote for these records; raises RecordError when they are others."""
    with path.open(
        encoding="utf-8"
    ) as file:  # by line ends alone: a text may hold U+2028, where `splitlines` cuts
        rows = [json.loads(line) for line in file]
    if [row["problem_id"] for row in rows] != [record.problem_id for record in records]:
        raise RecordError(f"{path}: holds predictions for other records; have the held-out records changed?")
    return [Prediction.from_json(row, record) for record, row in zip(records, rows, strict=True)]


def _means(task: str, predictions: Sequence[Prediction]) -> TaskResult:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    masks = [prediction.mask_iou for prediction in predictions if prediction.mask_iou is not None]
    return TaskResult(
        task,
        len(predictions),
        mean([prediction.score.overall for prediction in predictions]),
        mean([prediction.score.accuracy for prediction in predictions]),
        mean([prediction.score.format for prediction in predictions]),
        mean(masks) if masks else None,
    )


def run(arguments: Arguments) -> None:
    """Runs the evaluation and writes its results.

    Whatever ends it, the answers so far are in the folder; a KeyboardInterrupt says so.
    """
    settings = arguments.sampler(
        rows=arguments.rows,
        prompt_tokens=arguments.prompt_tokens,
        prompt_patches=arguments.prompt_patches,
        prompt_buckets=arguments.prompt_buckets,
    )
    skipped = arguments.out / "skipped.jsonl"
    skipped.unlink(missing_ok=True)
    bad = BadRecords(arguments.on_bad_record, skipped)
    all_records = iter_records(arguments.file, media_root=arguments.media_root, purpose="heldout", bad=bad)
    records = list(islice(all_records, arguments.limit))
    if not records:
        raise RecordError(f"{arguments.file}: no records to evaluate")
    processor = arguments.processor()
    logger.info("%s records of %s; loading %s …", f"{len(records):,}", arguments.file, arguments.model)
    mesh = make_mesh()
    graphdef, params = arguments.load(mesh)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = PredictionFile(arguments.out)
    with (
        file,
        connect(arguments.sidecar, log=arguments.out / "reward_server.log") as client,
        score_pool(arguments.sidecar.score_workers) as pool,
        read_prompts(
            records,
            lambda record: prompt_of(record, processor, settings),
            workers=processor.media.workers,
            bad=bad,
        ) as prompts,
    ):
        logger.info("reading prompts …")
        fit, prompts = fitted(settings, prompts, len(records), arguments.prompts_ahead)
        scorer = Scorer(
            client,
            variant=arguments.variant,
            settings=arguments.reward,
            pool=pool,
            media=processor.media,
            prompts=processor.prompts,
        )
        sampler = Sampler(graphdef, processor, fit, mesh=mesh, compute_dtype=arguments.dtype, lazy=True)
        parts = answer_records(
            sampler,
            params,
            records,
            prompts,
            scorer.single(),
            seed=arguments.seed,
            ahead=arguments.prompts_ahead,
            bad=bad,
        )
        predictions = _kept(parts, records, file)
    _finish(arguments, file, predictions, bad)


def _kept(
    parts: Iterator[list[Answered]], records: Sequence[Record], file: PredictionFile
) -> list[Prediction]:
    """The predictions in the order of the records, each written when it comes."""
    logger.info("compiling; then answers go to %s …", file.path)
    progress, found = Progress(len(records)), dict[int, Prediction]()
    try:
        for part in parts:
            file.append(part, records)
            found |= _predictions(part, records)
            progress.reached(file.count)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{file.said()}, of {len(records):,}") from None
    except EXPECTED:
        logger.info("%s, of %s", file.said(), f"{len(records):,}")
        raise
    return [found[number] for number in sorted(found)]


def _finish(
    arguments: Arguments, file: PredictionFile, predictions: Sequence[Prediction], bad: BadRecords
) -> None:
    """Writes answers and means, and prints the means."""
    left_out = f"{bad.count:,} records are left out: see {bad.quarantine}"
    if not predictions:
        raise RecordError(f"{arguments.file}: no record could be evaluated; {left_out}")
    write_predictions(file.path, predictions)
    results = [*by_task(predictions), over_all(predictions)]
    (arguments.out / "metrics.json").write_text(
        json.dumps([vars(result) for result in results], indent=2) + "\n"
    )
    for result in results:
        masks = "" if result.mask_iou is None else f"  mask IoU {result.mask_iou:.3f}"
        logger.info(
            "%-36s %5d records  overall %.3f  accuracy %.3f  format %.3f%s",
            *(result.task, result.records, result.overall, result.accuracy, result.format),
            masks,
        )
    if bad.count:
        logger.warning("%s", left_out)


def main(arguments: Sequence[str]) -> int:
    """Parses and evaluates; returns the exit status."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("onethinker_jax").setLevel(logging.INFO)
    try:
        interrupts_raise()
        run(
            parse(
                Arguments,
                arguments,
                prog="python -m onethinker_jax.evaluate",
                description=Arguments.__doc__,
            )
        )
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except EXPECTED as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt as stop:
        interrupts_end_at_once()
        sys.stderr.write(f"stopped; {str(stop) or 'no answer is kept'}\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
