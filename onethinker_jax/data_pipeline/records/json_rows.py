"""The rows of a JSON list or of a JSON lines file, one at a time, in bounded memory.

A list is read in chunks of text and decoded row by row with `json.JSONDecoder.raw_decode`: the standard
library's own scanner, so numbers, escapes and error messages are those of `json.loads`, at its speed.
"""

import codecs
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.errors import SkippableError
from onethinker_jax.text_output import one_line

CHUNK = 1 << 20  # characters read at once
MAX_ROW = 1 << 28  # characters of one row; a longer one is no record but a file that is not what it says
_BOM = b"\xef\xbb\xbf"
# Where a decoder stops in a row that a chunk's end cut: at the string or just before the end ("-Infinity").
_CUT = 16


class RecordError(SkippableError, ValueError):
    """A malformed record or record file. One line: file, record, field, what is wrong."""

    def __init__(self, message: str):
        super().__init__(one_line(message))  # names and paths may hold any character


@dataclass(frozen=True)
class BrokenRow:
    """A line of a JSON lines file that is not JSON."""

    text: str
    reason: str


class JsonRows:
    """Iterates over (number, row) of a file, numbered from 1 (a line file: by line, empty ones left out).

    A broken line comes as a `BrokenRow` and the next line follows; after an error in a list nothing can be
    told apart any more.

    Raises (while iterating):
        RecordError: the file cannot be read, or is not a JSON list or JSON lines. Names the file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.position = 0, 0, 0
        """The number of the row given last, where its text begins in the file, and how long it is, in bytes."""
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
                if encoding := _other_encoding(file.read(4)):
                    raise RecordError(f"{self.path}: is {encoding}, must be UTF-8")
                first = _first_character(file)
                file.seek(0)
                if first == "[":
                    mark = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
                    file.seek(mark)
                    yield from self._list_rows(file, mark)
                elif first == "{":
                    yield from self._lines(file)
                elif not first:
                    raise RecordError(f"{self.path}: is not JSON (it is empty)")
                else:
                    raise RecordError(
                        f"{self.path}: must be a JSON list or JSON lines, starts with {first!r}"
                    )
                self._done = file.tell()
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be read ({error})") from None
        finally:
            self._file = None

    def _lines(self, file: io.BufferedReader) -> Iterator[tuple[int, Any]]:
        number = end = 0
        while line := file.readline(MAX_ROW):
            number += 1
            self.position = number, end, len(line)
            end += len(line)
            if len(line) == MAX_ROW:
                raise RecordError(f"{self.path}: record {number}: a line of more than {MAX_ROW} bytes")
            if not line.strip(_BOM + b" \t\r\n" if number == 1 else None):
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
                if isinstance(error, UnicodeDecodeError):
                    reason = f"is not UTF-8 ({_bad_byte(error)}, byte {error.start} of the line)"
                else:
                    reason = f"is not JSON ({error})"
                yield number, BrokenRow(text, reason)

    def _list_rows(self, file: io.BufferedReader, start: int) -> Iterator[tuple[int, Any]]:
        text = _Window(file, start, str(self.path))
        text.next_character()
        text.move(text.at + 1)  # the bracket
        if text.next_character() == "]":
            text.move(text.at + 1)
        else:
            number = 0
            while True:
                number += 1
                text.name = f"{self.path}: record {number}"
                text.next_character()
                begin = text.byte
                value = self._value(text, number)
                self.position = number, begin, text.byte - begin
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
        """The value at the window's position, which moves behind it."""
        while True:
            reason = None
            try:
                value, end = _DECODER.raw_decode(text.buffer, text.at)
                if end < len(text.buffer) or text.ended:  # else a number may go on
                    text.move(end)
                    return value
            except json.JSONDecodeError as error:
                reason = f"{error.msg} at character {text.base + error.pos}"
                cut = error.msg.startswith("Unterminated") or error.pos + _CUT >= len(text.buffer)
                if not cut or text.ended:
                    raise RecordError(f"{self.path}: record {number}: is not JSON ({reason})") from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; too deep
                raise RecordError(f"{self.path}: record {number}: is not JSON ({error})") from None
            if len(text.buffer) - text.at > MAX_ROW:
                what = reason or "a number without end"
                raise RecordError(f"{self.path}: record {number}: longer than {MAX_ROW} characters ({what})")
            text.refill()


_DECODER = json.JSONDecoder()


class _Window:
    """A piece of a text file and a position in it. `base` is where the piece begins in the file, in characters.

    `byte` is where the position is in the file, in bytes, and `name` what errors call it.
    """

    def __init__(self, file: io.BufferedReader, byte: int, name: str):
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8")()
        self._error = ""
        self.buffer, self.at, self.base, self.ended = "", 0, 0, False
        self.byte, self.name = byte, name

    def move(self, to: int) -> None:
        """Goes on to another position in the piece."""
        passed = self.buffer[self.at : to]
        self.byte += len(passed) if passed.isascii() else len(passed.encode())
        self.at = to

    def refill(self) -> None:
        """Drops what lies before the position and reads on; a row of any length costs linear time.

        Raises RecordError when the text goes on with what is not UTF-8.
        """
        if self._error:
            raise RecordError(f"{self.name}: is not UTF-8 ({self._error})")
        kept = self.buffer[self.at :]
        more = ""
        while not more and (data := self._file.read(max(CHUNK, len(kept)))):
            more = self._decoded(data, self._file.tell())
        if not more and not self._error:
            more = self._decoded(b"", self._file.tell(), final=True)
        if not more and self._error:
            raise RecordError(f"{self.name}: is not UTF-8 ({self._error})")
        self.base += self.at
        self.buffer, self.at, self.ended = kept + more, 0, not more

    def _decoded(self, data: bytes, end: int, *, final: bool = False) -> str:
        """The text of the file's next bytes, up to the first that are not UTF-8: rows before them are good."""
        waiting = self._decoder.getstate()[0]
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            at = end - len(data) - len(waiting) + error.start
            self._error = f"{_bad_byte(error)}, byte {at} of the file"
            return (waiting + data)[: error.start].decode()

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


def _bad_byte(error: UnicodeDecodeError) -> str:
    return f"0x{error.object[error.start]:02x}: {error.reason}"


def _other_encoding(head: bytes) -> str | None:
    """The encoding of a file that begins so, where it is another than UTF-8: by its mark, or by its zeros."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) or head[:3] == b"\0\0\0" or head[1:] == b"\0\0\0":
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:2]:
        return "UTF-16"
    return None


def _first_character(file: io.BufferedReader) -> str:
    file.seek(0)
    head = file.read(3).removeprefix(_BOM)
    while True:
        if stripped := head.lstrip(b" \t\r\n"):
            return stripped[:1].decode("ascii", "backslashreplace")
        if not (head := file.read(4096)):
            return ""
