r"""Tab separated tables of any size, a row at a time, and the pictures that their cells hold as base64.

The dialect is that of pandas' `to_csv(sep="\t")`: a cell that holds a tab, a line end or a quote is quoted, and a
quote in it is doubled. Python's `csv` tells no offsets and its limit of a cell's size is one of the whole process, so
the rows are cut here; a cell of a picture stays where it is in the file until the picture is opened.
"""

import binascii
import io
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

from onethinker_jax.data_pipeline.records.json_rows import MAX_ROW
from onethinker_jax.data_pipeline.sources.sample import SourceError

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
# The items of a Python or JSON list of texts; in a quoted cell each of a JSON list's quotes is doubled.
_ITEM = re.compile(rb"""['"]+([^'",\[\]]*)['"]+""")


@dataclass(frozen=True)
class Span:
    """Bytes of a file that hold one base64 text."""

    offset: int
    length: int


@dataclass(frozen=True)
class BinaryCell:
    """A cell that may be large: where it lies, and its bytes as they stand there, which are to be dropped soon."""

    offset: int
    content: bytes

    def spans(self, *, check: bool = True) -> list[Span]:
        """Where its texts lie: itself, or the items of the list that it is.

        Raises CellError: one is empty or, with `check`, is no base64.
        """
        if not (self.content.startswith(b"[") and self.content.endswith(b"]")):
            return [self._span(0, len(self.content), check)]
        found = [self._span(item.start(1), item.end(1), check) for item in _ITEM.finditer(self.content)]
        if not found:
            raise CellError("is a list without an item")
        return found

    def _span(self, start: int, end: int, check: bool) -> Span:
        if start == end:
            raise CellError("holds an empty text")
        if check:
            decoded(self.content[start:end])
        return Span(self.offset + start, end - start)


class CellError(ValueError):
    """What is wrong with a cell; `of_row` goes on with what is its row's alone."""

    def __init__(self, what: str, of_row: str = ""):
        super().__init__(what + of_row)
        self.what, self.of_row = what, of_row


def decoded(text: bytes) -> bytes:
    """What a base64 text stands for, line ends in it allowed. Raises CellError: it is cut or is no base64."""
    try:
        return binascii.a2b_base64(text.translate(None, _SPACE), strict_mode=True)
    except binascii.Error as error:
        raise CellError("is no whole base64 text", f" ({error}, {len(text):,} characters)") from None


@dataclass(frozen=True)
class TsvImage:
    """A picture in a cell of a table, read when it is opened; as text, the table, its row and its column."""

    table: Path
    span: Span
    row: int
    column: str
    name: str

    def __str__(self) -> str:
        return f"{self.table}: row {self.row}: {self.column} ({self.name})"

    def is_file(self) -> bool:
        """Whether the table is there."""
        return self.table.is_file()

    def stat(self) -> os.stat_result:
        """Its own size, to two bytes, and the time of the table."""
        found = self.table.stat()
        size = self.span.length * 3 // 4
        times = {f"st_{name}time_ns": found.st_mtime_ns for name in "amc"}
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, size, *(int(found.st_mtime),) * 3), times)

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The picture's bytes, in memory. Raises OSError: the table is not what it was."""
        with self.table.open("rb") as file:
            file.seek(self.span.offset)
            text = file.read(self.span.length)
        try:
            return io.BytesIO(decoded(text))
        except CellError as error:
            raise OSError(f"{self}: {error}") from None


class _Cell(NamedTuple):
    """The bytes of a cell, without the quotes around it and with those in it as they stand."""

    offset: int
    content: bytes
    quoted: bool = False


class TsvTable:
    """The rows of a table with a header, as (number, {column: text or `BinaryCell`}), from 1; empty lines left out.

    A row that is malformed and whose end is known comes as a `SourceError`, and the next row follows.

    Raises SourceError (while iterating): nothing can be told apart any more.
    """

    def __init__(self, path: Path, *, binary: Collection[str] = (), max_row: int = MAX_ROW):
        """Reads the header.

        Args:
            path: the file, UTF-8.
            binary: the columns whose cells are given as `BinaryCell`.
            max_row: the most bytes of a row: an unclosed quote would else read the rest of the file as one cell.

        Raises SourceError: the file cannot be read, is empty, or its header is no text.
        """
        self.path, self._binary, self._max_row = path, frozenset(binary), max_row
        self.columns: tuple[str, ...] = ()
        with self._opened() as file:
            if file.read(len(_BOM)) != _BOM:
                file.seek(0)
            head = self._row(file, "header")
            self._begin = file.tell()
        if head is None:
            raise SourceError(f"{path}: is empty")
        self.columns = tuple(self._text(cell, "header", f"column {n}") for n, cell in enumerate(head, 1))
        if twice := {name for name in self.columns if self.columns.count(name) > 1}:
            raise SourceError(f"{path}: header: has the column {min(twice)} twice")

    def __iter__(self) -> Iterator[tuple[int, dict[str, str | BinaryCell]] | SourceError]:
        with self._opened() as file:
            file.seek(self._begin)
            number = 0
            while (cells := self._row(file, f"row {number + 1}")) is not None:
                if len(cells) == 1 and not cells[0].content and len(self.columns) > 1:
                    continue  # an empty line
                number += 1
                try:
                    yield number, self._named(cells, f"row {number}")
                except SourceError as error:
                    yield error

    def _named(self, cells: list[_Cell], name: str) -> dict[str, str | BinaryCell]:
        if len(cells) != len(self.columns):
            what = f"has {len(cells)} cells, the header has {len(self.columns)}"
            raise SourceError(f"{self.path}: {name}: {what}", kind="another number of cells than the header")
        return {
            column: BinaryCell(cell.offset, cell.content)
            if column in self._binary
            else self._text(cell, name, column)
            for column, cell in zip(self.columns, cells, strict=True)
        }

    def _opened(self) -> IO[bytes]:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None

    def _text(self, cell: _Cell, row: str, column: str) -> str:
        content = cell.content.replace(b'""', b'"') if cell.quoted else cell.content
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 (0x{content[error.start]:02x} at byte {error.start} of the cell)"
            raise SourceError(
                f"{self.path}: {row}: {column}: {what}", kind=f"{column}: is not UTF-8"
            ) from None

    def _row(self, file: IO[bytes], name: str) -> list[_Cell] | None:
        """The cells of the next row, which errors call `name`; None at the file's end."""
        begin = file.tell()
        line = file.readline(self._max_row)
        if not line:
            return None
        if b'"' in line:
            return self._quoted(file, begin, line, name)
        cells = []
        for content in line.rstrip(b"\r\n").split(b"\t"):
            cells.append(_Cell(begin, content))
            begin += len(content) + 1
        self._check_length(line, name, len(cells) - 1)
        return cells

    def _quoted(self, file: IO[bytes], begin: int, line: bytes, name: str) -> list[_Cell]:
        """The cells of a row that has quotes; further lines are read as long as a quote is open."""
        row = bytearray(line)
        cells: list[_Cell] = []
        at = 0
        while True:
            start, quoted, inner = at, row[at : at + 1] == b'"', b""
            if quoted:
                start += 1
                close = self._closing(file, row, start, name, len(cells))
                inner, at = bytes(row[start:close]), close + 1
            end = row.find(b"\t", at)
            rest = row[at:end] if end >= 0 else row[at:].rstrip(b"\r\n")
            cells.append(_Cell(begin + start, inner + rest, quoted))
            if end < 0:
                self._check_length(row, name, len(cells) - 1)
                return cells
            at = end + 1

    def _closing(self, file: IO[bytes], row: bytearray, at: int, name: str, cell: int) -> int:
        """Where the quoted cell that begins at `at` ends; `row` grows by the lines that it goes on in."""
        while True:
            close = row.find(b'"', at)
            if close < 0:
                at = len(row)
                self._check_length(row, name, cell)
                if not (more := file.readline(self._max_row)):
                    raise SourceError(f"{self.path}: {self._where(name, cell)}: its quote is not closed")
                row += more
            elif row[close + 1 : close + 2] == b'"':
                at = close + 2
            else:
                return close

    def _check_length(self, row: bytes | bytearray, name: str, cell: int) -> None:
        if len(row) >= self._max_row:
            what = f"the row has more than {self._max_row:,} bytes (is a quote not closed?)"
            raise SourceError(f"{self.path}: {self._where(name, cell)}: {what}")

    def _where(self, name: str, cell: int) -> str:
        return f"{name}: {self.columns[cell]}" if cell < len(self.columns) else name
