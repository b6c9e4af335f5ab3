"""Scores on held-out records during RL: when they stop it, and that a resumed run makes the same ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.rewards.client.client import RewardUnavailable
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.rl.heldout_scores import HeldOutScores
from tests.train.rl.small_run import FIRST, SETTINGS, metrics, numbers, same


@pytest.mark.parametrize(
    ("scores", "patience", "stops"),
    [
        ([0.5], 1, False),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.5], 1, True),  # as good is no gain
        ([0.5, 0.6, 0.4], 2, False),
        ([0.5, 0.6, 0.4, 0.6], 2, True),
        ([0.9, 0.1, 0.2, 0.3], 0, False),
    ],
)
def test_when_it_stops(scores: list[float], patience: int, stops: bool) -> None:
    """By hand: the best score is `patience` scorings old."""
    values = iter(scores)
    heldout = HeldOutScores(
        EvaluationSettings(every=2, patience=patience), lambda *_: {"heldout/accuracy": next(values)}
    )
    for number in range(len(scores)):
        assert heldout.verdict is None
        heldout.score(2 * number + 2, nnx.State({}))
    assert (heldout.verdict is not None) == stops
    again = HeldOutScores(EvaluationSettings(every=2, patience=patience), lambda *_: {})
    again.restore(heldout.state())
    assert again.verdict == heldout.verdict and again.last == heldout.last == 2 * len(scores)


def test_patience_without_scorings_is_refused() -> None:
    with pytest.raises(
        SettingError, match=r"evaluation.patience counts the scorings of evaluation.every, which is 0"
    ):
        EvaluationSettings(patience=1)


class Judge:
    """Scores of a model by its numbers, the first one the best; fails when asked for the `fails`-th time."""

    def __init__(self, fails: int = -1):
        self.asked, self.fails = [], fails

    def __call__(self, step: int, params: nnx.State) -> Mapping[str, float]:
        self.asked.append(step)
        if len(self.asked) == self.fails:
            raise RewardUnavailable("gone")
        size = float(sum(np.abs(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(params)))
        return {"heldout/accuracy": 1 / step, "heldout/reward": size}


class Killed(BaseException):
    """What nothing catches, as nothing catches SIGKILL."""


def kill(*_: Any) -> None:
    raise Killed


def test_a_resumed_run_makes_the_same_scorings_and_the_same_stop(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run in one go; another whose scoring fails, which goes on from the step that it could not score.

    When it has scored that step, it is killed between the metrics and the checkpoint's score.
    """
    settings = replace(SETTINGS, steps=6, save_every=5)
    evaluation = EvaluationSettings(every=2, patience=1)

    def run(name: str, judge: Judge) -> nnx.State:
        return train(tmp_path / name, settings=settings, scores=HeldOutScores(evaluation, judge))

    whole = run("whole", judge := Judge())
    assert judge.asked == [2, 4]  # 1/4 is less than 1/2, so that steps 5 and 6 are not made
    assert [row["step"] for row in metrics(tmp_path / "whole")] == [1, 2, 3, 4]
    assert numbers(tmp_path / "whole") == [FIRST + 2, FIRST + 4]
    with pytest.raises(RewardUnavailable):
        run("broken", Judge(fails=2))
    assert [row["step"] for row in metrics(tmp_path / "broken")] == [1, 2, 3]
    with monkeypatch.context() as patches, pytest.raises(Killed):
        patches.setattr(Run, "add_score", kill)
        run("broken", Judge())
    assert [row["step"] for row in metrics(tmp_path / "broken")] == [1, 2, 3, 4]
    same(run("broken", judge := Judge()), whole)
    assert judge.asked == [4]
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert [row.get("heldout/accuracy") for row in metrics(tmp_path / "whole")] == [None, 0.5, None, 0.25]
    found = [Checkpoints(tmp_path / name / "checkpoints") for name in ("whole", "broken")]
    assert found[0].described() == found[1].described()
    assert [checkpoints.best() for checkpoints in found] == [FIRST + 2] * 2
    same(run("broken", judge := Judge()), whole)  # once more: nothing is left to do
    assert judge.asked == []
