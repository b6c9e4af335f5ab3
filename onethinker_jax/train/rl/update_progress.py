"""How far the updates of a step are: what a checkpoint keeps where a stop cuts them, and the step goes on from.

The policy has moved by then, and the state before the step is gone. So the step is kept as it is between two of its
minibatches, with its rollout: what the minibatches that were done have summed, and of the policy before them what the
others still need. The micro-batches of the minibatch that was cut come again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onethinker_jax.errors import EndedByStop
from onethinker_jax.train.state import TrainState


@dataclass
class UpdateProgress:
    """What the minibatches of a step that are done have come to; of a step at its start nothing."""

    groups: int = 0  # of this process, the first ones of the step: those that the policy has learnt from
    micro_batches: int = 0
    updates: int = 0  # a minibatch whose every sample is left out of the loss makes none
    taken: int = 0  # those that were finite
    totals: dict[str, float] = field(
        default_factory=dict
    )  # sums over the tokens of the updates that were taken
    seconds: float = 0.0
    old: list[np.ndarray] | None = None
    """float32 [tokens] of each sample of this process, in order: its log-probabilities when the step began; None where
    the loss needs none."""

    def add(self, values: Mapping[str, float]) -> None:
        """Adds what an update that was taken has summed."""
        self.taken += 1
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value)

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        old = None if self.old is None else [values.tolist() for values in self.old]
        return {**vars(self), "old": old}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "UpdateProgress":
        """The progress from what `to_json` gave."""
        old = saved["old"]
        return cls(
            **{**saved, "old": None if old is None else [np.array(values, np.float32) for values in old]}
        )


class UpdateCut(EndedByStop):
    """The updates of a step are not waited for any more: `state` is that after those of `progress`."""

    def __init__(self, state: TrainState, progress: UpdateProgress):
        super().__init__("the updates of the step are cut")
        self.state, self.progress = state, progress
