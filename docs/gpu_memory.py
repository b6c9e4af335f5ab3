"""Compiles every device program of a preset for GPUs that are not there, and says what memory each needs.

    pip install '.[gpu-plan]'                                           # XLA's GPU compiler and ptxas; no GPU is needed
    python docs/gpu_memory.py qwen3_vl_2b_rl_gpu [--gpu a100] [--only decoding] [any flag of training]
    python docs/gpu_memory.py                                           # the GPU presets, into docs/plan.md

The number of GPUs is that of the preset's mesh. Exit status 0: every program leaves MARGIN of the memory free; 1: one
does not, or the compiler is missing; 2: a wrong name or flag.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onethinker_jax.command_line import UsageError
from onethinker_jax.train.__main__ import parse
from onethinker_jax.train.config.presets_gpu import GPU_PRESETS
from onethinker_jax.train.config.presets_lora import LORA_PRESETS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.gpu import TARGETS, GpuTopology
from onethinker_jax.train.cost.hardware import GIB, MARGIN

if TYPE_CHECKING:
    from onethinker_jax.train.plans.planned_program import Program

PAGE = Path(__file__).parent / "plan.md"
BEGIN, END = "<!-- gpus: begin -->", "<!-- gpus: end -->"
SUMMARY = (
    "| preset | GPUs | fits | largest program | GiB of a GPU | of | step at least |\n" + "|---" * 7 + "|\n"
)
NEW_LINE = "\n"
CHIPS = ("h100", "a100")  # of the page


@dataclass(frozen=True)
class MemoryConfig(TrainConfig):
    """What is to be compiled, and for which GPU."""

    gpu: Literal["h100", "a100", "h200", "b200"] = "h100"
    """The GPU to compile for."""
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

    @property
    def total(self) -> float:
        return sum(self.arguments.values()) + self.outputs + self.temporaries + sum(self.beside.values())


def main(arguments: Sequence[str]) -> int:
    """Compiles for the preset named, or for all GPU presets into the page; returns the exit status."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # before the first import of JAX: the GPUs are only described
    every = [[name, "--gpu", gpu] for gpu in CHIPS for name in (*GPU_PRESETS, *LORA_PRESETS)]
    fit = True
    try:
        wanted = [arguments] if arguments else every
        configs = [parse(one, MemoryConfig, prog="python docs/gpu_memory.py") for one in wanted]
        if importlib.util.find_spec("jax_cuda12_plugin") is None:
            sys.stderr.write("error: XLA's GPU compiler is not installed: pip install '.[gpu-plan]'\n")
            return 1
        for config in configs:
            programs = compile_all(config)
            fit = fit and all(_fits(one, config.gpu) for one in programs)
            if arguments:
                sys.stdout.write(describe(config, programs))
            else:
                _into_page(config, programs)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0 if fit else 1


def compile_all(config: MemoryConfig) -> list[Compiled]:
    """Every program whose name matches. Raises UsageError where none does."""
    import jax
    from jax.experimental import topologies

    from onethinker_jax.model.sharding import make_mesh
    from onethinker_jax.train.plans.programs import plan_programs
    from onethinker_jax.train.policy import planned_sizes

    host = GpuTopology(TARGETS[config.gpu], config.mesh.size, 1)
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name=host.xla_name,
        topology=host.xla_name,
        target_config=host.target.text(),
    )
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices=described.devices)
    with jax.set_mesh(mesh):
        programs = plan_programs(config, planned_sizes(config.model), mesh, everything=True)
        chosen = [program for program in programs if re.search(config.only, program.name)]
        if not chosen:
            names = ", ".join(program.name for program in programs)
            raise UsageError(f"--only {config.only}: no program's name matches; there are: {names}")
        return [_compile(program, config) for program in chosen]


def _compile(program: "Program", config: MemoryConfig) -> Compiled:
    from onethinker_jax.train.cost.program_cost import count_flops, device_bytes, of_pairs

    def gib(kinds: dict[str, Any]) -> dict[str, float]:
        return {kind: device_bytes(tree) / GIB for kind, tree in kinds.items() if tree is not None}

    chip = TARGETS[config.gpu].chip
    function: Any = program.function
    traced = function.trace(*program.arguments.values())
    analysis: Any = traced.lower().compile().memory_analysis()
    arguments = gib(program.arguments)
    shares = {} if program.layout is None else program.layout.shares("gpu")
    flops = sum(of_pairs(count_flops(traced.jaxpr.jaxpr, trips=program.trips), shares).values())
    read = sum(arguments.values()) * GIB * program.trips
    return Compiled(
        program.name,
        arguments,
        (analysis.output_size_in_bytes - analysis.alias_size_in_bytes) / GIB,
        (analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes) / GIB,
        gib(program.resident),
        max(flops / config.mesh.size / chip.flops, read / chip.hbm_bandwidth),
        program.runs,
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
        "| program | total | free | temporaries | outputs | arguments | beside it |",
        "|---" * 7 + "|",
    ]
    for one in programs:
        free = 1 - one.total * GIB / chip.hbm
        lines.append(
            f"| {one.name} | **{one.total:.1f}** | {free:.0%}{'' if _fits(one, config.gpu) else ', does not fit'} | "
            f"{one.temporaries:.1f} | {one.outputs:.1f} | {_kinds(one.arguments)} | {_kinds(one.beside)} |"
        )
    for stage in ("SFT", "RL"):
        own = [one for one in programs if one.name.startswith(stage)]
        if own and not config.only:
            least = sum(one.least * one.runs for one in own)
            lines += ["", f"{stage} step, every length at its limit: at least {least:.3g} s."]
    return "\n".join(lines) + "\n"


def _kinds(sizes: dict[str, float]) -> str:
    return ", ".join(f"{kind} {size:.1f}" for kind, size in sizes.items() if size >= 0.05)


def _into_page(config: MemoryConfig, programs: Sequence[Compiled]) -> None:
    """A row of the summary and the table, each in the place of an older one of this preset and GPU, or at the end."""
    chip, largest = TARGETS[config.gpu].chip, max(programs, key=lambda one: one.total)
    step = sum(one.least * one.runs for one in programs if not one.name.startswith("held-out"))
    fits = "yes" if all(_fits(one, config.gpu) for one in programs) else "no"
    row = (
        f"| {config.name} | {config.mesh.size} x {chip.name} | {fits} | {largest.name} | {largest.total:.1f} | "
        f"{chip.hbm / GIB:.1f} | {step:.3g} s |\n"
    )
    head, body, tail = re.split(f"{BEGIN}|{END}", PAGE.read_text())
    summary, *tables = re.split(r"^(?=### )", body, flags=re.MULTILINE)
    rows = _put(summary.strip("\n").splitlines(keepends=True)[2:], row, " | ".join(row.split(" | ")[:2]))
    table = describe(config, programs)
    tables = _put([one.strip("\n") + "\n" for one in tables], table, table.splitlines()[0] + "\n")
    PAGE.write_text(f"{head}{BEGIN}\n{SUMMARY}{''.join(rows)}{NEW_LINE}{NEW_LINE.join(tables)}{END}{tail}")


def _put(parts: list[str], part: str, beginning: str) -> list[str]:
    """`parts` with `part` in the place of the one with its `beginning`, or at the end."""
    parts = [one if one.endswith("\n") else one + "\n" for one in parts]
    kept = [part if one.startswith(beginning) else one for one in parts]
    return kept if part in kept else [*kept, part]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
