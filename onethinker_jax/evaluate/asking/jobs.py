"""What a command line asks to be answered: each benchmark's samples, where they were read, and its folder."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate.arguments import Arguments
from onethinker_jax.evaluate.benchmarks.table import differences, find, md5_of
from onethinker_jax.evaluate.benchmarks.types import Benchmark

logger = logging.getLogger("onethinker_jax.evaluate")

SKIPPED = "skipped.jsonl"


@dataclass(frozen=True, eq=False)
class Job:
    """A benchmark to be answered."""

    benchmark: Benchmark
    path: Path
    """The file or folder that it was read from."""
    md5: str
    samples: Sequence[Sample]
    left_out: Mapping[str, int]
    """Why rows of the file are not among the samples, and how many."""
    folder: Path
    """Where its answers are."""
    layout: str
    """A key of `LAYOUTS`, by which it was read."""
    media: Path | None
    """The folder that media paths are relative to; None: the layout's own."""

    @property
    def records(self) -> list[Record]:
        """Of the samples, in the order of the file."""
        return [sample.record for sample in self.samples]


def read_jobs(arguments: Arguments, *, leads: bool = True) -> list[Job]:
    """The benchmarks that are asked for, in the order of the command line.

    The process that `leads` lists in the folders what is left out.

    Raises BenchmarkError, UsageError where two have one name, SourceError or RecordError naming a malformed row.
    """
    found = [find(word, arguments.data) for word in arguments.benchmarks]
    names = [benchmark.name for benchmark, _, _ in found]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise UsageError(f"BENCHMARK: {twice} is there twice")
    jobs = []
    for benchmark, file, path in found:
        folder = arguments.out / benchmark.name if len(found) > 1 else arguments.out
        root = arguments.media_root
        if root is None and file.media and arguments.data is not None:
            root = arguments.data / file.media
        skipped = folder / SKIPPED
        if leads:
            skipped.unlink(missing_ok=True)
        policy = "skip" if arguments.on_bad_record == "skip" else "raise"
        bad = BadRecords(policy, skipped if leads else None)
        samples = LAYOUTS[file.layout](path, split=benchmark.split, media_root=root, bad=bad)
        chosen = list(islice(samples, arguments.limit))
        if not chosen:
            raise RecordError(f"{path}: no records to evaluate")
        md5 = md5_of(path)
        logger.info("%s records of %s", f"{len(chosen):,}", path)
        if arguments.limit is None:
            for line in differences(benchmark, file, path, md5=md5, rows=len(chosen)):
                logger.warning("%s", line)
        if bad.count:
            logger.warning("%s rows of %s are left out: see %s", f"{bad.count:,}", path, skipped)
        jobs.append(Job(benchmark, path, md5, chosen, dict(bad.left_out), folder, file.layout, root))
    return jobs
