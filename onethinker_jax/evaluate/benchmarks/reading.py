"""A benchmark with its problems, and what file they were read from: for answering and for scoring alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.sample import Sample, Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate.benchmarks.table import differences, md5_of
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile


@dataclass(frozen=True)
class BenchmarkFile:
    """A file, or folder, that a benchmark's problems were read from."""

    path: Path
    md5: str
    """"" of a folder."""
    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why rows of it are not among the problems, and how many."""
    layout: str = ""
    """A key of `LAYOUTS`, by which it was read."""
    media: Path | None = None
    """The folder that media paths are relative to; None: the layout's own."""

    def to_json(self) -> dict[str, Any]:
        """As results.json has it: what is needed to read it again."""
        media = None if self.media is None else str(self.media)
        where = {"path": str(self.path), "md5": self.md5, "rows": self.rows}
        return {**where, "layout": self.layout, "media": media}


@dataclass(frozen=True, eq=False)
class LoadedBenchmark:
    """A benchmark that was read."""

    benchmark: Benchmark
    file: BenchmarkFile
    samples: Sequence[Sample]
    differences: Sequence[str] = ()
    """A line for what is not as published, where all of it was read."""

    @property
    def name(self) -> str:
        """The benchmark's."""
        return self.benchmark.name


def read_benchmark(
    found: tuple[Benchmark, DataFile, Path],
    *,
    data: Path | None,
    media_root: Path | None,
    bad: BadRecords,
    check_media: bool = True,
    limit: int | None = None,
) -> LoadedBenchmark:
    """The problems of a benchmark that `find` has found.

    Args:
        found: what `find` returned.
        data: the folder that names of benchmarks are looked up in.
        media_root: the folder that media paths are relative to; None: the benchmark's own in `data`, else the
            layout's.
        bad: what becomes of malformed rows.
        check_media: whether media files must be there.
        limit: only the first this many.

    Raises SourceError or RecordError naming a malformed row, OSError.
    """
    benchmark, file, path = found
    if media_root is None and file.media and data is not None:
        media_root = data / file.media
    layout = LAYOUTS[file.layout]
    rows = layout(
        Source(path, split=benchmark.split, media_root=media_root, check_media=check_media, bad=bad)
    )
    samples = list(islice(rows, limit))
    md5 = md5_of(path)
    return LoadedBenchmark(
        benchmark,
        BenchmarkFile(path, md5, len(samples), dict(bad.left_out), file.layout, media_root),
        samples,
        differences(benchmark, file, path, md5=md5, rows=len(samples)) if limit is None else (),
    )
