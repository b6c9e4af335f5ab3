"""Rows of Parquet files, a few at a time, and the pictures that their cells hold, read when they are opened."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from onethinker_jax.data_pipeline.sources.reading.rows import Row, missing_columns
from onethinker_jax.data_pipeline.sources.sample import SourceError
from onethinker_jax.errors import MissingLibrary

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_BATCH = 64  # rows as Python objects at once


def parquet_files(path: Path, *patterns: str) -> list[Path]:
    """`path` itself if it is a file, else the files of the first pattern in it that has any, sorted.

    Raises SourceError: there are none.
    """
    if path.is_file():
        return [path]
    for pattern in patterns:
        if found := sorted(path.glob(pattern)):
            return found
    what = "is no such file or folder" if not path.exists() else f"has no {' or '.join(patterns)}"
    raise SourceError(f"{path}: {what}")


def parquet_rows(
    path: Path,
    needed: Sequence[str],
    id_column: str,
    *,
    picture: str = "",
    check_media: bool = True,
) -> Iterator[Row]:
    """The rows of a file.

    Args:
        path: the file.
        needed: columns that must be there.
        id_column: see `Row`.
        picture: a column of pictures {"bytes", "path"}, given as `ParquetImage`, or None in a row without one.
        check_media: see `Row`.

    Raises SourceError (while iterating): it is no Parquet file, or lacks a column. MissingLibrary: no pyarrow.
    """
    with _opened(path) as file:
        missing_columns(path, file.schema_arrow.names, needed)
        picture = picture if picture in file.schema_arrow.names else ""
        number = 0
        for group in range(file.num_row_groups):
            for position, cells in enumerate(_cells(file, path, group, picture)):
                number += 1
                if picture and cells[picture]:
                    name = f"{cells.get(id_column, number)}.png"
                    cells[picture] = ParquetImage(path, group, position, picture, name)
                yield Row(path, number, cells, id_column, check_media)


def _cells(file: "ParquetFile", path: Path, group: int, picture: str) -> Iterator[dict[str, Any]]:
    """The cells of each row of a row group; that of `picture` is whether it has one."""
    from pyarrow import ArrowException

    try:
        there: Iterator[bool] = iter(())
        if picture:
            column = file.read_row_group(group, columns=[f"{picture}.bytes"]).column(picture)
            there = (bool((cell.as_py() or {}).get("bytes")) for cell in column)
        columns = [name for name in file.schema_arrow.names if name != picture]
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
            for cells in batch.to_pylist():
                yield {**cells, picture: next(there)} if picture else cells
    except (OSError, ArrowException, LookupError, AttributeError) as error:
        raise SourceError(f"{path}: row group {group}: cannot be read ({error})") from None


@dataclass(frozen=True)
class ParquetImage:
    """A picture in a cell of a Parquet file; as text, the file, where in it, and the column."""

    path: Path
    group: int
    position: int
    column: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}: row {self.position + 1} of row group {self.group}: {self.column} ({self.name})"

    def is_file(self) -> bool:
        """Whether the Parquet file is there."""
        return self.path.is_file()

    def stat(self) -> os.stat_result:
        """Time of the Parquet file; its size is not known without reading it."""
        found = self.path.stat()
        times = {f"st_{name}time_ns": found.st_mtime_ns for name in "amc"}
        return os.stat_result(
            (stat.S_IFREG, 0, 0, 0, 0, 0, found.st_size, *(int(found.st_mtime),) * 3), times
        )

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The picture's bytes, in memory. Raises OSError: the file is not what it was."""
        try:
            with _opened(self.path) as file:
                column = file.read_row_group(self.group, columns=[f"{self.column}.bytes"]).column(self.column)
                content = column[self.position].as_py()["bytes"]
        except (SourceError, IndexError, KeyError, TypeError) as error:
            raise OSError(f"{self}: cannot be read ({error})") from None
        return io.BytesIO(content)


def _opened(path: Path) -> "ParquetFile":
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingLibrary(
            f"{path}: to read it, pip install 'onethinker_jax[evaluate]' ({error})"
        ) from error
    try:
        return ParquetFile(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ArrowException as error:
        raise SourceError(f"{path}: is no Parquet file ({error})") from None
