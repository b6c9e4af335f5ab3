"""Rows of any file of a data set: their cells checked, errors that name file, row and column, and the way to records.

A layout's module turns a `Row` into a sample by `row.sample(...)`, which checks the record as strictly as the
project's own JSON files are checked; `samples_of` applies one policy to rows that are malformed.
"""

import ast
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.conversation import media_kinds
from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows, RecordError
from onethinker_jax.data_pipeline.records.record import record_of_row
from onethinker_jax.data_pipeline.sources.sample import Sample, SourceError
from onethinker_jax.text_output import one_line

logger = logging.getLogger(__name__)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MEDIA_WORD = re.compile(r"<(?=(?:image|video)>)")
_WHOLE = re.compile(r"\d{1,18}")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d+)?")
# The part of a record's error that may differ from row to row: what follows a comma or stands in brackets.
_OF_THE_ROW = re.compile(r"(?:, (?:has|is|are) | \(|: no such file ).*", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One row of a file: its cells by column name, and where it stands."""

    file: Path
    number: int
    """From 1, the line of a table's header not counted."""
    cells: Mapping[str, Any]
    id_column: str = ""
    """The column that errors name the row by, beside its number."""
    check_media: bool = True
    """Whether media files must be there."""

    def __str__(self) -> str:
        identity = self.cells.get(self.id_column)
        named = "" if identity in (None, "") else f" ({self.id_column} {one_line(str(identity))[:100]})"
        return f"{self.file}: row {self.number}{named}"

    def error(self, column: str, what: str, of_row: str = "") -> SourceError:
        """The error that `what` is wrong with a column; `of_row` goes on with what is this row's alone."""
        return SourceError(f"{self}: {column}: {what}{of_row}", kind=f"{column}: {what}")

    def text(self, column: str, default: str | None = None) -> str:
        """A cell's text, white space around it gone; numbers as they are written.

        Raises SourceError: it is missing or empty and there is no default, or it is no text.
        """
        value = self.cells.get(column)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            if default is None:
                raise self.error(column, "is empty" if column in self.cells else "is missing")
            return default
        if not isinstance(value, str):
            raise self.error(column, "must be a text", f", is {type(value).__name__}")
        if not (stripped := value.strip()) and default is None:
            raise self.error(column, "is empty")
        return stripped or (default or "")

    def whole(self, column: str) -> int:
        """A cell's whole number. Raises SourceError: it is none."""
        text = self.text(column)
        if not re.fullmatch(r"-?\d{1,18}(?:\.0+)?", text):
            raise self.error(column, "must be a whole number", f", is {text!r:.60}")
        return int(text.partition(".")[0])

    def listed(self, column: str) -> list[Any]:
        """A cell's list, which may be written as the text of a Python or JSON list.

        Raises SourceError: it is none.
        """
        value = self.literal(column)
        if not isinstance(value, (list, tuple)):
            raise self.error(column, "must be a list", f", is {type(value).__name__}")
        return list(value)

    def options(self, column: str) -> list[str]:
        """A cell's list of options, as texts. Raises SourceError: it is no list, or has more than there are letters."""
        found = [str(option) for option in self.listed(column)]
        if len(found) > len(LETTERS):
            raise self.error(column, f"has more than {len(LETTERS)} options", f": {len(found)}")
        return found

    def literal(self, column: str) -> Any:
        """A cell's value, read out of its text where that is Python or JSON. Raises SourceError: it is neither."""
        value = self.cells.get(column)
        if value is None or value == "":
            raise self.error(column, "is empty" if column in self.cells else "is missing")
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
        try:
            return ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
            raise self.error(column, "cannot be read as a Python or JSON value", f" ({error})") from None

    def media(self, column: str, *candidates: Path) -> Path:
        """The first of the files that is there; the first of all if none is and none need be.

        Raises SourceError naming the first.
        """
        for file in candidates:
            try:
                if file.is_file():
                    return file
            except OSError as error:  # a name that is too long, a folder that may not be entered
                if self.check_media:
                    raise self.error(column, "cannot be looked up", f": {file} ({error.strerror})") from None
        if not self.check_media:
            return candidates[0]
        raise self.error(column, "no such file", f" {candidates[0]}")

    def sample(
        self,
        record: Mapping[str, Any],
        *,
        images: Sequence[MediaFile] = (),
        videos: Sequence[MediaFile] = (),
        columns: Mapping[str, str] | None = None,
        groups: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Sample:
        """The sample of a record, given as a row of OneThinker's layout without its media.

        A problem that names no media gets them in front, videos first.

        Args:
            record: `problem_id`, `problem`, `problem_type`, `answer` and so on.
            images: the files of its <image>s.
            videos: the files of its <video>s.
            columns: the record's field -> this file's column that errors name instead.
            groups: see `Sample`; empty ones are left out.
            facts: see `Sample`.

        Raises SourceError: the record is malformed.
        """
        named = {f"image {n}": file for n, file in enumerate(images)}
        named |= {f"video {n}": file for n, file in enumerate(videos)}
        row = {
            "data_source": self.file.stem,
            **record,
            "images": [name for name in named if name.startswith("image")],
            "videos": [name for name in named if name.startswith("video")],
        }
        row.setdefault("data_type", _data_type(images, videos))
        if isinstance(row.get("problem"), str) and not media_kinds(row["problem"]):
            row["problem"] = "<video>" * len(videos) + "<image>" * len(images) + row["problem"]
        try:
            made = record_of_row(row, _Named(named), str(self), check_media=self.check_media)
        except RecordError as error:
            field, colon, what = str(error).partition(": ")
            column = (columns or {}).get(field, field)
            text = f"{column}{colon}{what}"
            raise SourceError(f"{self}: {text}", kind=_OF_THE_ROW.sub("", text)) from None
        return Sample(made, {k: v for k, v in (groups or {}).items() if v}, dict(facts or {}))


@dataclass(frozen=True)
class _Named:
    """Where the media names of one record lead."""

    files: Mapping[str, MediaFile]

    def __truediv__(self, entry: str, /) -> MediaFile:
        return self.files[entry]


def _data_type(images: Sequence[MediaFile], videos: Sequence[MediaFile]) -> str:
    return "-".join([*(["video"] if videos else []), *(["image"] if images else [])]) or "text"


def id_of(text: str) -> int | str:
    """A `problem_id`: a number where the text is one."""
    return int(text) if _WHOLE.fullmatch(text) else text


def plain(text: str) -> str:
    """A text whose <image> and <video> are words, as a record's problem has it."""
    return _MEDIA_WORD.sub(r"\\<", text)


def open_problem_type(answer: str) -> str:
    """The type of a question without options: numerical where its answer is a number, else math."""
    return "numerical" if _NUMBER.fullmatch(answer.strip()) else "math"


def lettered(options: Iterable[str]) -> list[str]:
    """Options with the letters A, B, C and so on before them, unless all have them already."""
    options = [plain(option) for option in options]
    own = [
        re.match(rf"\s*\(?{letter}[.):]", option) for letter, option in zip(LETTERS, options, strict=False)
    ]
    if options and all(own) and len(own) == len(options):
        return options
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def samples_of(
    rows: Iterable[Row | SourceError],
    make: Callable[[Row], Sample | None],
    path: Path,
    bad: BadRecords,
    *,
    what: str = "sample",
) -> Iterator[Sample]:
    """The samples of rows, their ids unique. None stands for a row that is not asked for, an error for a broken one.

    Raises SourceError (while iterating): a row is malformed and `bad` raises it, or there is no sample.
    """
    seen: dict[str, int] = {}
    for row in rows:
        try:
            if isinstance(row, SourceError):
                raise row
            sample = make(row)
            if sample is None:
                continue
            identity = str(sample.record.problem_id)
            if identity in seen:
                column = row.id_column or "problem_id"
                raise row.error(column, "is there twice", f": also in row {seen[identity]}")
        except SourceError as error:
            bad.report(error, kind=error.kind, file=str(path))
            continue
        seen[identity] = row.number
        yield sample
    if bad.count:
        logger.warning("%s: %d rows left out of %d", path, bad.count, bad.count + len(seen))
    if not seen:
        why = "; ".join(f"{kind} ({count})" for kind, count in bad.left_out.most_common())
        raise SourceError(f"{path}: holds no {what}{' that can be used: ' if why else ''}{why}")


def json_objects(path: Path, id_column: str = "", *, check_media: bool = True) -> Iterator[Row | SourceError]:
    """The rows of a JSON list of objects, or of JSON lines.

    Raises SourceError (while iterating): the file is no such thing.
    """
    rows = iter(JsonRows(path))
    while True:
        try:
            number, value = next(rows)
        except StopIteration:
            return
        except RecordError as error:
            raise SourceError(str(error)) from None
        if isinstance(value, BrokenRow):
            yield SourceError(f"{path}: row {number}: {value.reason}", kind="a line that is not JSON")
        elif not isinstance(value, dict):
            what = f"must be an object, is a {type(value).__name__}"
            yield SourceError(f"{path}: row {number}: {what}", kind="a row that is no object")
        else:
            yield Row(path, number, value, id_column, check_media)


def missing_columns(path: Path, there: Iterable[str], needed: Iterable[str]) -> None:
    """Raises SourceError where a table lacks columns, naming them and those that are there."""
    there = list(there)
    if lacking := [name for name in needed if name not in there]:
        has = ", ".join(one_line(name)[:40] for name in there[:40])
        raise SourceError(f"{path}: has no column {', '.join(lacking)} (has: {has})")
