"""Many devices, in one process and in two, give what one device gives: an update, and weights read and written."""

from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from onethinker_jax.model.sharding import make_mesh
from tests.model import tiny
from tests.train import making, running


@pytest.fixture(scope="module")
def alone() -> tuple[float, dict[str, np.ndarray]]:
    """The update on one device."""
    loss, arrays = making.sharded_update(make_mesh())
    return float(loss), {name: np.asarray(array) for name, array in arrays.items()}


def compare(loss: float, arrays: Any, alone: tuple[float, dict[str, np.ndarray]]) -> None:
    np.testing.assert_allclose(loss, alone[0], rtol=1e-5)
    for name, wanted in alone[1].items():
        scale = float(np.abs(wanted).max())
        if name.startswith("gradients."):
            np.testing.assert_allclose(arrays[name], wanted, atol=1e-4 * scale + 1e-5, err_msg=name)
        else:  # Adam makes a whole step of a gradient that is nothing but rounding
            gradient = alone[1][name.replace("params.", "gradients.", 1)]
            real = np.abs(gradient) > 1e-2
            np.testing.assert_allclose(np.asarray(arrays[name])[real], wanted[real], atol=2e-5, err_msg=name)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
def test_eight_devices(alone) -> None:
    loss, arrays = making.sharded_update(make_mesh(data=2, fsdp=2, tensor=2))
    compare(float(loss), arrays, alone)
    kernel = arrays["gradients.decoder.layers.q_proj.kernel.value"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4  # summed where its parameter lies


@pytest.mark.slow
def test_two_processes_of_four_devices(alone, tmp_path) -> None:
    port = running.free_port()
    (tmp_path / "weights").mkdir()
    (tmp_path / "again").mkdir()
    checkpoints = [
        tiny.write_checkpoint(tiny.CONFIGS[name], tmp_path / "weights" / str(number))
        for number, name in enumerate(("tied", tiny.MOE))
    ]
    commands = [["-m", "tests.train.two_processes", number, port, tmp_path] for number in range(2)]
    ends = running.ends_of(running.start_together(commands, devices=4))
    assert [status for status, _ in ends] == [0, 0], ends
    for checkpoint in checkpoints:
        again = tmp_path / "again" / checkpoint.name / "model.safetensors"
        assert load_file(again).keys() == load_file(checkpoint / "model.safetensors").keys()
        for name, value in load_file(checkpoint / "model.safetensors").items():
            np.testing.assert_array_equal(load_file(again)[name], value, err_msg=name)
    with np.load(tmp_path / "update.npz") as arrays:
        compare(float(arrays["loss"]), arrays, alone)
