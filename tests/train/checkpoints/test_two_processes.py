"""Checkpoints that two processes write together are read by one, and a damaged one is found by both."""

from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from tests.train import running


@pytest.mark.slow
def test_two_processes_save_and_one_reads(tmp_path: Path) -> None:
    port = running.free_port()
    commands = [
        ["-m", "tests.train.checkpoints.two_processes", number, port, tmp_path] for number in range(2)
    ]
    ends = running.ends_of(running.start_together(commands, devices=2))
    assert [status for status, _ in ends] == [0, 0], ends
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.numbers() == [1, 2, 3]
    checkpoints.verify(3)
    kernel = checkpoints.arrays(3).read("kernel")
    np.testing.assert_array_equal(kernel, 4 * np.arange(40, dtype=np.float32).reshape(8, 5))
    assert (tmp_path / "checkpoints" / "3.damaged").is_dir()
