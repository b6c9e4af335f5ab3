"""Intervals of means: known samples, and what counts as a change."""

import numpy as np
import pytest

from onethinker_jax.train.pages.intervals import FEWEST, Change, change, interval, signed


def test_the_interval_of_a_known_sample() -> None:
    """Of 400 records, half of them right: the normal interval is 0.5 ± 1.96 · 0.5 / 20."""
    low, high = interval([0.0, 1.0] * 200) or (0.0, 0.0)
    assert low == pytest.approx(0.5 - 0.049, abs=0.004) and high == pytest.approx(0.5 + 0.049, abs=0.004)
    assert interval([0.0, 1.0] * 200) == (low, high)  # the seed is fixed
    assert interval([0.25] * 10) == (0.25, 0.25)


def test_a_mean_stays_within_its_values() -> None:
    low, high = interval([1.0] * 19 + [0.0]) or (0.0, 0.0)
    assert 0.8 < low < 0.95 < high <= 1.0


def test_coverage() -> None:
    """About 95 of 100 intervals hold the true mean."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = interval(random.random(60) < 0.3) or (0.0, 0.0)
        held += low <= 0.3 <= high
    assert 178 <= held <= 198


def test_few_records_have_none() -> None:
    assert interval([1.0] * (FEWEST - 1)) is None and interval([1.0] * FEWEST) == (1.0, 1.0)
    assert interval([]) is None


@pytest.mark.parametrize(
    ("before", "after", "mean", "direction"),
    [
        ([0.0] * 20, [0.0] * 20, 0.0, "same"),  # nothing changed
        ([0.0] * 20, [1.0] * 20, 1.0, "up"),
        ([1.0] * 20, [0.5] * 20, -0.5, "down"),
        ([0.0, 1.0] * 10, [1.0, 0.0] * 10, 0.0, "same"),  # as many better as worse
        ([0.0] * 20, [1.0] + [0.0] * 19, 0.05, "same"),  # one of twenty: within the noise
        ([0.0] * 3, [1.0] * 3, 1.0, "same"),  # too few to tell
    ],
)
def test_changes(before: list[float], after: list[float], mean: float, direction: str) -> None:
    made = change(before, after)
    assert made.mean == pytest.approx(mean) and made.direction == direction


def test_records_are_paired() -> None:
    """Every record gains 0.1, whatever it was worth: the change is sure though the means overlap."""
    before = list(np.linspace(0, 0.9, 30))
    made = change(before, [value + 0.1 for value in before])
    assert made.interval == (pytest.approx(0.1), pytest.approx(0.1)) and made.direction == "up"


def test_how_it_is_written() -> None:
    assert Change(0.12, (0.1, 0.14)).text() == "+0.120 ± 0.020"
    assert Change(0.0, None).text() == "+0.000"
    assert [signed(value) for value in (-0.0001, 0.0, 0.25, -0.25)] == [
        "+0.000",
        "+0.000",
        "+0.250",
        "-0.250",
    ]
