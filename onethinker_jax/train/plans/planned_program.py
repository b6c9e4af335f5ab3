"""What a plan knows of a compiled function before it is compiled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onethinker_jax.train.cost.attention_layout import AttentionLayout
from onethinker_jax.train.simulation.expected_programs import Expected, expected_updates
from onethinker_jax.train.simulation.expected_step import ExpectedUpdates


@dataclass(frozen=True)
class Program:
    """A compiled function of a step, its abstract arguments by kind, and what lies beside them in memory."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]  # in order; the kind of memory each is
    resident: dict[str, Any]  # what the run holds on the devices meanwhile
    runs: int  # a step
    tokens: int  # text tokens of one run
    trips: int = 1  # of its loops of unknown length
    layout: AttentionLayout | None = None  # of its rows at full lengths; None: no attention of rows
    expected: Expected | None = None


@dataclass(frozen=True)
class Updates:
    """The updates of a stage: its micro-batches at full and at given lengths."""

    stage: str
    full: ExpectedUpdates
    given: ExpectedUpdates | None
    updates: int  # a step
    rows: int
    length: int

    def program(
        self, name: str, function: Any, arguments: dict[str, Any], resident: dict[str, Any]
    ) -> Program:
        """A program that runs once a micro-batch."""
        runs = math.ceil(self.full.runs)
        expected = None if self.given is None else expected_updates(self.given, self.rows)
        tokens = self.rows * self.length
        return Program(
            f"{self.stage} {name}",
            function,
            arguments,
            resident,
            runs,
            tokens,
            layout=self.full.layout,
            expected=expected,
        )
