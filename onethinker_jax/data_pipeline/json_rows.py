"""The rows of a JSON list or of a JSON lines file, one at a time, in bounded memory.

A list is read in chunks of text and decoded row by row with `json.JSONDecoder.raw_decode`: the standard
library's own scanner, so numbers, escapes and error messages are those of `json.loads`, at its speed.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # characters read at once
MAX_ROW = 1 << 28  # characters of one row; a longer one is no record but a file that is not what it says
_BOM = b"\xef\xbb\xbf"
# Where a decoder stops in a row that a chunk's end cut: at the string or just before the end ("-Infinity").
_CUT = 16


class RecordError(ValueError):
    """A malformed record or record file. One line: file, record, field, what is wrong."""


@dataclass(frozen=True)
class BrokenRow:
    """A line of a JSON lines file that is not JSON."""

    text: str
    reason: str


class JsonRows:
    """Iterates over (number, row) of a file, numbered from 1 (a line file: by line, empty ones left out).

    A broken line comes as a `BrokenRow` and the next line follows; after a fault in a list nothing can be
    told apart any more.

    Raises (while iterating):
        RecordError: the file cannot be read, or is not a JSON list or JSON lines. Names the file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.place = 0, 0, 0
        """Of the row given last: its number, and where its text begins in the file and how long it is, in bytes."""
        self._file: io.BufferedReader | None = None
        self._done = 0

    @property
    def bytes_read(self) -> int:
        """How far into the file the reading is."""
        return self._done if self._file is None else self._file.tell()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        try:
            with self.path.open("rb") as file:
                self._file = file
                first = _first_character(file)
                file.seek(0)
                if first == "[":
                    mark = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
                    file.seek(mark)
                    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
                    yield from self._list_rows(text, mark)
                    text.detach()
                elif first == "{":
                    yield from self._lines(file)
                elif not first:
                    raise RecordError(f"{self.path}: is not JSON (it is empty)")
                else:
                    raise RecordError(
                        f"{self.path}: must be a JSON list or JSON lines, starts with {first!r}"
                    )
                self._done = file.tell()
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"{self.path}: cannot be read ({error})") from None
        finally:
            self._file = None

    def _lines(self, file: io.BufferedReader) -> Iterator[tuple[int, Any]]:
        number = end = 0
        while line := file.readline(MAX_ROW):
            number += 1
            self.place = number, end, len(line)
            end += len(line)
            if len(line) == MAX_ROW:
                raise RecordError(f"{self.path}: record {number}: a line of more than {MAX_ROW} bytes")
            if not line.strip(_BOM + b" \t\r\n" if number == 1 else None):
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
                yield number, BrokenRow(text, f"is not JSON ({error})")

    def _list_rows(self, file: io.TextIOWrapper, start: int) -> Iterator[tuple[int, Any]]:
        text = _Window(file, start)
        text.next_character()
        text.move(text.at + 1)  # the bracket
        if text.next_character() == "]":
            text.move(text.at + 1)
        else:
            number = 0
            while True:
                number += 1
                text.next_character()
                begin = text.byte
                value = self._value(text, number)
                self.place = number, begin, text.byte - begin
                yield number, value
                mark = text.next_character()
                text.move(text.at + 1)
                if mark == "]":
                    break
                if mark != ",":
                    at = f"at character {text.base + text.at - 1}"
                    raise RecordError(f"{self.path}: is not JSON (no comma or ] after record {number}, {at})")
        if text.next_character():
            raise RecordError(
                f"{self.path}: is not JSON (text after the list, at character {text.base + text.at})"
            )

    def _value(self, text: "_Window", number: int) -> Any:
        """The value at the window's place, which moves behind it."""
        while True:
            fault = None
            try:
                value, end = _DECODER.raw_decode(text.buffer, text.at)
                if end < len(text.buffer) or text.ended:  # else a number may go on
                    text.move(end)
                    return value
            except json.JSONDecodeError as error:
                fault = f"{error.msg} at character {text.base + error.pos}"
                cut = error.msg.startswith("Unterminated") or error.pos + _CUT >= len(text.buffer)
                if not cut or text.ended:
                    raise RecordError(f"{self.path}: record {number}: is not JSON ({fault})") from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; too deep
                raise RecordError(f"{self.path}: record {number}: is not JSON ({error})") from None
            if len(text.buffer) - text.at > MAX_ROW:
                what = fault or "a number without end"
                raise RecordError(f"{self.path}: record {number}: longer than {MAX_ROW} characters ({what})")
            text.refill()


_DECODER = json.JSONDecoder()


class _Window:
    """A piece of a text file and a place in it. `base` is where the piece begins in the file, in characters.

    `byte` is where the place is in the file, in bytes.
    """

    def __init__(self, file: io.TextIOWrapper, byte: int):
        self._file = file
        self.buffer, self.at, self.base, self.ended = "", 0, 0, False
        self.byte = byte

    def move(self, to: int) -> None:
        """Goes on to another place in the piece."""
        passed = self.buffer[self.at : to]
        self.byte += len(passed) if passed.isascii() else len(passed.encode())
        self.at = to

    def refill(self) -> None:
        """Drops what lies before the place and reads on; a row of any length costs linear time."""
        kept = self.buffer[self.at :]
        more = self._file.read(max(CHUNK, len(kept)))
        self.base += self.at
        self.buffer, self.at, self.ended = kept + more, 0, not more

    def next_character(self) -> str:
        """Moves over white space; the character there, "" at the file's end."""
        while True:
            at = self.at
            while at < len(self.buffer) and self.buffer[at] in " \t\r\n":
                at += 1
            self.move(at)
            if at < len(self.buffer):
                return self.buffer[at]
            if self.ended:
                return ""
            self.refill()


def _first_character(file: io.BufferedReader) -> str:
    file.seek(0)
    head = file.read(3).removeprefix(_BOM)
    while True:
        if stripped := head.lstrip(b" \t\r\n"):
            return stripped[:1].decode("ascii", "backslashreplace")
        if not (head := file.read(4096)):
            return ""
