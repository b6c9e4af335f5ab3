"""VLMEvalKit's TSV of image questions: MMBench, MMStar, ScienceQA, AI2D, MMT-Bench, MMMU, MathVista, MathVerse, MMSci.

The user has the file as VLMEvalKit downloads it, such as LMUData/MMBench_DEV_EN.tsv. Pictures stand in its column
`image` as base64, as the `index` of another row (64 characters at most), or as a list of base64. A file without that
column (VLMEvalKit's `_local.tsv`) has `image_path`, a path or a list of paths below LMUData/images/DATA_SET.

A row with options (columns A to Z, or `choices`) is multiple choice. One without is numerical where its answer is a
number, else math, which compares results and texts; with `caption` in the place of `answer` it is open-ended. A hint
comes before the question. `<image 1>` in the question stands for the row's first picture if every such sign names one
(MMMU); an option's sign stays as it is, and that picture follows the question under the same sign. Choices that the
question lists itself (MathVista, MathVerse) are taken out of it. A cell counts as empty if it is, or is "nan".
Rows without a picture are left out and counted, as VLMEvalKit leaves them out; all else that does not fit is an error.
Where media need not be there, a table of no pictures at all, or a reference to none, is taken as one whose pictures are
files that are missing.

Facts: `question` as the file has it, `hint`, `g_index` (the question that a row is a rotation of: its column, else
index modulo 1e6), `answers` (all that MMMU accepts, where it lists several), `question_for_eval`, `skills`,
`question_type`, `answer_type`, `precision`, `unit`, `references` (a caption's), `abstract`,
`image_id`. Groups: `split`,
`category`, `l2-category`, and the columns of `GROUPS`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.questions.choices import split_choices
from onethinker_jax.data_pipeline.sources.reading.rows import (
    LETTERS,
    Row,
    id_of,
    missing_columns,
    open_problem_type,
    plain,
    samples_of,
)
from onethinker_jax.data_pipeline.sources.reading.tsv import BinaryCell, CellError, Span, TsvImage, TsvTable
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError

GROUPS = (
    "split",
    "category",
    "l2-category",
    "question_type",
    "answer_type",
    "task",
    "problem_version",
    "subject",
    "subfield",
)
"""The columns, or keys of `metadata`, that results are also given by."""
REFERENCE_CHARS = 64
"""An `image` of at most this length is the index of the row that has the picture."""
ROTATION = 1_000_000
"""The rotations of a question's options have its index plus multiples of this."""
NO_IMAGE = "image: is empty, and VLMEvalKit asks no question without one"

_FACTS = (
    *("question_for_eval", "question_type", "answer_type", "precision", "unit"),  # mathematics
    *("abstract", "image_id"),  # captions
)
_SIGN = re.compile(r"<image (\d+)>")
_ROOTS = {  # VLMEvalKit's folders of pictures that are not named like the file
    "MMBench_DEV_EN": "MMBench",
    "MMBench_TEST_EN": "MMBench",
    "MMBench_DEV_CN": "MMBench",
    "MMBench_TEST_CN": "MMBench",
}


def read(source: Source) -> Iterator[Sample]:
    """The rows of a TSV; see the module for what a row becomes. The record's id is the row's `index`.

    `split` is a value of the column `split`, or of another: "l2-category=visual_captioning".

    Raises SourceError (while iterating): as every layout.
    """
    path = source.path
    table = TsvTable(path, binary=("image",))
    missing_columns(path, table.columns, ["index", "question", "caption" if _captions(table) else "answer"])
    if source.check_media and not {"image", "image_path"} & set(table.columns):
        missing_columns(path, table.columns, ["image"])
    column, _, value = source.split.rpartition("=")
    if source.split:
        missing_columns(path, table.columns, [column or "split"])
    reader = _Reader(
        table, (column or "split", value) if source.split else None, source.media_root, source.bad
    )
    what = f"row of {column or 'split'} {value!r}" if source.split else "row"
    yield from samples_of(_rows(table, source.check_media), reader.sample, path, source.bad, what=what)


def _captions(table: TsvTable) -> bool:
    """Whether its answers are captions: VLMEvalKit's tables of them have no options."""
    return "caption" in table.columns and "A" not in table.columns


def _rows(table: TsvTable, check_media: bool) -> Iterator[Row | SourceError]:
    for row in table:
        if isinstance(row, SourceError):
            yield row
        else:
            number, cells = row
            yield Row(table.path, number, {k: _cell(v) for k, v in cells.items()}, "index", check_media)


def _cell(value: str | BinaryCell) -> str | BinaryCell:
    return "" if isinstance(value, str) and value.strip().lower() in ("", "nan") else value


def _filled(value: str | BinaryCell) -> bool:
    text = value if isinstance(value, str) else value.content[:REFERENCE_CHARS].decode("ascii", "replace")
    return text.strip().lower() not in ("", "nan")


@dataclass
class _Reader:
    """Makes the samples of one table."""

    table: TsvTable
    asked: tuple[str, str] | None
    """Column and value of the rows that are asked for; None: all."""
    media_root: Path | None
    bad: BadRecords
    pictures: dict[str, tuple[int, list[Span]]] = field(default_factory=dict)
    """Index -> row and base64 texts of a row that has pictures of its own, for rows that refer to it."""
    all_known: bool = False

    def sample(self, row: Row) -> Sample | None:
        index = row.text("index")
        if self.asked and row.text(self.asked[0], "") != self.asked[1]:
            return None
        images: list[MediaFile] = self._own_pictures(row, index) or [*self._paths(row)]
        if not images and not row.check_media and self.has_no_pictures:
            images.append(self._missing(index))
        if not images:
            self.bad.omit(NO_IMAGE)
            return None
        question = row.text("question", "") or row.text("query_wo", "") or row.text("query_cot", "")
        facts = {"question": question, **{name: text for name in _FACTS if (text := row.text(name, ""))}}
        hint = row.text("hint", "")
        asked, listed = split_choices(question)
        options = self._options(row, listed)
        if len(options) != len(listed) or any(row.text(letter, "") for letter in options):
            asked = question  # which lists other things
        if hint:
            facts["hint"] = hint
        record = self._answered(row, index, options, facts)
        signs = [text for text in options.values() if _SIGN.search(text)]
        asked, images = self._placed(row, plain(f"Hint: {hint}\n{asked}" if hint else asked), signs, images)
        record |= {"problem": asked, "options": [f"{k}. {plain(text)}" for k, text in options.items()]}
        columns = {"problem": "question", "options": "A", "images": "image", "problem_id": "index"}
        columns["answer"] = str(record.pop("column"))
        return row.sample(record, images=images, columns=columns, groups=self._groups(row), facts=facts)

    def _groups(self, row: Row) -> dict[str, str]:
        metadata: Any = {}
        if row.text("metadata", ""):
            try:
                metadata = row.literal("metadata")
            except SourceError as error:
                self.bad.doubt(error.kind, str(row))
        known = metadata if isinstance(metadata, dict) else {}
        return {name: str(known.get(name) or row.text(name, "")) for name in GROUPS}

    def _own_pictures(self, row: Row, index: str) -> list[MediaFile]:
        """The row's pictures in the table, or those of the row that it refers to."""
        cell = row.cells.get("image")
        if not isinstance(cell, BinaryCell) or cell.content.strip().lower() in (b"", b"nan"):
            return []
        if len(cell.content) > REFERENCE_CHARS:
            try:
                found = row.number, cell.spans(check=row.check_media)
            except CellError as error:
                raise row.error("image", error.what, error.of_row) from None
            self.pictures[index] = found
        else:
            reference = cell.content.decode("utf-8", "backslashreplace").strip()
            if not row.check_media and not self._is_known(reference):
                return [self._missing(index)]
            found = self._referred(row, reference)
        number, spans = found
        names = self._names(row, index, len(spans))
        return [
            TsvImage(self.table.path, span, number, "image", name)
            for span, name in zip(spans, names, strict=True)
        ]

    def _names(self, row: Row, index: str, count: int) -> list[str]:
        paths = _listed_texts(row, "image_path")
        if len(paths) == count:
            return [Path(path).name for path in paths]
        return [f"{index}.png"] if count == 1 else [f"{index}_{n}.png" for n in range(count)]

    def _referred(self, row: Row, reference: str) -> tuple[int, list[Span]]:
        if not self._is_known(reference, check=row.check_media):
            raise row.error("image", "no row of that index has a picture of its own", f": {reference!r}")
        return self.pictures[reference]

    def _is_known(self, reference: str, *, check: bool = False) -> bool:
        """Whether a row of this index has pictures of its own."""
        if reference not in self.pictures and not self.all_known:
            self._find_all_pictures(check=check)
        return reference in self.pictures

    @cached_property
    def has_no_pictures(self) -> bool:
        """Whether no row of the table names one."""
        rows = (item[1] for item in self.table if not isinstance(item, SourceError))
        return not any(_filled(cells.get(name, "")) for cells in rows for name in ("image", "image_path"))

    def _missing(self, index: str) -> Path:
        """Where VLMEvalKit would keep a row's picture."""
        path = self.table.path
        root = path.parent / "images" / _ROOTS.get(path.stem, path.stem)
        return (root if self.media_root is None else self.media_root) / f"{index}.jpg"

    def _find_all_pictures(self, *, check: bool) -> None:
        """Reads the whole table once: a row may refer to a later one."""
        self.all_known = True
        for item in self.table:
            if isinstance(item, SourceError):
                continue
            number, cells = item
            index, cell = cells["index"], cells["image"]
            if (
                isinstance(index, str)
                and isinstance(cell, BinaryCell)
                and len(cell.content) > REFERENCE_CHARS
            ):
                try:
                    self.pictures.setdefault(index.strip(), (number, cell.spans(check=check)))
                except CellError:
                    continue  # said when that row itself is read

    def _paths(self, row: Row) -> list[MediaFile]:
        """The pictures that `image_path` names, which VLMEvalKit keeps in a folder beside the file."""
        name = self.table.path.stem.removesuffix("_local")
        beside = self.table.path.parent
        roots = [
            beside / "images" / _ROOTS.get(name, name),
            beside / "images" / name,
            beside / "images",
            beside,
        ]
        roots = [self.media_root] if self.media_root is not None else roots
        return [
            row.media("image_path", *dict.fromkeys(root / path for root in roots))
            for path in _listed_texts(row, "image_path")
        ]

    def _options(self, row: Row, listed: list[str]) -> dict[str, str]:
        """Letter -> option; none in a row that has none."""
        lettered = {letter: text for letter in LETTERS if (text := row.text(letter, ""))}
        if not lettered and row.text("choices", "") not in ("", "[]", "None"):
            lettered = dict(zip(LETTERS, row.options("choices"), strict=False))
        if not lettered and row.text("question_type", "").startswith("multi"):
            lettered = dict(zip(LETTERS, listed, strict=False))
        if len(lettered) == 1:
            raise row.error("B", "is the second option and empty")
        return lettered

    def _answered(
        self, row: Row, index: str, options: Mapping[str, str], facts: dict[str, Any]
    ) -> dict[str, Any]:
        """Id, problem type and answer of the record, and the `column` of the answer; further facts are noted."""
        record: dict[str, Any] = {
            "problem_id": id_of(index),
            "column": "answer",
        }
        if isinstance(record["problem_id"], int):
            own = row.text("g_index", "")
            facts["g_index"] = row.whole("g_index") if own else record["problem_id"] % ROTATION
        if row.text("skills", ""):
            facts["skills"] = _listed_texts(row, "skills")
        if _captions(self.table):
            facts["references"] = [row.text("caption")]
            return record | {"problem_type": "open-ended", "answer": row.text("caption"), "column": "caption"}
        if options:
            letter = row.text("answer_option", "")
            if letter:
                record["column"] = "answer_option"
            elif "choices" in row.cells and row.text("answer") in options.values():
                letter = next(key for key, text in options.items() if text == row.text("answer"))
            letter = letter or row.text("answer")
            if letter not in options:
                known = ", ".join(options)
                raise row.error(record["column"], "is no letter of an option", f": {letter!r:.60} of {known}")
            return record | {"problem_type": "multiple choice", "answer": letter}
        answer = row.text("answer")
        if answer.startswith(("['", '["')) and "answer_type" not in row.cells:
            facts["answers"] = _listed_texts(row, "answer")
            answer = facts["answers"][0]
        return record | {"problem_type": open_problem_type(answer), "answer": answer}

    def _placed(
        self, row: Row, question: str, options: list[str], images: list[MediaFile]
    ) -> tuple[str, list[MediaFile]]:
        """The question with <image> where its signs are, and the pictures in that order."""
        signs = [int(number) for text in (question, *options) for number in _SIGN.findall(text)]
        if not signs or min(signs) < 1 or max(signs) > len(images):
            if signs:
                self.bad.doubt(f"question: names another picture than the {len(images)} there are", str(row))
            return question, images
        asked = [int(number) for number in _SIGN.findall(question)]
        later = [n for n in dict.fromkeys(signs) if n not in asked]
        before = [n for n in range(1, len(images) + 1) if n not in signs]
        text = "<image>" * len(before) + _SIGN.sub("<image>", question)
        text += "".join(f"\n<image {n}>: <image>" for n in later)
        return text, [images[n - 1] for n in (*before, *asked, *later)]


def _listed_texts(row: Row, column: str) -> list[str]:
    """A cell's texts: it is one, or the list of several."""
    text = row.text(column, "")
    if text.startswith("[") and text.endswith("]"):
        return [str(item) for item in row.listed(column)]
    return [text] if text else []
