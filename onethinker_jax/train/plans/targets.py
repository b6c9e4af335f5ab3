"""The devices that a plan is for: a TPU slice or GPU hosts that are not there, or the GPUs that are."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from onethinker_jax.errors import first_line
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.cost.gpu import GpuTopology, is_gpu, parse_gpu_topology
from onethinker_jax.train.cost.hardware import GPUS, Chip, Topology, TopologyError, parse_topology


@dataclass(frozen=True)
class Target:
    """The devices to compile for, and their limits."""

    chip: Chip
    devices: Sequence[Any]

    def mesh(self, settings: MeshSettings) -> Mesh:
        """A mesh over the devices. Raises ShardingError where they are too few."""
        return make_mesh(settings.data, settings.fsdp, settings.tensor, devices=self.devices)


def find_target(mesh: MeshSettings, topology: str | None) -> Target:
    """The devices of the topology, by default the GPUs that are present.

    Raises TopologyError where there are none such, or another number of them than the mesh has.
    """
    if topology is None:
        devices = jax.devices()
        if devices[0].platform != "gpu":
            raise TopologyError(
                "there is no GPU here; name a TPU slice or a GPU host: --topology v5p-32, --topology h200x8"
            )
        chip = GPUS.get(devices[0].device_kind)
        if chip is None:
            raise TopologyError(f"unknown GPU {devices[0].device_kind!r}; known are {', '.join(GPUS)}")
        return Target(chip, devices)
    described = parse_gpu_topology(topology) if is_gpu(topology) else parse_topology(topology)
    if mesh.size != described.devices:
        raise TopologyError(
            f"{topology} has {described.devices} devices; mesh data={mesh.data} fsdp={mesh.fsdp} "
            f"tensor={mesh.tensor} has {mesh.size}"
        )
    return Target(described.chip, _described_devices(described))


def _described_devices(topology: Topology | GpuTopology) -> Sequence[Any]:
    """Devices that are not there, as the compiler for them describes them. Raises TopologyError without a compiler."""
    if isinstance(topology, GpuTopology):
        if importlib.util.find_spec("jax_cuda12_plugin") is None:
            raise TopologyError(
                "XLA's GPU compiler is not installed; it comes with the extra gpu-plan: pip install '.[gpu-plan]'"
            )
        name = topology.xla_name
        described = topologies.get_topology_desc(
            platform="cuda", topology_name=name, topology=name, target_config=topology.target.text()
        )
        return described.devices
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError("libtpu is not installed; it comes with the extra tpu: pip install '.[tpu]'")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # ask no cloud what machine this is
    os.environ.setdefault(
        "ALLOW_MULTIPLE_LIBTPU_LOAD", "1"
    )  # no chip is taken: two plans do not disturb each other
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology.libtpu_name).devices
    except jax.errors.JaxRuntimeError as error:
        raise TopologyError(f"libtpu does not know {topology.libtpu_name}: {first_line(error)}") from None
