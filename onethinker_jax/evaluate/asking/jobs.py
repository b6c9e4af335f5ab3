"""What a command line asks to be answered: each benchmark with its problems, and the folder of its answers."""

import logging
from dataclasses import dataclass
from pathlib import Path

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.evaluate.arguments import Arguments
from onethinker_jax.evaluate.benchmarks.reading import LoadedBenchmark, read_benchmark
from onethinker_jax.evaluate.benchmarks.table import find

logger = logging.getLogger("onethinker_jax.evaluate")

SKIPPED = "skipped.jsonl"


@dataclass(frozen=True, eq=False)
class Job:
    """A benchmark to be answered."""

    loaded: LoadedBenchmark
    folder: Path
    """Where its answers are."""

    @property
    def name(self) -> str:
        """The benchmark's."""
        return self.loaded.name

    @property
    def records(self) -> list[Record]:
        """Of the samples, in the order of the file."""
        return [sample.record for sample in self.loaded.samples]


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
    for one in found:
        benchmark, _, path = one
        folder = arguments.out / benchmark.name if len(found) > 1 else arguments.out
        skipped = folder / SKIPPED
        if leads:
            skipped.unlink(missing_ok=True)
        policy = "skip" if arguments.on_bad_record == "skip" else "raise"
        bad = BadRecords(policy, skipped if leads else None)
        loaded = read_benchmark(
            one, data=arguments.data, media_root=arguments.media_root, bad=bad, limit=arguments.limit
        )
        if not loaded.samples:
            raise RecordError(f"{path}: no records to evaluate")
        logger.info("%s records of %s", f"{len(loaded.samples):,}", path)
        for line in loaded.differences:
            logger.warning("%s", line)
        if bad.count:
            logger.warning("%s rows of %s are left out: see %s", f"{bad.count:,}", path, skipped)
        jobs.append(Job(loaded, folder))
    return jobs
