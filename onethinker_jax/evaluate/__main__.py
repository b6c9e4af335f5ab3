"""A model and a benchmark file in OneThinker's format -> its answers, their scores, and a table a task.

    python -m onethinker_jax.evaluate MODEL_DIRECTORY eval_file.json --out results

Segmentation answers prompt the reward service's mask back end, and the masks are held against the record's.
Answers are in the folder as soon as they are scored.

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.evaluate.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.evaluate")

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError, iter_records
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.answers.answering import (
    Answered,
    PredictionFile,
    Progress,
    answer_records,
    fitted,
    read_prompts,
)
from onethinker_jax.evaluate.answers.predictions import (
    Prediction,
    by_task,
    over_all,
    predictions_of,
    write_predictions,
)
from onethinker_jax.files import write_whole
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler, prompt_of
from onethinker_jax.rewards.client.sidecar import connect
from onethinker_jax.rewards.score_pool import score_pool
from onethinker_jax.scoring import Scorer, check_reward

logger = logging.getLogger("onethinker_jax.evaluate")  # also as __main__


def run(arguments: Arguments) -> None:
    """Runs the evaluation and writes its results.

    Whatever ends it, the answers so far are in the folder; a KeyboardInterrupt says so.
    """
    command_line.show_log(logging.StreamHandler(sys.stdout), level=logging.INFO)
    settings = arguments.sampler(
        prompt_slots=arguments.prompt_slots,
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
    check_reward(arguments.reward, records)
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
            found |= predictions_of(part, records)
            progress.reached(file.count)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{file.said()}, of {len(records):,}") from None
    except (UserError, OSError):
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
    write_whole(
        arguments.out / "metrics.json", json.dumps([vars(result) for result in results], indent=2) + "\n"
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


main = partial(
    command_line.main, Arguments, run, prog="python -m onethinker_jax.evaluate", stopped="no answer is kept"
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
