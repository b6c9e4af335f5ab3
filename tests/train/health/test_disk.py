"""A disk that is full or read-only: noticed before the first step, one line later, and the newest checkpoint lives.

The disks are tmpfs of a few MB, which root may mount; without that right these tests are skipped.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.__main__ import main
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.health.disk import ROLLOUTS, DiskError, check_space, check_writable, disk_errors
from onethinker_jax.train.health.host_resources import GIB, free_disk, host_memory
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.state import TrainState, init_state
from tests.train import making
from tests.train.rl.small_run import numbers, same
from tests.train.test_sft import SETTINGS as SFT
from tests.train.test_sft import Batches
from tests.train.test_sft import train as train_sft
from tests.waiting import wait_until

OPTIMIZER = make_optimizer(OptimizerSettings(1e-2), 5, train_vision=True)


def fresh(seed: int) -> TrainState:
    """A state of a few MB."""
    noise = np.random.default_rng(seed).normal(size=(3, 100_000))  # which no compression makes small
    params: Any = {"lm_head": {"kernel": jnp.asarray(noise, jnp.float32)}}
    return init_state(params, OPTIMIZER, init_moments(3), make_mesh(), reference=True)


class Disk:
    """A file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self._ballast = path, path / "ballast"

    def fill(self, left: int = 0) -> None:
        """Writes until only `left` bytes are free."""
        size = int(free_disk(self.path)) - left
        with contextlib.suppress(OSError), self._ballast.open("wb") as file:
            file.write(b"\0" * size)

    def clear(self) -> None:
        self._ballast.unlink()

    def read_only(self) -> None:
        """From now on; a file that is open may still be written."""
        subprocess.run(["mount", "--bind", self.path, self.path], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Mounts a disk of so many MiB."""
    mounted: list[Path] = []

    def mount(size: int) -> Disk:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        if os.geteuid() != 0:
            pytest.skip("only root may mount a tmpfs")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", path]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"this machine mounts no tmpfs: {result.stderr.strip()}")
        mounted.append(path)
        return Disk(path)

    yield mount
    for path in mounted:
        while path.is_mount():
            subprocess.run(["umount", "-l", path], check=True)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the trainer says."""
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_read_only_disk_before_the_run(disk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small = disk(2)
    small.read_only()
    where = small.path / "smoke"
    line = error_of(capsys, "smoke", "--out", small.path)
    assert line == f"error: {where}: the disk is read-only: nothing was begun"


def test_a_full_disk_before_the_run(disk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small = disk(2)
    small.fill()
    line = error_of(capsys, "smoke", "--out", small.path)
    assert line == f"error: {small.path / 'smoke'}: no space left on the disk: nothing was begun"
    assert not (small.path / "smoke").exists()


def test_a_disk_that_is_too_small_for_the_run(disk: Any) -> None:
    """Counting what stands there already."""
    small, mib = disk(8), 2**20
    folder = RunFolder(small.path / "run")
    sizes: dict[str, Any] = {"largest": 2 * mib, "beside": {"the model": mib, ROLLOUTS: mib // 2}}
    check_space(folder, checkpoints=6 * mib, count=3, **sizes)
    with pytest.raises(DiskError) as caught:
        check_space(folder, checkpoints=8 * mib, count=4, **sizes)
    assert str(caught.value) == (
        f"{folder.path}: {8 * mib / GIB:.3g} GiB free, and the run needs {9.5 * mib / GIB:.3g} more: 4 checkpoints at "
        f"a time {8 * mib / GIB:.3g}, the model {mib / GIB:.3g}, saved rollouts {mib / 2 / GIB:.3g}"
    )
    checkpoint = folder.checkpoints / "3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "array").write_bytes(b"\0" * 2 * mib)
    check_space(folder, checkpoints=6 * mib, count=3, **sizes)  # 4 + 1.5 of the 6 that are left


def test_a_run_measures_what_it_will_need(disk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command: the world fits, checkpoints and model do not, and nothing is trained."""
    small = disk(16)
    few = [part for name in ("sft", "rl", "heldout") for part in (f"--data.world-{name}", 36)]
    few += ["--checkpoints.keep.every", 1]
    line = error_of(capsys, "smoke", "--out", small.path, *few)
    assert line.startswith(f"error: {small.path / 'smoke'}: 0.0")
    assert ": 4 checkpoints at a time 0.0" in line and "the state of an update kept for a replay 0.0" in line
    assert not list((small.path / "smoke").glob("checkpoints/*"))


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(disk: Any) -> None:
    """One is kept: it is not removed before the next is whole."""
    small = disk(16)
    folder = RunFolder(small.path)
    checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings(keep=KeepSettings(last=1)))
    state = fresh(1)
    checkpoints.save(1, state, {"stage": "sft"})
    assert checkpoints.newest() is not None  # waits
    small.fill(left=500_000)
    with pytest.raises(DiskError) as caught, disk_errors(folder):
        checkpoints.save(2, fresh(2), {"stage": "sft"})
        checkpoints.close()
    assert str(caught.value).startswith(f"{small.path}: no space left on ")
    assert "; checkpoint 1 is whole, and the same command goes on from there" in str(caught.value)
    assert "\n" not in str(caught.value)
    small.clear()
    again = Checkpoints(folder.checkpoints, CheckpointSettings(keep=KeepSettings(last=1)))
    newest = again.newest()
    assert newest is not None and newest[0] == 1
    same(again.restore(1, fresh(3)), state)
    again.close()


@pytest.mark.parametrize("ending", ["full", "read-only"])
def test_a_disk_that_fails_during_sft(disk: Any, tmp_path: Path, ending: str) -> None:
    """Whichever write meets it first, metrics or checkpoint; with space again the run ends in the same bits."""
    policy = making.policy()
    settings = replace(SFT, accumulate=1, train_vision=True)
    small = disk(32)
    run = RunFolder(small.path / "run")

    def fails() -> None:
        wait_until((run.checkpoints / "2").is_dir)
        {"full": small.fill, "read-only": small.read_only}[ending]()

    with pytest.raises(DiskError) as caught, disk_errors(run):
        train_sft(policy, run.path, Batches(3, fails), settings)
    reason = {"full": "no space left on ", "read-only": "(the disk is read-only|read-only file system)"}[
        ending
    ]
    assert re.match(f"{run.path}: {reason}", str(caught.value))
    assert "; checkpoint 2 is whole, and" in str(caught.value)
    if ending == "full":
        small.clear()
        whole = train_sft(policy, tmp_path / "whole", Batches(), settings)
        same(train_sft(policy, run.path, Batches(), settings), whole)
        assert numbers(run.path) == numbers(tmp_path / "whole")


def test_an_error_that_is_not_the_disks_passes() -> None:
    for error in (FileNotFoundError(2, "No such file", "a.png"), ValueError("a bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, disk_errors(RunFolder(Path("runs"))):
            raise error
        assert caught.value is error


def test_memory_of_the_host_and_of_a_container(tmp_path: Path) -> None:
    """Files that look as Linux has them: the container's limit counts where it is below the host's."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       8388608 kB\nMemFree:         100 kB\nMemAvailable:    4194304 kB\n")
    found = host_memory(meminfo, tmp_path)
    assert found is not None and (found.available / GIB, found.limit / GIB) == (4, 8)
    for name, text in {
        "memory.max": f"{2 * GIB}\n",
        "memory.current": f"{GIB + GIB // 2}\n",
        "memory.stat": f"anon 12\ninactive_file {GIB // 4}\nactive_file 7\n",
    }.items():
        (tmp_path / name).write_text(text)
    found = host_memory(meminfo, tmp_path)
    assert found is not None and (found.available / GIB, found.limit / GIB) == (0.75, 2)
    (tmp_path / "memory.max").write_text("max\n")
    found = host_memory(meminfo, tmp_path)
    assert found is not None and (found.available / GIB, found.limit / GIB) == (4, 8)
    assert host_memory(tmp_path / "none", tmp_path) is None
    assert jnp.isfinite(free_disk(tmp_path / "a" / "b"))


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    check_writable(RunFolder(tmp_path / "runs" / "mine"))
    assert not list(tmp_path.iterdir())
