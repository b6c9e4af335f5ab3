"""A process's part of a benchmark: the answers that are missing are asked for, scored and written down."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.answerers import Answerer
from onethinker_jax.evaluate.answers.journal import Journal, JournalError
from onethinker_jax.evaluate.answers.progress import Progress
from onethinker_jax.evaluate.answers.scored import AnswerScorer
from onethinker_jax.evaluate.answers.settings_file import NAME, check_settings, write_settings
from onethinker_jax.files import whole_file
from onethinker_jax.processes import Processes

logger = logging.getLogger("onethinker_jax.evaluate")

PREDICTIONS = "predictions.jsonl"
SCORED_TOGETHER = 32
"""The number of answers, of those whose scores are missing, that one call scores."""


@dataclass(frozen=True)
class Folder:
    """Where the answers to a benchmark are, of one process or of several."""

    path: Path
    records: Sequence[Record]
    samples: int
    processes: Processes

    @property
    def mine(self) -> Sequence[Record]:
        """The records that this process answers."""
        return self.records[self.processes.index :: self.processes.count]

    def begin(self, settings: Mapping[str, Any], *, restart: bool) -> Journal:
        """This process's answers so far; the first process checks and writes the settings that they depend on.

        Raises JournalError: the answers there were made with other settings, or are to other records; HostError in
        the other processes.
        """

        def prepare() -> None:
            if restart:
                for old in (*self.path.glob("predictions*.jsonl"), self.path / NAME):
                    old.unlink(missing_ok=True)
            if any(file.stat().st_size for file in self.path.glob("predictions*.jsonl")):
                check_settings(self.path, settings)
            write_settings(self.path, settings)

        self.processes.first_does(prepare)
        journal = Journal(self._file(self.processes.index), self.mine, self.samples)
        if journal.whole:  # the process was ended before it put them in order
            journal.finish()
        return journal

    def joined(self) -> Journal:
        """The answers of all processes, which are through, in one file, in the order of the records.

        Raises JournalError where the folder is not one that all processes see.
        """
        self.processes.first_does(self._join)
        found = Journal(self.path / PREDICTIONS, self.records, self.samples)
        if not found.whole:
            raise JournalError(
                f"{found.path}: has {len(found):,} of {found.total:,} answers; do all processes see one folder --out?"
            )
        return found

    def _file(self, index: int) -> Path:
        count = self.processes.count
        return self.path / (PREDICTIONS if count == 1 else f"predictions-{index}-of-{count}.jsonl")

    def _join(self) -> None:
        count = self.processes.count
        if count == 1:
            return
        with whole_file(self.path / PREDICTIONS) as aside, aside.open("wb") as target, ExitStack() as stack:
            parts = [stack.enter_context(self._file(index).open("rb")) for index in range(count)]
            for number in range(len(self.records)):
                for _ in range(self.samples):
                    target.write(parts[number % count].readline())


def answer(
    journal: Journal,
    answerer: Answerer,
    score: AnswerScorer,
    *,
    name: str,
    again: bool = False,
) -> None:
    """Asks for what the journal lacks, and leaves it whole and in the order of the records.

    `name` of the benchmark, for the lines on how far it is; `again`: what failed is asked for again.
    """
    with journal:
        questions = journal.begin(answerer.together, again=again)
        progress = Progress(journal.total, begun=len(journal), what=f"answers of {name}")
        if len(journal):
            logger.info(
                "%s: going on, %s of %s answers are there", name, f"{len(journal):,}", f"{journal.total:,}"
            )
        unscored = journal.unscored()
        for start in range(0, len(unscored), SCORED_TOGETHER):
            journal.append(score(unscored[start : start + SCORED_TOGETHER]))
        with closing(answerer.answer(questions)) as parts:
            for part in parts:
                journal.append(score(part))
                progress.reached(len(journal))
        journal.finish()
