"""predictions.jsonl while it grows, and when it is whole, in the order of the records.

A process that is killed leaves whole lines, and at most one that is torn. Whoever goes on drops that line, and the
lines of groups that are not whole: their questions are asked together again (`Answerer.together`).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.answers.answerers import Answer, Question
from onethinker_jax.evaluate.answers.scored import Scored, answer_row
from onethinker_jax.files import whole_file
from onethinker_jax.text_output import json_text

Key = tuple[int, int]
"""Number of a question, number of a sample."""


class JournalError(UserError, ValueError):
    """Answers in a folder that cannot be gone on with; the message says what to do."""


@dataclass(frozen=True)
class _Line:
    """Where the answer of a sample stands, and what it is."""

    start: int
    length: int
    failed: bool
    scored: bool


class Journal:
    """The answers to a process's part of a benchmark, on disk. Memory holds where they stand, not what they say."""

    def __init__(self, path: Path, records: Sequence[Record], samples: int):
        """`records` are those that this process answers, `samples` how many answers each gets.

        Raises JournalError: the file holds answers to other records.
        """
        self.path, self._records, self._samples = path, records, samples
        self._numbers = {record.problem_id: number for number, record in enumerate(records)}
        self._lines: dict[Key, _Line] = {}
        self._open = ExitStack()
        self._read()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def total(self) -> int:
        """Samples there are to be."""
        return len(self._records) * self._samples

    @property
    def failed(self) -> int:
        """Samples that have a reason instead of a response."""
        return sum(line.failed for line in self._lines.values())

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, neither an answer nor a score."""
        return len(self) == self.total and all(line.scored or line.failed for line in self._lines.values())

    def begin(self, together: int | None, *, again: bool = False) -> list[Question]:
        """Opens the file for answers that are to come; returns the questions that lack some.

        Lines of groups that are not whole are dropped, and with `again` those that failed.
        """
        if again:
            self._lines = {key: line for key, line in self._lines.items() if not line.failed}
        if together != 1:
            size = together or max(len(self._records), 1)
            groups = [number // size for number in range(len(self._records))]
            lacking = {group for number, group in enumerate(groups) if self._missing(number)}
            self._lines = {key: line for key, line in self._lines.items() if groups[key[0]] not in lacking}
        self._rewrite(sorted(self._lines, key=lambda key: self._lines[key].start))
        self._file = self._open.enter_context(self.path.open("ab"))
        missing = ((number, self._missing(number)) for number in range(len(self._records)))
        return [Question(number, self._records[number], samples) for number, samples in missing if samples]

    def append(self, scored: Sequence[Scored]) -> None:
        """Writes answers; one that is there already is replaced."""
        for one in scored:
            line = (json_text(self._row(one)) + "\n").encode()
            start = self._file.tell()
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:  # a full disk's does not say which file
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            key = one.answer.number, one.answer.sample
            done = one.answer.failed is not None
            self._lines[key] = _Line(start, len(line), done, one.score is not None)

    def unscored(self) -> list[Answer]:
        """Answers that are there without their scores: an endpoint is not asked for them again."""
        keys = sorted(key for key, line in self._lines.items() if not line.failed and not line.scored)
        return [
            Answer(*key, row["response"], tokens=row.get("tokens"), cut_off=row.get("cut_off", False))
            for key, row in zip(keys, self._rows(keys), strict=True)
        ]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every line in the order of the records and samples, one at a time."""
        return self._rows(sorted(self._lines))

    def finish(self) -> None:
        """Writes the file anew in the order of the records and samples, where it is in another."""
        self._open.close()
        keys = sorted(self._lines)
        at = 0
        for key in keys:
            if self._lines[key].start != at:
                self._rewrite(keys)
                return
            at += self._lines[key].length
        if self.path.stat().st_size != at:
            self._rewrite(keys)

    def said(self) -> str:
        """How many answers are kept, and where."""
        return f"{len(self):,} answers are in {self.path}" if len(self) else "no answer is kept"

    def _missing(self, number: int) -> tuple[int, ...]:
        return tuple(sample for sample in range(self._samples) if (number, sample) not in self._lines)

    def _row(self, one: Scored) -> dict[str, Any]:
        answer = one.answer
        row = answer_row(self._records[answer.number], answer.response, one.score, one.mask_iou)
        if self._samples > 1:
            row["sample"] = answer.sample
        if one.masks is not None and one.masks.rles is not None:
            row["masks"] = one.masks.rles
        if answer.tokens is not None:
            row |= {"tokens": answer.tokens, "cut_off": answer.cut_off}
        if answer.failed is not None:
            row["failed"] = answer.failed
        return row

    def _read(self) -> None:
        """Finds the lines of the file; a last one that is torn is passed over."""
        if not self.path.is_file():
            return
        start = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    key, row = self._parsed(number, line)
                    done = row.get("failed") is not None
                    self._lines[key] = _Line(start, len(line), done, row.get("overall") is not None)
                start += len(line)

    def _parsed(self, number: int, line: bytes) -> tuple[Key, dict[str, Any]]:
        where = f"{self.path}: line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("response"), str):
            raise JournalError(f"{where}: is no answer; --restart begins anew")
        identity, sample = row.get("problem_id"), row.get("sample", 0)
        question = self._numbers.get(identity) if isinstance(identity, (int, str)) else None
        if question is None or sample not in range(self._samples):
            which = f"problem_id {identity!r}" + (f", sample {sample!r}" if self._samples > 1 else "")
            raise JournalError(f"{where}: {which}: is not asked here; --restart begins anew")
        return (question, sample), row

    def _rows(self, keys: Sequence[Key]) -> Iterator[dict[str, Any]]:
        if not keys:
            return
        with self.path.open("rb") as file:
            for key in keys:
                yield json.loads(self._bytes(file, key))

    def _bytes(self, file: Any, key: Key) -> bytes:
        file.seek(self._lines[key].start)
        return file.read(self._lines[key].length)

    def _rewrite(self, keys: Sequence[Key]) -> None:
        """The file with these lines alone, in this order; it is replaced as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines: dict[Key, _Line] = {}
        at = 0
        with whole_file(self.path) as aside, aside.open("wb") as target, ExitStack() as stack:
            source = stack.enter_context(self.path.open("rb")) if keys else None
            for key in keys:
                old = self._lines[key]
                target.write(self._bytes(source, key))
                lines[key] = _Line(at, old.length, old.failed, old.scored)
                at += old.length
        self._lines = lines
