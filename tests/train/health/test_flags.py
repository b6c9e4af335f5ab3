"""Flags of the curves: when each goes up, by hand; one line each time; a resume says what an undisturbed run says."""

import json
import random

import pytest

from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.health.flags import FEWEST_NORMS, Flags

SETTINGS = HealthSettings(window=3, reward_collapse=0.5, entropy_collapse=0.1, length_explosion=2.0)


def said(flags: Flags, norms: list[float], **metrics: float) -> tuple[list[str], list[str]]:
    """The flags that are up after a look, and the lines that are new."""
    up = flags.look(norms, metrics)
    return sorted(up), flags.new(up)


def test_a_spike_of_the_gradient_norm() -> None:
    flags = Flags(HealthSettings(window=3, grad_norm_spike=10))
    assert said(flags, [1.0, 100.0, 2.0]) == ([], [])  # of so few there is no median
    assert said(flags, [2.0] * (FEWEST_NORMS - 3)) == ([], [])
    assert said(flags, [20.0]) == ([], [])  # ten times is not above ten times
    up, lines = said(flags, [2.0, 30.0, 2.0])
    assert up == ["grad_norm_spike"] and len(lines) == 1
    assert lines[0].startswith("gradient norm 30 is 15 times the median of the last 22, 2: ")
    assert said(flags, [float("nan"), 2.0]) == ([], [])


def test_a_flag_that_flickers_says_one_line() -> None:
    """It must be down for a whole window before it says another."""
    flags = Flags(HealthSettings(window=3))
    said(flags, [1.0] * 30)
    lines = [len(said(flags, [norm])[1]) for norm in (50, 50, 1, 1, 50, 1, 1, 1, 50)]
    assert lines == [1, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("curve", "values", "up", "line"),
    [
        ("reward", [0.2, 0.8, 0.8, 0.8, 0.5, 0.1, 0.65, 0.3], [7], "mean reward 0.35 of 3 steps, 0.8 at its best: "),
        ("reward", [-0.2, -0.2, -0.2, -0.2, -0.6, -0.6], [4, 5], "mean reward -0.333 of 3 steps, -0.2 at its best: "),
        ("entropy", [1.0, 0.2, 0.1, 0.1, 0.1, 0.05], [5], "mean entropy 0.083 nats a token of 3 steps: "),
        ("response_length", [10, 20, 30, 40, 40, 40, 60], [6], "mean response of 47 tokens, 2.33 times as many "),
    ],
)  # fmt: skip
def test_curves(curve: str, values: list[float], up: list[int], line: str) -> None:
    """Means of the last three: the reward's against their best, lengths against the first."""
    flags, found, lines = Flags(SETTINGS), [], []
    for number, value in enumerate(values):
        now, new = said(flags, [], **{curve: value})
        found += [number] * len(now)
        lines += new
    assert found == up
    assert len(lines) == 1 and lines[0].startswith(line)


def test_what_is_missing_or_not_finite_is_passed_over() -> None:
    """A step that waiting groups filled has no reward, a skipped one no entropy."""
    flags = Flags(SETTINGS)
    for _ in range(3):
        assert said(flags, [], reward=1.0, entropy=float("nan")) == ([], [])
        assert said(flags, []) == ([], [])
    assert said(flags, [], entropy=0.0) == ([], [])  # one of three


def test_zero_switches_a_flag_off() -> None:
    off = HealthSettings(
        window=1, grad_norm_spike=0, reward_collapse=0, entropy_collapse=0, length_explosion=0
    )
    flags = Flags(off)
    for norm, value in ([1.0, 1.0],) * 30 + ([1e9, -1e9],):
        assert said(flags, [norm], reward=value, entropy=0.0, response_length=-value) == ([], [])


def test_a_resume_says_what_an_undisturbed_run_says() -> None:
    """Wherever it is cut, through the JSON of a checkpoint."""
    rng = random.Random(0)
    looks = [
        ([rng.lognormvariate(0, 2) for _ in range(3)], {name: rng.random() for name in ("reward", "entropy")})
        for _ in range(60)
    ]
    settings = HealthSettings(window=3, grad_norm_spike=4, reward_collapse=0.3, entropy_collapse=0.35)
    flags, whole, states = Flags(settings), [], []
    for norms, metrics in looks:
        states.append(json.dumps(flags.state()))
        whole.append(said(flags, norms, **metrics))
    assert sum(len(lines) for _, lines in whole) > 5
    for cut in range(0, 60, 7):
        resumed = Flags(settings)
        resumed.restore(json.loads(states[cut]))
        assert [said(resumed, norms, **metrics) for norms, metrics in looks[cut:]] == whole[cut:]
