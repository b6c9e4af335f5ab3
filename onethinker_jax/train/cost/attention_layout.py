"""How segments and branches lie in the rows of a program's runs, and what attention over them costs.

A kernel's cost estimate takes every row for one segment, since ids are data and no part of a traced program. Here are
the shares of that estimate which rows of a known layout have.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from onethinker_jax.model.attention.flash import Kernels, module_of
from onethinker_jax.model.attention.flash_blocks import PARTS, Part, kernel_name, pairs_of_one_segment
from onethinker_jax.model.attention.pair_count import computed_pairs, seen_pairs
from onethinker_jax.train.cost.program_cost import of_pairs, without_recomputation

# The segments of a row, and of each the lengths of its branches from branch 0 on.
Row = tuple[tuple[int, ...], ...]


@dataclass
class RowLayouts:
    """Rows of `length` tokens or patches, by how often each layout is there."""

    length: int
    rows: Counter[Row] = field(default_factory=Counter)

    def add(self, rows: Iterable[Row]) -> None:
        """Counts rows."""
        self.rows.update(rows)

    @property
    def efficiency(self) -> float:
        """Packing efficiency: the share of the capacity in use, 0 without rows."""
        used = sum(count * sum(map(sum, row)) for row, count in self.rows.items())
        return used / max(self.rows.total() * self.length, 1)

    def share(self, part: Part, kernels: Kernels | None, *, causal: bool) -> float:
        """Pairs that a kernel computes, or without `kernels` those that see each other, over those of one segment."""
        if not self.rows:
            return 1.0
        pairs = 0
        for row, count in self.rows.items():
            ids = row_ids(row, self.length)
            if kernels is None:
                pairs += count * seen_pairs(*ids, causal=causal)
            else:
                pairs += count * computed_pairs(kernels, part, *ids, causal=causal)
        return pairs / self.rows.total() / pairs_of_one_segment(self.length, self.length, causal)


@dataclass(frozen=True)
class AttentionLayout:
    """The rows of text and of patches of a program's runs; segments of patches are frames."""

    text: RowLayouts
    patches: RowLayouts

    def shares(self, kernels: Kernels | None) -> dict[str, float]:
        """Kernel -> `RowLayouts.share` of it."""
        return {
            kernel_name(part, causal): layouts.share(part, kernels, causal=causal)
            for layouts, causal in ((self.text, True), (self.patches, False))
            for part in (PARTS if kernels is None else module_of(kernels).PARTS)
        }


def run_flops(
    layout: AttentionLayout | None,
    flops: Counter[str],
    model_flops: Counter[str],
    kernels: Kernels,
    *,
    others: float = 1.0,
) -> tuple[float, float]:
    """FLOPs of a run over rows of this layout: those computed, and without recomputation those of pairs that are seen.

    Attention's apart, they are the share `others` of what was counted.
    """
    computed, seen = ({}, {}) if layout is None else (layout.shares(kernels), layout.shares(None))
    useful = without_recomputation(of_pairs(model_flops, seen, others=others))
    return sum(of_pairs(flops, computed, others=others).values()), sum(useful.values())


def row_ids(row: Row, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Segment and branch ids, int32 [1, length], as packing writes them."""
    segments, branches = np.zeros((2, 1, length), np.int32)
    start = 0
    for segment, lengths in enumerate(row, 1):
        for branch, count in enumerate(lengths):
            segments[0, start : start + count], branches[0, start : start + count] = segment, branch
            start += count
    return segments, branches


def frames_of(patches: int, largest: int) -> tuple[tuple[int], ...]:
    """As few frames as `patches` can be, none of more than `largest`."""
    whole, rest = divmod(patches, largest)
    return ((largest,),) * whole + (((rest,),) if rest else ())
