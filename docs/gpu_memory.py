"""Compiles every device program of a preset for GPUs that are not there, and says what memory each needs.

    pip install "jax[cuda12]==0.10.2"                                   # XLA's GPU compiler and ptxas; no GPU is needed
    python docs/gpu_memory.py qwen3_vl_2b_rl_gpu [--gpu a100] [--only decoding] [any flag of training]
    python docs/gpu_memory.py                                           # the GPU presets, into docs/plan.md

The number of GPUs is that of the preset's mesh.  Each program is compiled in a process of its own.  Exit status 0: all
leave MARGIN of the memory free; 1: one does not, or cannot be compiled; 2: a wrong name or flag.
"""

import importlib.util
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onethinker_jax.command_line import UsageError
from onethinker_jax.train.__main__ import parse
from onethinker_jax.train.config.presets_gpu import GPU_PRESETS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.hardware import GIB, GPUS, Chip

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from onethinker_jax.train.plan_programs import Program

PAGE = Path(__file__).parent / "plan.md"
BEGIN, END = "<!-- gpus: begin -->", "<!-- gpus: end -->"
MARGIN = 0.08  # of the memory stays free, for CUDA, NCCL and what the allocator cannot fill


@dataclass(frozen=True)
class Gpu:
    """What XLA's GPU compiler asks of a chip, as CUDA reports it; from NVIDIA's tables of compute capabilities."""

    chip: Chip
    device_kind: str
    capability: tuple[int, int]
    multiprocessors: int
    float32_lanes: int  # a multiprocessor
    shared_memory: int  # bytes a multiprocessor
    shared_memory_of_block: int  # bytes, at most
    l2: int  # bytes
    clock_ghz: float
    memory: int  # bytes that CUDA sees, a little more than the advertised 80e9

    def target(self) -> str:
        """XLA's ``GpuTargetConfigProto`` in text form."""
        major, minor = self.capability
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
        return (
            f"gpu_device_info {{ {numbers} cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
            'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
            f'runtime_version {{ major: 12 minor: 9 }} device_description_str: "{self.device_kind}"'
        )


def _gpu(device_kind: str, *facts: Any) -> Gpu:
    return Gpu(GPUS[device_kind], device_kind, *facts)


TARGETS = {
    "h100": _gpu(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 228 * 2**10, 227 * 2**10, 50 * 2**20, 1.98, 79 * GIB
    ),
    "a100": _gpu(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 164 * 2**10, 163 * 2**10, 40 * 2**20, 1.41, 79 * GIB
    ),
}


@dataclass(frozen=True)
class MemoryConfig(TrainConfig):
    """What is to be compiled, and for which GPU."""

    gpu: Literal["h100", "a100"] = "h100"
    """The GPU to compile for, 80 GB either way."""
    only: str = ""
    """Compiles the programs whose names match this regular expression."""


@dataclass(frozen=True)
class Compiled:
    """GiB of one device: a program's arguments and what lies beside it by kind, and what it needs on top."""

    name: str
    arguments: dict[str, float]
    outputs: float  # beyond those that take an argument's place
    temporaries: float
    beside: dict[str, float]
    least: float  # seconds of one run: FLOPs at the chip's peak, or arguments read once
    runs: int  # a step
    seconds: float  # to compile

    @property
    def total(self) -> float:
        return sum(self.arguments.values()) + self.outputs + self.temporaries + sum(self.beside.values())


def main(arguments: Sequence[str]) -> int:
    """Compiles for the preset named, or for all GPU presets into the page; returns the exit status."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # before the processes start: their GPUs are only described
    try:
        wanted = (
            [arguments] if arguments else [[name, "--gpu", gpu] for name in GPU_PRESETS for gpu in TARGETS]
        )
        configs = [parse(one, MemoryConfig, prog="python docs/gpu_memory.py") for one in wanted]
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        sys.stderr.write("error: XLA's GPU compiler is not installed: pip install 'jax[cuda12]==0.10.2'\n")
        return 1
    reports = [(config, compile_all(config)) for config in configs]
    if arguments:
        sys.stdout.write(describe(*reports[0]))
    else:
        _into_page(reports)
    return 0 if all(programs and all(_fits(one, c.gpu) for one in programs) for c, programs in reports) else 1


def compile_all(config: MemoryConfig) -> list[Compiled]:
    """Every program whose name matches, each in a fresh process, one after another."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        names = [name for name in pool.submit(_names, config).result() if re.search(config.only, name)]
        return [pool.submit(_compile, config, name).result() for name in names]


def _names(config: MemoryConfig) -> list[str]:
    return [program.name for program in _programs(config, _mesh(config))]


def _mesh(config: MemoryConfig) -> "Mesh":
    """Of the GPUs of one host, which are only described."""
    from jax.experimental import topologies

    from onethinker_jax.model.sharding import make_mesh

    shape = f"1x1x{config.mesh.size}"
    described = topologies.get_topology_desc(
        platform="cuda", topology_name=shape, topology=shape, target_config=TARGETS[config.gpu].target()
    )
    return make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices=described.devices)


def _programs(config: MemoryConfig, mesh: "Mesh") -> "list[Program]":
    import jax

    from onethinker_jax.train.plan_programs import plan_programs
    from onethinker_jax.train.policy import planned_sizes

    with jax.set_mesh(mesh):
        return plan_programs(config, planned_sizes(config.model), mesh, everything=True)


def _compile(config: MemoryConfig, name: str) -> Compiled:
    import jax

    from onethinker_jax.train.cost.program_cost import count_flops, device_bytes
    from onethinker_jax.train.plan import scaled

    mesh, chip = _mesh(config), TARGETS[config.gpu].chip
    (program,) = (one for one in _programs(config, mesh) if one.name == name)

    def gib(kinds: dict[str, Any]) -> dict[str, float]:
        return {kind: device_bytes(tree) / GIB for kind, tree in kinds.items() if tree is not None}

    began = time.perf_counter()
    with jax.set_mesh(mesh):
        traced = program.function.trace(*program.arguments.values())  # type: ignore[attr-defined]
        analysis: Any = traced.lower().compile().memory_analysis()
    seconds = time.perf_counter() - began
    arguments = gib(program.arguments)
    flops = sum(scaled(count_flops(traced.jaxpr.jaxpr, trips=program.trips), config).values()) / mesh.size
    read = sum(arguments.values()) * GIB * program.trips
    return Compiled(
        name,
        arguments,
        (analysis.output_size_in_bytes - analysis.alias_size_in_bytes) / GIB,
        (analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes) / GIB,
        gib(program.resident),
        max(flops / chip.flops, read / chip.hbm_bandwidth),
        program.runs,
        seconds,
    )


def _fits(one: Compiled, gpu: str) -> bool:
    return one.total * GIB <= (1 - MARGIN) * TARGETS[gpu].chip.hbm


def describe(config: MemoryConfig, programs: Sequence[Compiled]) -> str:
    """A table of the programs' memory in Markdown, and the least time of a step."""
    chip, mesh = TARGETS[config.gpu].chip, config.mesh
    lines = [
        f"### {config.name} on {mesh.size} x {chip.name}",
        "",
        f"Mesh data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}. GiB of one GPU, of {chip.hbm / GIB:.1f}; "
        f"{MARGIN:.0%} are to stay free.",
        "",
        "| program | total | free | temporaries | outputs | arguments | beside it | compiled in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in programs:
        free = 1 - one.total * GIB / chip.hbm
        lines.append(
            f"| {one.name} | **{one.total:.1f}** | {free:.0%}{'' if _fits(one, config.gpu) else ', does not fit'} | "
            f"{one.temporaries:.1f} | {one.outputs:.1f} | {_kinds(one.arguments)} | {_kinds(one.beside)} | "
            f"{one.seconds:.0f} s |"
        )
    for stage in ("SFT", "RL"):
        own = [one for one in programs if one.name.startswith(stage)]
        if own and not config.only:
            least = sum(one.least * one.runs for one in own)
            lines += ["", f"{stage} step, every length at its limit: at least {least:.3g} s."]
    return "\n".join(lines) + "\n"


def _kinds(sizes: dict[str, float]) -> str:
    return ", ".join(f"{kind} {size:.1f}" for kind, size in sizes.items() if size >= 0.05)


def _into_page(reports: Sequence[tuple[MemoryConfig, list[Compiled]]]) -> None:
    """A row a preset and GPU, then the tables, between the page's markers."""
    rows = [
        "| preset | GPUs | fits | largest program | GiB of a GPU | of | step at least |",
        "|---" * 7 + "|",
    ]
    for config, programs in reports:
        chip, largest = TARGETS[config.gpu].chip, max(programs, key=lambda one: one.total)
        step = sum(one.least * one.runs for one in programs if not one.name.startswith("held-out"))
        fits = "yes" if all(_fits(one, config.gpu) for one in programs) else "no"
        rows.append(
            f"| {config.name} | {config.mesh.size} x {chip.name} | {fits} | {largest.name} | {largest.total:.1f} | "
            f"{chip.hbm / GIB:.1f} | {step:.3g} s |"
        )
    summary = "\n".join(rows)
    tables = "\n".join(describe(config, programs) for config, programs in reports)
    head, _, tail = re.split(f"{BEGIN}|{END}", PAGE.read_text())
    PAGE.write_text(f"{head}{BEGIN}\n{summary}\n\n{tables}{END}{tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
