"""THE table of benchmarks, and how a word of the command line names one: by name, or by its file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from onethinker_jax.data_pipeline.records.json_rows import JsonRows
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.benchmarks import (
    captions,
    grounding,
    question_answering,
    segmentation,
    tracking,
)
from onethinker_jax.evaluate.benchmarks.task_metrics import ACCURACY, metrics_of
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile
from onethinker_jax.spelling import hint, nearest
from onethinker_jax.tasks import TASKS, Task

TABLE: Mapping[str, Benchmark] = {
    row.name: row
    for row in (
        *question_answering.ROWS,
        *captions.ROWS,
        *grounding.ROWS,
        *tracking.ROWS,
        *segmentation.ROWS,
    )
}
"""By name, in the order of the paper's tables."""

_OWN_FILE = {".json": "onethinker", ".jsonl": "onethinker", ".tsv": "vlmevalkit"}
"""The layout of a file that the table does not know, by its ending."""


class BenchmarkError(UserError, ValueError):
    """A benchmark that is not known, or whose files are not there. One line."""


def find(what: str, data: Path | None = None) -> tuple[Benchmark, DataFile, Path]:
    """The benchmark that a word of the command line names, which of its files is there, and where.

    Args:
        what: a name of `TABLE` ("eval_charades", or "charades"), a title that one row has ("MMBench"), in any case;
            or the path of a file or folder. One whose name the table has is that benchmark; any other file is one of
            its own, measured by the tasks that are in it.
        data: the folder that `DataFile.path` is relative to; of a file it tells where media are.

    Raises BenchmarkError: no such benchmark or file, a name without `data`, a file of several benchmarks.
    """
    path = Path(what)
    if path.is_file() or path.suffix in _OWN_FILE:
        return _of_file(path)
    if path.is_dir() and len(known := _of_folder(path)) == 1:
        return *known[0], path
    if (benchmark := _named(what)) is None:
        raise BenchmarkError(f"{what}: no such benchmark, and no such file{_near(what)}")
    if data is None:
        raise BenchmarkError(f"{what}: needs --data, the folder that holds {benchmark.files[0].path}")
    if not data.is_dir():
        is_what = "is a file, not the folder that it lies in" if data.exists() else "no such folder"
        raise BenchmarkError(f"--data {data}: {is_what}")
    for file in benchmark.files:
        if (data / file.path).exists():
            return benchmark, file, data / file.path
    raise BenchmarkError(f"{what}: {data} has none of {', '.join(file.path for file in benchmark.files)}")


def _near(what: str) -> str:
    """The end of an error's line: names that a word may stand for, else all."""
    word = what.lower()
    likely = [row.name for row in TABLE.values() if word == row.title.lower()]  # of several
    spelled = {known.lower(): known for row in TABLE.values() for known in (row.title, row.name)}
    likely = likely or [known for low, known in spelled.items() if word and low.startswith(word)]
    likely = likely or [spelled[low] for low in [nearest(word, spelled)] if low is not None]
    if likely:
        return f"; did you mean {' or '.join(map(repr, likely))}?"
    return f" (known: {', '.join(TABLE)})"


def _named(what: str) -> Benchmark | None:
    for words_of in (lambda row: (row.name, row.name.removeprefix("eval_")), lambda row: (row.title,)):
        found = [row for row in TABLE.values() if what.lower() in map(str.lower, words_of(row))]
        if len(found) == 1:
            return found[0]
    return None


def _of_file(path: Path) -> tuple[Benchmark, DataFile, Path]:
    if not path.is_file():
        raise BenchmarkError(f"{path}: no such file{hint(path.stem, TABLE)}")
    known = [(row, file) for row in TABLE.values() for file in row.files if Path(file.path).name == path.name]
    known = [(row, file) for row, file in known if row.name == path.stem] or known
    if len(known) > 1:
        names = ", ".join(row.name for row, _ in known)
        raise BenchmarkError(f"{path}: holds several benchmarks ({names}): name one, and --data")
    if known:
        return *known[0], path
    layout = _OWN_FILE.get(path.suffix)
    if layout is None:
        endings = ", ".join(_OWN_FILE)
        raise BenchmarkError(f"{path}: is no file of a benchmark, and its ending is none of {endings}")
    return _own_benchmark(path, layout), DataFile(layout, path.name), path


def _of_folder(path: Path) -> list[tuple[Benchmark, DataFile]]:
    """The benchmarks that are read from a folder of this name: "ReasonVOS", ".../got10k/val"."""
    parts = path.resolve().parts
    every = [(row, file) for row in TABLE.values() for file in row.files]
    return [
        (row, file) for row, file in every if parts[-len(Path(file.path).parts) :] == Path(file.path).parts
    ]


def _own_benchmark(path: Path, layout: str) -> Benchmark:
    """A benchmark made of a file that the table does not know."""
    return Benchmark(
        name=path.stem,
        title=path.stem,
        family="own file",
        files=(DataFile(layout, path.name),),
        metrics=metrics_of(_tasks(path)) if layout == "onethinker" else ACCURACY,
        protocol="own" if layout == "onethinker" else "vlmevalkit",
    )


def _tasks(path: Path) -> set[Task]:
    """The tasks of the good rows; what is wrong with the others is said when they are read.

    Raises RecordError: the file is not JSON.
    """
    asked = {
        Task.of(
            str(row.get("problem_type")), str(row.get("data_type", "image" if "images" in row else "video"))
        )
        for _, row in JsonRows(path)
        if isinstance(row, dict)
    }
    return asked & set(TASKS)


def md5_of(path: Path) -> str:
    """Of a file's content; "" of a folder. Raises OSError."""
    if path.is_dir():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def differences(benchmark: Benchmark, file: DataFile, path: Path, *, md5: str, rows: int) -> list[str]:
    """A line for what is not as published: another md5, another number of rows."""
    lines = []
    if file.md5 and md5 and not md5.startswith(file.md5):
        lines.append(f"{path}: its md5 is {md5}, that of the published file {file.md5}")
    expected = benchmark.rows if file.rows is None else file.rows
    if expected is not None and rows != expected:
        lines.append(f"{path}: has {rows:,} rows, {benchmark.name} as published {expected:,}")
    return lines
