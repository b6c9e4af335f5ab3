"""Which examples go into which row: two-dimensional bin packing, in tokens and in patches.

`first_fit` keeps the order of the examples as far as it can. `best_fit` fills each row with the best subset
of all that wait, found by dynamic programming over both budgets (the knapsack problem), the one waiting longest
always among them: rows are fuller, and examples may wait longer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from onethinker_jax.errors import SkippableError

PackingStrategy = Literal["first_fit", "best_fit"]

# Patches are counted in at most this many steps a row; finer steps cost time and save nothing.
_PATCH_STEPS = 128


class PackingError(SkippableError, ValueError):
    """An example is larger than a row. Names the size and the limit."""


@dataclass(frozen=True)
class BatchShape:
    """The fixed shape of a batch: `rows` of `tokens` and `patches`."""

    rows: int
    tokens: int
    patches: int


class Packer(Protocol):
    """Assigns items of (tokens, patches) to rows: [(row, item number)], and the numbers left over, in order.

    Raises PackingError when an item is larger than a row.
    """

    def __call__(
        self, sizes: Sequence[tuple[int, int]], *, rows: int, tokens: int, patches: int
    ) -> tuple[list[tuple[int, int]], list[int]]:
        """Packs items of these sizes into `rows` rows of `tokens` and `patches`."""
        ...


def check_size(need_tokens: int, need_patches: int, tokens: int, patches: int) -> None:
    """Raises PackingError, naming size and limit, if an item is larger than a row."""
    if need_tokens > tokens:
        raise PackingError(f"{need_tokens} tokens do not fit in a row of {tokens}")
    if need_patches > patches:
        raise PackingError(f"{need_patches} patches do not fit in a row of {patches}")


def first_fit(
    sizes: Sequence[tuple[int, int]], *, rows: int, tokens: int, patches: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """Each item in turn into the first row with capacity for its tokens and patches; see `Packer`."""
    free = [[tokens, patches] for _ in range(rows)]
    assigned, left = [], []
    for number, (need_tokens, need_patches) in enumerate(sizes):
        check_size(need_tokens, need_patches, tokens, patches)
        for row, rest in enumerate(free):
            if need_tokens <= rest[0] and need_patches <= rest[1]:
                rest[0] -= need_tokens
                rest[1] -= need_patches
                assigned.append((row, number))
                break
        else:
            left.append(number)
    return assigned, left


def best_fit(
    sizes: Sequence[tuple[int, int]], *, rows: int, tokens: int, patches: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """Row by row the first item that waits, and those of the others that fill the row best; see `Packer`.

    The best is the one with the largest packing efficiencies of tokens and patches, added.
    """
    for need_tokens, need_patches in sizes:
        check_size(need_tokens, need_patches, tokens, patches)
    left, assigned = list(range(len(sizes))), []
    for row in range(rows):
        if not left:
            break
        chosen = {left[number] for number in _best_subset([sizes[n] for n in left], tokens, patches)}
        assigned += [(row, number) for number in sorted(chosen)]
        left = [number for number in left if number not in chosen]
    return assigned, left


STRATEGIES: dict[PackingStrategy, Packer] = {"first_fit": first_fit, "best_fit": best_fit}


def _best_subset(sizes: Sequence[tuple[int, int]], tokens: int, patches: int) -> list[int]:
    """Item 0 and the others that fill a row best.

    `reached[k]` holds, as bits, the token sums of the subsets that take k steps of patches.
    """
    step = math.gcd(patches, *(need for _, need in sizes)) or 1
    step = max(step, math.ceil(patches / _PATCH_STEPS))
    steps = [math.ceil(need / step) for _, need in sizes]  # rounded up: what fits in steps fits in patches
    most, within = patches // step, (1 << (tokens + 1)) - 1
    if steps[0] > most:
        return [0]  # by itself it fits: only rounding says otherwise
    reached = [0] * (most + 1)
    reached[steps[0]] = 1 << sizes[0][0]
    history = [reached]
    for (need, _), need_steps in zip(sizes[1:], steps[1:], strict=True):
        before, reached = reached, reached[:]
        for k in range(need_steps, most + 1):
            if before[k - need_steps]:
                reached[k] |= before[k - need_steps] << need & within
        history.append(reached)
    ends = [(bits.bit_length() - 1, k) for k, bits in enumerate(reached) if bits]
    total, k = max(ends, key=lambda end: end[0] / tokens + end[1] / max(most, 1))
    chosen = []
    for number in range(len(sizes) - 1, 0, -1):  # back from the last item: was it needed?
        if not history[number - 1][k] >> total & 1:
            chosen.append(number)
            total, k = total - sizes[number][0], k - steps[number]
    return [0, *reversed(chosen)]
