"""What an answer adds to a metric, and how the sums over answers make its value.

A metric has up to two forms: `released` is what OneThinker's published script means to compute, `standard` what the
benchmark itself defines. What an answer adds to a form is a tuple of numbers, its share: (value, 1) of a mean,
(overlap, union) of an IoU over all pixels. The value is a function of the sums of all shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Share = tuple[float, ...]
"""What an answer adds to the sums of a form."""


class Forms(NamedTuple):
    """What an answer adds to the two forms of a metric; None: nothing, it is left out or the form is not defined."""

    released: Share | None
    standard: Share | None


Measured = dict[str, Forms]
"""Metric -> what one answer adds to it."""

FORMS = Forms._fields


def both(value: float) -> Forms:
    """A value whose mean both forms are."""
    return Forms((value, 1.0), (value, 1.0))


Value = Callable[[np.ndarray], np.ndarray]
"""Sums of shares, [..., K] -> values, [...]."""


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first sum over the second, 0 where that is 0: means of (value, 1), and IoU of (overlap, union)."""
    above, below = sums[..., 0], sums[..., 1]
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def mean_share(shares: Sequence[Share], answers: int) -> Share | None:
    """The mean of a problem's shares over this many answers, to which those left out add nothing; None: all are."""
    if not shares:
        return None
    return tuple(sum(column) / answers for column in zip(*shares, strict=True))
