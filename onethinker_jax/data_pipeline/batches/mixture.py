"""In which order records are drawn, and how often those of a task or source: a function of (seed, n) alone.

A record's weight is the product of its task's and its source's, 1 where none is given: with weight 2 it comes
twice as often as with weight 1, with 0 never. Records of one weight are shuffled together and have epochs of
their own, so that each of them comes equally often; groups of different weights are interleaved evenly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onethinker_jax.errors import UserError
from onethinker_jax.spelling import nearest

if TYPE_CHECKING:
    import grain
    import numpy as np

    from onethinker_jax.data_pipeline.records.record_table import RecordTable


class MixtureError(UserError, ValueError):
    """A weight for a task or source that no record has, or weights that leave out everything."""


@dataclass(frozen=True)
class Mixture:
    """Weights by task and by source; a task or source that is not named keeps its natural share."""

    tasks: Mapping[str, float] = field(default_factory=dict)
    """Task, such as "tracking (video)", to weight."""
    sources: Mapping[str, float] = field(default_factory=dict)
    """`data_source` to weight."""

    def __post_init__(self) -> None:
        for kind, weights in (("task", self.tasks), ("source", self.sources)):
            for name, weight in weights.items():
                if not 0 <= weight < math.inf:
                    raise ValueError(
                        f"the weight of {kind} {name!r} must be 0 or more, and finite; it is {weight}"
                    )

    def weights(self, table: "RecordTable") -> "np.ndarray":
        """float64 [N]: the weight of each record.

        Raises MixtureError: a weight for a task or source that no record has, or no record with a weight above 0.
        """
        import numpy as np

        result = np.ones(len(table))
        for kind, given, names, codes in (
            ("task", self.tasks, table.task_names, table.tasks),
            ("source", self.sources, table.source_names, table.sources),
        ):
            for name in given:
                if name not in names:
                    close = nearest(name, names)
                    hint = f"did you mean {close!r}?" if close else f"they have: {', '.join(sorted(names))}"
                    raise MixtureError(f"a weight for {kind} {name!r}, which no record has ({hint})")
            result *= np.array([given.get(name, 1.0) for name in names])[codes]
        if not result.any():
            raise MixtureError("the weights leave out every record")
        return result


def stream_order(table: "RecordTable", seed: int, mixture: Mixture) -> "grain.MapDataset":
    """Numbers of records without end: position in the stream -> position in the table.

    Raises MixtureError: as `Mixture.weights`.
    """
    import grain
    import numpy as np

    weights = mixture.weights(table)
    groups = [weight for weight in np.unique(weights)[::-1].tolist() if weight > 0]
    parts, shares = [], []
    for number, weight in enumerate(groups):
        members = np.flatnonzero(weights == weight).astype(np.uint32)
        part = grain.MapDataset.range(len(members)).seed(seed + number).shuffle().repeat(None)
        parts.append(part if len(members) == len(table) else part.map(members.__getitem__))
        shares.append(len(members) * weight)
    return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights=shares)
