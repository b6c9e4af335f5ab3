"""What fails for one sample alone: tried again, then an error at once or a reason that is written down and counted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.errors import SkippableError

T = TypeVar("T")


@dataclass(frozen=True)
class Failed:
    """Why there is no result, in one line."""

    reason: str


@dataclass(frozen=True)
class Tries:
    """How often is tried again what can fail for one sample, and whether its failure then ends the work."""

    again: int = 1
    end: bool = False

    def of(self, record: Record, action: Callable[[], T]) -> T | Failed:
        """The action's result, or why it failed at every try. Raises its error, named by the record, with `end`."""
        for left in range(self.again, -1, -1):
            try:
                return action()
            except SkippableError as error:
                if left:
                    continue
                named = str(error) if str(error).startswith(f"{record}:") else f"{record}: {error}"
                if self.end:
                    raise RecordError(named) from error
                return Failed(named)
        raise AssertionError


ONCE = Tries(again=0, end=True)
"""Training's held-out records: the first failure ends the run, and names the record."""
