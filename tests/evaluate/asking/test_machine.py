"""The mesh of an evaluation: all devices, and as few of them to a copy of the weights as hold one."""

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from onethinker_jax.evaluate.arguments import Arguments, MeshFlags
from onethinker_jax.evaluate.asking.machine import Machine
from onethinker_jax.model.sharding import ShardingError


def weights(folder: Path, megabytes: int) -> Path:
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(megabytes * 2**20)
    return folder


def mesh_of(
    monkeypatch: pytest.MonkeyPatch, model: Path, memory: int | None, **flags: int
) -> tuple[int, ...]:
    """data, fsdp and tensor of the mesh over eight devices with `memory` megabytes each; None: they do not say."""
    stats = None if memory is None else {"bytes_limit": memory * 2**20}
    devices = [SimpleNamespace(memory_stats=lambda: stats) for _ in range(8)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    made = []

    def make_mesh(*sizes: int, devices: object) -> object:
        made.append(sizes)
        return SimpleNamespace(shape=dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))

    monkeypatch.setattr("onethinker_jax.evaluate.asking.machine.make_mesh", make_mesh)
    arguments = Arguments(model=model, benchmarks=("a.json",), dtype="bfloat16", mesh=MeshFlags(**flags))
    machine = Machine(arguments)
    assert machine.mesh is machine.mesh and machine.shards == int(np.prod(made[0][:2]))
    return made[0]


def test_the_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB in 60% of a device of 200 MB, of 100, of 30; bfloat16 files in float32 take twice as much."""
    model = weights(tmp_path / "model", 100)
    assert mesh_of(monkeypatch, model, None) == (8, 1, 1)
    assert mesh_of(monkeypatch, model, 200) == (8, 1, 1)
    assert mesh_of(monkeypatch, model, 100) == (4, 1, 2)
    assert mesh_of(monkeypatch, model, 50) == (2, 1, 4)
    assert mesh_of(monkeypatch, model, 30) == (1, 1, 8)
    assert mesh_of(monkeypatch, model, 100, fsdp=2) == (2, 2, 2)
    assert mesh_of(monkeypatch, model, 10, tensor=2, data=1) == (1, 1, 2)
    with pytest.raises(
        ShardingError, match=r"0\.1 GB of weights do not fit in 8 devices of 0\.0 GB; name another"
    ):
        mesh_of(monkeypatch, model, 10)
