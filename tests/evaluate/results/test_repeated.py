"""pass@k and the majority's answer: by trying all draws, and by hand."""

import itertools
import math

import numpy as np
import pytest

from onethinker_jax.evaluate.results.repeated import best_of, majority, pass_at


@pytest.mark.parametrize(
    ("n", "right", "k"), [(n, c, k) for n in (1, 4, 7) for c in range(n + 1) for k in range(1, n + 1)]
)
def test_pass_at_k_is_the_unbiased_estimator(n: int, right: int, k: int) -> None:
    values = [1.0] * right + [0.0] * (n - right)
    wanted = 1 - math.comb(n - right, k) / math.comb(n, k)
    assert best_of(values, k) == pytest.approx(wanted)
    drawn = [max(some) for some in itertools.combinations(values, k)]
    assert best_of(values, k) == pytest.approx(np.mean(drawn))


def test_the_best_of_values_between() -> None:
    values = [0.2, 0.9, 0.5, 0.2]
    assert best_of(values, 2) == pytest.approx(
        np.mean([max(two) for two in itertools.combinations(values, 2)])
    )
    assert best_of(values, 1) == pytest.approx(np.mean(values)) and best_of(values, 4) == 0.9
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"best of {k} of 4"):
            best_of(values, k)


def test_majority() -> None:
    assert majority(["A", "B", "B"]) == 1
    assert majority(["A", "B", "B", "A"]) == 0  # as many: the one that was first
    assert majority([None, None, "C"]) == 2  # what was not read has no vote
    assert majority([None, None]) == 0


def test_which_k() -> None:
    assert [pass_at(samples) for samples in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]
