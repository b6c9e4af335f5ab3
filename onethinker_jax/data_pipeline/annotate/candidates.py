"""The answers a teacher gave, in a JSON lines file that no interruption harms.

Each answer is one line, on the disk before the next one is waited for. A line cut short by a crash is dropped
when the file is opened again; its question is then asked once more. One process at a time writes to a file.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.errors import UserError
from onethinker_jax.text_output import json_text

logger = logging.getLogger(__name__)

Key = tuple[str, int | str]
"""(data_source, problem_id) of a record."""


class CandidateError(UserError, ValueError):
    """A file of candidates cannot be used. One line, naming the file."""


@dataclass(frozen=True)
class Candidate:
    """One answer of the teacher to one record."""

    problem_id: int | str
    data_source: str
    candidate: int  # 0, 1 ... of the same record
    question: str  # digest of what was asked
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @property
    def key(self) -> Key:
        """The key of the candidate's record, as `key_of` gives it."""
        return self.data_source, self.problem_id


def key_of(record: Record) -> Key:
    """What a record's answers are found by."""
    return record.data_source, record.problem_id


class Candidates:
    """The candidates in a file. Memory holds their offsets alone; texts are read when they are asked for."""

    def __init__(self, path: Path):
        """Opens or makes the file.

        Raises CandidateError: another process writes to it, or it holds something else than candidates.
        Raises OSError: it cannot be opened.
        """
        self.path = path
        self.prompt_tokens = self.completion_tokens = 0
        self._offsets: dict[Key, dict[int, tuple[int, str]]] = {}  # key -> number -> (offset, question)
        self._file = path.open("ab+")
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CandidateError(f"{path}: another process is writing to it") from None
            self._load()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Candidates":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return sum(map(len, self._offsets.values()))

    def numbers(self, record: Record, question: str) -> set[int]:
        """Which candidates of a record there are.

        Raises CandidateError when they answer another question than the one with this digest.
        """
        offsets = self._offsets.get(key_of(record), {})
        if any(asked != question for _, asked in offsets.values()):
            raise CandidateError(
                f"{record}: {self.path} holds answers to another question with this problem_id: has the record "
                "changed? Name another --out"
            )
        return set(offsets)

    def of(self, record: Record, first: int) -> list[Candidate]:
        """The candidates of a record whose numbers are below `first`, by number."""
        found = []
        for number, (offset, _) in sorted(self._offsets.get(key_of(record), {}).items()):
            if number < first:
                self._file.seek(offset)
                found.append(Candidate(**json.loads(self._file.readline())))
        return found

    def append(self, candidate: Candidate) -> None:
        """Writes a candidate; when this returns it is on the disk."""
        line = json_text(asdict(candidate)).encode() + b"\n"
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(candidate, offset)

    def _note(self, candidate: Candidate, offset: int) -> None:
        offsets = self._offsets.setdefault(candidate.key, {})
        offsets.setdefault(candidate.candidate, (offset, candidate.question))
        self.prompt_tokens += candidate.prompt_tokens
        self.completion_tokens += candidate.completion_tokens

    def _load(self) -> None:
        end = 0
        for number, (offset, line) in enumerate(self._lines(), 1):
            try:
                candidate = Candidate(**json.loads(line)) if line.endswith(b"\n") else None
            except (ValueError, TypeError):
                candidate = None
            if candidate is None:
                if self._file.read(1):
                    raise CandidateError(f"{self.path}: line {number} is not a candidate")
                logger.warning("%s: its last line is cut off and was dropped", self.path)
                self._file.truncate(offset)
                return
            end = offset + len(line)
            self._note(candidate, offset)
        assert end == self._file.tell()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(0)
        while line := self._file.readline():
            yield self._file.tell() - len(line), line
