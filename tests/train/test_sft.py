"""The SFT loop: gradient accumulation, frozen vision, and a resume that changes no bit."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from onethinker_jax.command_line import Terminated
from onethinker_jax.data_pipeline.batches.packing import Batch
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.sft import SFTSettings
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.log.log import RunLog, read_metrics
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.sft import train_sft
from onethinker_jax.train.stopping.notice import Notice
from tests.train import making

SETTINGS = replace(
    shapes().sft,
    steps=5,
    batch=BatchSettings(rows=2, tokens=64, patches=96),
    accumulate=2,
    optimizer=OptimizerSettings(learning_rate=1e-2, warmup=0.2),
    train_vision=False,
    log_every=2,
    save_every=2,
)

HEALTH = HealthSettings()


class Batches:
    """Five made batches, over and over; its state is how many were taken. Calls `then` at one of them."""

    def __init__(self, at: int = -1, then: Callable[[], Any] = lambda: None):
        kinds = [
            ["text", "one image"],
            ["video", "text"],
            ["text", "text"],
            ["one image", "video"],
            ["text"] * 2,
        ]
        self.made = [making.batch([[a], [b]]) for a, b in kinds]
        self.taken, self.at, self.then = 0, at, then

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.taken += 1
        if self.taken == self.at:
            self.then()
        return self.made[(self.taken - 1) % len(self.made)]

    def state(self) -> dict[str, int]:
        return {"taken": self.taken}

    def restore(self, state: dict[str, int]) -> None:
        self.taken = state["taken"]


@pytest.fixture(scope="module")
def policy():
    return making.policy()


def train(
    policy: Any,
    directory: Path,
    batches: Any,
    settings: SFTSettings = SETTINGS,
    health: HealthSettings = HEALTH,
    notice: Notice | None = None,
) -> Any:
    graphdef, params = policy
    params = jax.tree.map(lambda leaf: leaf.copy(), params)
    with RunLog(directory) as log, open_run(directory, log, notice, health) as run:
        return train_sft(Policy(graphdef, make_mesh()), params, batches, settings, run)


@contextmanager
def open_run(
    directory: Path, log: RunLog, notice: Notice | None = None, health: HealthSettings = HEALTH
) -> Iterator[Run]:
    """A run of one process in that folder."""
    folder = RunFolder(directory)
    checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings(keep=KeepSettings(last=None)))
    with count_compilations() as compilations:
        try:
            common = (Hosts(), log, checkpoints, folder, compilations)
            yield Run(*common, notice=notice or Notice(), health=health)
        finally:
            checkpoints.close()


def saved(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def undisturbed(policy, tmp_path_factory) -> tuple[Path, Batches, Any]:
    """Folder, batches and parameters of a run that nothing disturbs."""
    directory, batches = tmp_path_factory.mktemp("undisturbed"), Batches()
    return directory, batches, train(policy, directory / "whole", batches)


def test_the_loop_and_its_resume(policy, undisturbed, tmp_path):
    directory, batches, whole = undisturbed
    shutil.copytree(directory / "whole", tmp_path / "whole")
    assert batches.taken == SETTINGS.steps * SETTINGS.accumulate
    assert saved(tmp_path / "whole") == [2, 4, 5]
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert rows[-1]["loss"] < rows[0]["loss"]
    for row in rows:
        assert 0 < row["packing_efficiency/tokens"] < 1 and row["tokens_per_second"] > 0
    before, after = making.named(policy[1]), making.named(whole)
    for name, values in after.items():
        assert np.array_equal(values, before[name]) == name.startswith("visual."), name

    # Ctrl-C between the micro-batches of the third update: it is finished and saved.
    with pytest.raises(KeyboardInterrupt):
        train(policy, tmp_path / "stopped", Batches(6, lambda: signal.raise_signal(signal.SIGINT)))
    assert saved(tmp_path / "stopped") == [2, 3]
    for name, values in making.named(train(policy, tmp_path / "stopped", Batches())).items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)

    # Killed without notice in the fourth: the second is the last that was saved.
    def dies() -> None:
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        train(policy, tmp_path / "killed", Batches(8, dies))
    assert saved(tmp_path / "killed") == [2]
    for name, values in making.named(train(policy, tmp_path / "killed", Batches())).items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)
    losses = [
        [(row["step"], row["loss"]) for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1]


def test_sigterm_lets_a_step_end_or_cuts_it(policy, undisturbed, tmp_path):
    """One between the micro-batches of the third update: it is finished. Two: it is cut, and made again."""
    whole = making.named(undisturbed[2])
    for name, count, kept in (("once", 1, 3), ("twice", 2, 2)):
        notice = Notice(PreemptionSettings(deadline=1e6, exit_status=75))

        def stop(count: int = count) -> None:
            for _ in range(count):
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Terminated) as stopped:
            train(policy, tmp_path / name, Batches(5, stop), replace(SETTINGS, save_every=5), notice=notice)
        assert stopped.value.status == 75 and saved(tmp_path / name) == [kept]
        for leaf, values in making.named(train(policy, tmp_path / name, Batches())).items():
            np.testing.assert_array_equal(values, whole[leaf], err_msg=leaf)


def test_a_second_interrupt_stops_at_once(policy, tmp_path):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(policy, tmp_path, Batches(3, twice), replace(SETTINGS, save_every=5))
    assert saved(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before
