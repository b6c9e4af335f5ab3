"""Where answers come from, as the evaluation sees it: questions in, an answer or a failure a sample out, as they come.

A Hugging Face directory on this machine's devices is one `Answerer` (`local_model.py`), an endpoint by URL another. The
evaluation numbers questions, keeps answers on disk, asks only what is missing, makes masks and scores; an answerer
reads media, holds a bounded number of prompts in memory, and tries again what failed as its settings say.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onethinker_jax.data_pipeline.records.record import Record


@dataclass(frozen=True, eq=False)
class Question:
    """A record that is to be answered."""

    number: int
    """Its position in the benchmark's file, which keys its samples: it does not depend on what is answered already."""
    record: Record
    samples: tuple[int, ...] = (0,)
    """Numbers of the samples that are missing, out of those that the evaluation takes of each question."""


@dataclass(frozen=True)
class Answer:
    """One sample of a question: a response, or why there is none."""

    number: int
    """The question's."""
    sample: int = 0
    response: str = ""
    """"" where it failed."""
    failed: str | None = None
    """Why there is no response, in one line: never scored as a wrong answer."""
    tokens: int | None = None
    """Of the response, where that is known."""
    cut_off: bool = False
    """Whether the response was ended by the limit of its tokens."""


class Answerer(Protocol):
    """Answers questions; made for one evaluation of one benchmark."""

    @property
    def together(self) -> int | None:
        """How many neighbouring questions are answered together; None: all.

        Neighbours may move each other's last bits of rounding, so that a group of which an answer is missing is asked
        again as a whole: an evaluation that was killed then ends with the same bytes. 1: each answer stands alone.
        """
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the answers depend on, as JSON holds it: written beside them, and the same when they are gone on with.

        A key is the name of its flag without the leading dashes ("temperature", "mesh.tensor").
        """
        ...

    def answer(self, questions: Sequence[Question]) -> Generator[Sequence[Answer], None, None]:
        """An answer for each missing sample of each question, in any order, some at a time as they are there.

        Questions come in the order of their numbers and are as many as the benchmark has: whoever answers them reads
        their media a bounded number ahead. What can be said of one question alone is a failed `Answer`, after the
        tries that the settings allow. Ends early when the iterator is closed.

        Raises UserError for what concerns all: the endpoint is gone, the model does not fit.
        """
        ...
