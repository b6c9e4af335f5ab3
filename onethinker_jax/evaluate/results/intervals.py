"""How sure a number is: bootstrap intervals, and whether two runs on the same problems differ.

Resampled are clusters of answers that belong together: the samples of a problem, the rotations of a question, the
frames of a video. Each cluster's shares are summed once; a resample is a sum over drawn clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onethinker_jax.evaluate.metrics.shares import Value, ratio

RESAMPLES = 10_000
LEVEL = 0.95
_AT_ONCE = 2_000_000  # drawn clusters that are in memory
_FEW_KINDS = 32  # of clusters with equal shares


def bootstrap(
    shares: np.ndarray, value: Value = ratio, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 2.5% and 97.5% percentiles of the value over resamples of the clusters; `shares` float [clusters, K]."""
    low, high = np.quantile(resampled(shares, value, seed=seed, resamples=resamples), _tails())
    return float(low), float(high)


def resampled(shares: np.ndarray, value: Value, *, seed: int, resamples: int) -> np.ndarray:
    """The value of each resample, float [resamples]."""
    generator, count = np.random.default_rng(seed), len(shares)
    kinds, sizes = np.unique(shares, axis=0, return_counts=True)
    if len(kinds) <= _FEW_KINDS:  # how often each kind is drawn is all that matters
        return value(generator.multinomial(count, sizes / count, size=resamples) @ kinds)
    columns = np.ascontiguousarray(shares.T, dtype=np.float64)
    values = []
    for start in range(0, resamples, at_once := max(_AT_ONCE // count, 1)):
        drawn = generator.integers(0, count, size=(min(at_once, resamples - start), count), dtype=np.int32)
        values.append(value(np.stack([_drawn_sums(column, drawn) for column in columns], axis=-1)))
    return np.concatenate(values)


def _drawn_sums(column: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The sum of a column's drawn values in each resample."""
    if column.min() == column.max():
        return np.full(len(drawn), column[0] * len(column))
    return column[drawn].sum(axis=1)


@dataclass(frozen=True)
class Difference:
    """B minus A over the same clusters, its 95% interval, and the chance of one as large if neither is better."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, value: Value = ratio, *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Compares two runs' shares of the same clusters, float [clusters, K] each, drawing both runs' together.

    The p value is two-sided: twice the smaller share of resamples on one side of 0, those at 0 on both sides, with one
    added to both counts so that it is never 0. Raises ValueError when the clusters are not the same many.
    """
    if a.shape != b.shape:
        raise ValueError(f"two runs over {len(a)} and {len(b)} clusters cannot be paired")
    width = a.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        return value(sums[..., width:]) - value(sums[..., :width])

    both = np.concatenate([a, b], axis=1)
    found = resampled(both, difference, seed=seed, resamples=resamples)
    low, high = np.quantile(found, _tails())
    side = min(np.count_nonzero(found <= 0), np.count_nonzero(found >= 0))
    p_value = min(1.0, 2.0 * (side + 1) / (resamples + 1))
    return Difference(float(difference(both.sum(axis=0))), float(low), float(high), p_value)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """The exact two-sided p value of McNemar's test of two runs' right answers, bool [N] each, to the same problems.

    Only problems that one run alone has right tell the runs apart: if neither is better, each of them is a fair coin.
    Raises ValueError when the runs are not of the same many problems.
    """
    if a.shape != b.shape:
        raise ValueError(f"two runs over {len(a)} and {len(b)} problems cannot be paired")
    only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    if not only_a + only_b:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue)


def _tails() -> list[float]:
    return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
