"""What a run finds in its checkpoints' folder: another run's, its own with other settings, or nothing any more."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import Compilations
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.run_folder import RunFolder
from tests.train.checkpoints.test_checkpoints import fresh


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path / "run") as log:
        yield log


def open_run(log: RunLog, config: TrainConfig) -> Run:
    folder = RunFolder(log.directory)
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoints)
    return Run(Hosts(), log, checkpoints, folder, Compilations(), config=config)


def test_a_checkpoint_of_other_settings_is_refused(log: RunLog) -> None:
    """Those that change no number may differ, and RL may be given more steps."""
    config = smoke()
    run = open_run(log, config)
    run.save(8, fresh(4), "rl", {}, health=None)
    run.checkpoints.close()
    kept = CheckpointSettings(keep=KeepSettings(last=5))
    longer = replace(config, rl=replace(config.rl, steps=config.rl.steps + 1), checkpoints=kept)
    saved = open_run(log, longer).newest()
    assert saved is not None and saved[0] == 8
    where = log.directory / "checkpoints" / "8"
    for other, said in (
        (replace(config, seed=1), "seed 0, not 1"),
        (replace(config, sft=replace(config.sft, steps=7)), f"sft.steps {config.sft.steps}, not 7"),
    ):
        with pytest.raises(CheckpointError) as caught:
            open_run(log, other).newest()
        assert str(caught.value) == f"checkpoint {where} is of a run with {said}"


def test_a_folder_that_is_removed_under_the_run(log: RunLog, capfd: pytest.CaptureFixture[str]) -> None:
    """A warning says so, and the next checkpoint stands in a new one."""
    run = open_run(log, smoke())
    run.save(1, fresh(4), "rl", {}, health=None)
    assert run.checkpoints.numbers() == [1]
    shutil.rmtree(run.folder.checkpoints)
    run.save(2, fresh(4), "rl", {}, health=None)
    run.checkpoints.close()
    said = " ".join(capfd.readouterr().out.split())
    assert (
        "was removed under this run, and with it the checkpoints before: number 2 is written into a new one"
        in said
    )
    newest = open_run(log, smoke()).newest()
    assert newest is not None and newest[0] == 2
