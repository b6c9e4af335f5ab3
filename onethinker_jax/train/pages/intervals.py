"""How sure a mean over held-out records is: its 95% interval, by a percentile bootstrap with a fixed seed.

A change between two stages is the mean of the records' own differences, since both stages answer the same records:
what is hard or easy about a record drops out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED = 2_000, 0
FEWEST = 5
"""Records below which no interval is given: resampling so few says little."""

METHOD = f"95% intervals: bootstrap over records, {RESAMPLES:,} resamples, seed {SEED}"


@dataclass(frozen=True)
class Change:
    """The mean difference of two stages over the same records, and its 95% interval where there is one."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def direction(self) -> str:
        """The direction: "up" or "down" where the interval leaves out 0; "same" for no change or one within noise."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "same"
        return "up" if self.mean > 0 else "down"

    def text(self) -> str:
        """The mean with half of the interval's width: `+0.120 ± 0.034`."""
        half = "" if self.interval is None else f" ± {(self.interval[1] - self.interval[0]) / 2:.3f}"
        return f"{signed(self.mean)}{half}"


def signed(value: float) -> str:
    """With three decimals and its sign; nothing has the sign +."""
    return f"{value + 0.0 if abs(value) >= 0.0005 else 0.0:+.3f}"


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """The 95% interval of the mean of `values`, one a record; None for fewer than `FEWEST`."""
    sample = np.asarray(values, np.float64)
    if len(sample) < FEWEST:
        return None
    random = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    for first in range(0, RESAMPLES, 100):  # a hundred resamples at once: of 10,000 records 8 MB
        chosen = random.integers(len(sample), size=(100, len(sample)))
        means[first : first + 100] = sample[chosen].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def change(before: Sequence[float], after: Sequence[float]) -> Change:
    """From `before` to `after`, one number a record in the same order."""
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    return Change(float(differences.mean()), interval(differences))
