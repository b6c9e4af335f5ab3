"""Bootstrap intervals, paired differences and McNemar's test: by theory, by scipy, by exact counts."""

import itertools
import math
import time

import numpy as np
import pytest
from scipy import stats

from onethinker_jax.evaluate.metrics.shares import ratio
from onethinker_jax.evaluate.metrics.texts import bleu
from onethinker_jax.evaluate.results.intervals import bootstrap, mcnemar, paired_bootstrap, resampled


def means(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


def test_an_interval_of_a_proportion_is_the_binomials() -> None:
    values = np.zeros(400)
    values[:100] = 1.0
    low, high = bootstrap(means(values))
    exact = stats.binom(400, 0.25)
    assert low == pytest.approx(exact.ppf(0.025) / 400, abs=0.005)
    assert high == pytest.approx(exact.ppf(0.975) / 400, abs=0.005)


def test_an_interval_of_a_ratio_is_scipys() -> None:
    random = np.random.default_rng(4)
    union = random.uniform(1, 100, 80)
    shares = np.stack([union * random.uniform(0, 1, 80), union], axis=1)
    wanted = stats.bootstrap(
        (shares[:, 0], shares[:, 1]),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True, vectorized=True, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert bootstrap(shares) == pytest.approx((wanted.low, wanted.high), abs=0.005)


def test_every_resample_of_three_clusters() -> None:
    """Of 27 equally likely ones each value comes as often as it should."""
    shares = np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 3.0]])
    drawn = resampled(shares, ratio, seed=1, resamples=50_000)
    exact = [float(ratio(shares[list(which)].sum(axis=0))) for which in itertools.product(range(3), repeat=3)]
    for value in set(exact):
        share = np.mean(np.isclose(drawn, value))
        assert share == pytest.approx(sum(np.isclose(exact, value)) / 27, abs=0.01)


def test_seeds_and_single_clusters() -> None:
    values = means(np.random.default_rng(0).random(50))
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert bootstrap(means(np.array([0.3]))) == (0.3, 0.3)
    counts = np.array([[3.0, 4, 1, 3, 4, 5]] * 5)
    assert bootstrap(counts, bleu)[0] == pytest.approx(float(bleu(counts[0])))


def test_ten_thousand_clusters_take_seconds_and_little_memory() -> None:
    before = time.process_time()
    bootstrap(means(np.random.default_rng(0).random(10_000)))
    assert time.process_time() - before < 10


def test_two_runs_that_differ_and_two_that_do_not() -> None:
    random = np.random.default_rng(6)
    a = random.random(300)
    better = paired_bootstrap(means(a), means(a + random.normal(0.05, 0.1, 300)))
    assert better.low < 0.05 < better.high and better.low > 0 and better.p_value < 0.001
    same = paired_bootstrap(means(a), means(a + random.normal(0.0, 0.1, 300)))
    assert same.low < 0 < same.high and same.p_value > 0.05
    assert paired_bootstrap(means(a), means(a)).p_value == 1.0
    with pytest.raises(ValueError, match="300 and 299 clusters"):
        paired_bootstrap(means(a), means(a[1:]))


def test_mcnemar_counts_what_one_run_alone_has_right() -> None:
    """Ten that A alone has right, two that B alone has right: 2 * P(X <= 2), X of twelve coins."""
    a = np.array([True] * 30 + [True] * 10 + [False] * 2 + [False] * 5)
    b = np.array([True] * 30 + [False] * 10 + [True] * 2 + [False] * 5)
    wanted = 2 * sum(math.comb(12, count) for count in range(3)) / 2**12
    assert mcnemar(a, b) == pytest.approx(wanted) == mcnemar(b, a)
    assert mcnemar(a, a) == 1.0
    with pytest.raises(ValueError, match="47 and 46 problems"):
        mcnemar(a, b[1:])
