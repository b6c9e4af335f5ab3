"""What a run needs of its disk, counted before its first step: held against Orbax's own policies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.train.checkpoints.keeping import HELDOUT, NUMBER, Described, reasons
from onethinker_jax.train.config.checkpoints import KeepSettings
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.health.disk import DiskError, check_space
from onethinker_jax.train.health.host_resources import GIB
from onethinker_jax.train.preflight.disk_space import Save, most_at_a_time, saved_rollout_bytes, saves_of
from onethinker_jax.train.run_folder import RunFolder

SIZES = {"sft": 100, "rl": 130}


def stood(saves: list[Save], keep: KeepSettings, scores: np.ndarray) -> int:
    """Bytes at the most of a run with these scores: after each checkpoint goes what the policies do not keep."""
    stage = {save.number: save.stage for save in saves}
    kept: list[Described] = []
    most = 0
    for save, score in zip(saves, scores, strict=True):
        found = {HELDOUT: float(score), NUMBER: save.number} if save.scored else None
        kept.append(Described(save.number, found))
        most = max(most, sum(SIZES[stage[one.step]] for one in kept))
        why = reasons(keep, kept)
        kept = [one for one in kept if why[one.step]]
    return most


@pytest.mark.parametrize(
    "keep",
    [
        KeepSettings(),
        KeepSettings(last=1, best=0),
        KeepSettings(last=1, every=4),
        KeepSettings(last=3, every=5, best=2),
        KeepSettings(last=None),
        KeepSettings(last=2, best=9),
    ],
    ids=str,
)
def test_no_run_has_more_than_was_counted(keep: KeepSettings) -> None:
    """And one whose scores fall, so that the first stay the best, comes within what overlaps by chance."""
    config = smoke()
    config = replace(
        config,
        sft=replace(config.sft, steps=7, save_every=2),
        rl=replace(config.rl, steps=13, save_every=4),
        evaluation=EvaluationSettings(every=3),
    )
    saves = saves_of(config)
    assert [save.number for save in saves] == [2, 4, 6, 7, 10, 11, 13, 15, 16, 19, 20]
    assert [save.number for save in saves if save.scored] == [10, 13, 16, 19]
    _, counted = most_at_a_time(saves, keep, SIZES)
    rng = np.random.default_rng(0)
    found = [stood(saves, keep, rng.normal(size=len(saves))) for _ in range(40)]
    falling = stood(saves, keep, -np.arange(len(saves)))
    assert max(*found, falling) == counted


def test_what_is_named(tmp_path: Path) -> None:
    folder, much = RunFolder(tmp_path / "run"), 1e6 * GIB
    (folder.checkpoints / "3").mkdir(parents=True)
    (folder.checkpoints / "3" / "array").write_bytes(b"\0" * 1000)
    with pytest.raises(DiskError) as caught:
        check_space(
            folder, checkpoints=4 * much, count=4, largest=much, beside={"the model": much, "a replay": 0}
        )
    assert "the run needs 5e+06 more: 4 checkpoints at a time 4e+06, the model 1e+06" in str(caught.value)
    assert "replay" not in str(caught.value)


def test_saved_rollouts_of_two_checkpoints() -> None:
    """By hand: 5 steps of 4 prompts, 2 samples of 24 tokens each of 8 bytes, and their scores."""
    config = smoke()
    config = replace(config, rl=replace(config.rl, steps=40, save_every=2))
    assert saved_rollout_bytes(config) == 5 * 4 * 2 * (24 * 8 + 120)
    assert saved_rollout_bytes(replace(config, rl=replace(config.rl, save_rollouts=False))) == 0
