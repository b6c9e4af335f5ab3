"""GPU hosts that a plan knows, as XLA's GPU compiler takes them: it compiles for GPUs that are not there.

Names are `h200x8` (eight GPUs of one host) and `h200x8x2` (two such hosts). What the compiler asks of a chip are the
limits that CUDA reports; they are those of XLA's own descriptions (xla/backends/gpu/target_config/specs in
openxla/xla: a100_sxm_80, h100_sxm, h200, b200).
"""

import re
from dataclasses import dataclass

from onethinker_jax.train.cost.hardware import GPUS, Chip, TopologyError

GPUS_A_HOST = 8  # at most


@dataclass(frozen=True)
class GpuTarget:
    """What XLA's GPU compiler asks of a chip, as CUDA reports it."""

    device_kind: str
    capability: tuple[int, int]
    multiprocessors: int
    float32_lanes: int  # a multiprocessor
    shared_memory: int  # bytes a multiprocessor
    shared_memory_of_block: int  # bytes, at most
    l2: int  # bytes
    clock_ghz: float
    memory: int  # bytes that CUDA sees, more than the advertised

    @property
    def chip(self) -> Chip:
        """Its limits."""
        return GPUS[self.device_kind]

    def text(self) -> str:
        """XLA's `GpuTargetConfigProto` in text form."""
        major, minor = self.capability
        features = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
        described = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 48 * 2**10,
            "shared_memory_per_core": self.shared_memory,
            "shared_memory_per_block_optin": self.shared_memory_of_block,
            "threads_per_core_limit": 2048,
            "registers_per_core_limit": 2**16,
            "registers_per_block_limit": 2**16,
            "core_count": self.multiprocessors,
            "fpus_per_core": self.float32_lanes,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 2**16 - 1,
            "block_dim_limit_z": 2**16 - 1,
            "memory_bandwidth": int(self.chip.hbm_bandwidth),
            "l2_cache_size": self.l2,
            "clock_rate_ghz": self.clock_ghz,
            "device_memory_size": self.memory,
        }
        numbers = " ".join(f"{name}: {value}" for name, value in described.items())
        capability = f"major: {major} minor: {minor} feature_extension: {features}"
        return (
            f"gpu_device_info {{ {numbers} cuda_compute_capability {{ {capability} }} }} "
            'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
            f'runtime_version {{ major: 12 minor: 9 }} device_description_str: "{self.device_kind}"'
        )


TARGETS = {
    "a100": GpuTarget(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 167_936, 166_912, 41_943_040, 1.41, 85_100_068_864
    ),
    "h100": GpuTarget(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 233_472, 232_448, 52_428_800, 1.98, 84_942_979_072
    ),
    "h200": GpuTarget("NVIDIA H200", (9, 0), 132, 128, 233_472, 232_448, 52_428_800, 1.98, 151_397_597_184),
    "b200": GpuTarget(
        "NVIDIA B200", (10, 0), 148, 128, 233_472, 232_448, 132_644_864, 1.965, 191_514_411_008
    ),
}


@dataclass(frozen=True)
class GpuTopology:
    """Hosts with equally many GPUs of one kind."""

    target: GpuTarget
    per_host: int
    hosts: int

    @property
    def chip(self) -> Chip:
        """The limits of each."""
        return self.target.chip

    @property
    def devices(self) -> int:
        """The number of GPUs."""
        return self.per_host * self.hosts

    @property
    def xla_name(self) -> str:
        """As XLA takes it: slices x hosts x GPUs of a host."""
        return f"1x{self.hosts}x{self.per_host}"


def is_gpu(topology: str) -> bool:
    """Whether the name is meant to be one of GPUs."""
    return topology.split("x")[0] in TARGETS


def parse_gpu_topology(name: str) -> GpuTopology:
    """`h200x8` or, with several hosts, `h200x8x2`; raises TopologyError."""
    found = re.fullmatch(r"(\w+?)x(\d+)(?:x(\d+))?", name)
    if found is None or found[1] not in TARGETS:
        raise TopologyError(
            f"unknown topology {name!r}; write h200x8, or h200x8x2 for two hosts, the GPUs being "
            f"{', '.join(TARGETS)}"
        )
    per_host, hosts = int(found[2]), int(found[3] or 1)
    if not 1 <= per_host <= GPUS_A_HOST or hosts < 1:
        raise TopologyError(
            f"topology {name!r}: a host has 1 to {GPUS_A_HOST} GPUs, and there is at least one host"
        )
    return GpuTopology(TARGETS[found[1]], per_host, hosts)
