"""Compiles the programs of a plan, and counts what the compiler made of them."""

import re
import time
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from onethinker_jax.command_line import UsageError
from onethinker_jax.errors import first_line
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.attention_layout import run_flops
from onethinker_jax.train.cost.program_cost import count_flops, count_traffic, device_bytes
from onethinker_jax.train.plans.planned_program import Program
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.report import Compiled, Memory, Report
from onethinker_jax.train.policy import planned_sizes
from onethinker_jax.train.simulation.given_lengths import GivenLengths


def plan(
    config: TrainConfig, mesh: Mesh, *, only: str = "", lengths: GivenLengths | None = None
) -> list[Report]:
    """Compiles the preset's programs whose names match `only` for the mesh's devices; no array is made.

    Raises UsageError where none does; ShardingError, ConfigError or SettingError naming what cannot be; LengthsError
    where the lengths make no step.
    """
    with jax.set_mesh(mesh):
        pairs = program_pairs(config, mesh, only=only, lengths=lengths)
        return [compile_program(program, plain, mesh)[0] for program, plain in pairs]


def program_pairs(
    config: TrainConfig,
    mesh: Mesh,
    *,
    only: str = "",
    everything: bool = False,
    lengths: GivenLengths | None = None,
) -> list[tuple[Program, Program]]:
    """The programs whose names match `only`, and each without recomputation. The mesh must be the one in context.

    Raises UsageError where no name matches, and what `plan_programs` does.
    """
    sizes = planned_sizes(config.model)
    without_remat = replace(config, model=replace(config.model, remat="none"))
    programs = plan_programs(config, sizes, mesh, everything=everything, lengths=lengths)
    plain = plan_programs(without_remat, sizes, mesh, everything=everything)
    pairs = [pair for pair in zip(programs, plain, strict=True) if re.search(only, pair[0].name)]
    if not pairs:
        names = ", ".join(program.name for program in programs)
        raise UsageError(f"--only {only}: no program's name matches; there are: {names}")
    return pairs


def compile_program(program: Program, plain: Program, mesh: Mesh) -> tuple[Report, Any]:
    """What is known of a program, and its executable, None where the compiler refuses it: too much memory.

    `plain` is the same program without recomputation. The mesh must be the one in context.
    """
    compiled, executable = compile_counted(program, plain, mesh)
    return report_of(program, compiled, mesh), executable


def compile_counted(program: Program, plain: Program, mesh: Mesh) -> tuple[Compiled, Any]:
    """What `compile_program` finds out by tracing and compiling, and the executable."""
    began = time.perf_counter()
    traced = program.function.trace(*program.arguments.values())
    flops = count_flops(traced.jaxpr.jaxpr, trips=program.trips)
    unrepeated = plain.function.trace(*plain.arguments.values()).jaxpr.jaxpr
    model_flops = count_flops(unrepeated, trips=program.trips)
    try:
        executable = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        seconds = time.perf_counter() - began
        return Compiled(seconds, flops, model_flops, refusal=_refusal(error)), None
    seconds = time.perf_counter() - began
    analysis: Any = executable.memory_analysis()
    compiled = Compiled(
        seconds,
        flops,
        model_flops,
        analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        analysis.alias_size_in_bytes,
        analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes,
        count_traffic(executable.as_text(), trips=program.trips, hosts=_hosts(mesh)),
    )
    return compiled, executable


def report_of(program: Program, compiled: Compiled, mesh: Mesh) -> Report:
    """The report of a compiled program: its FLOPs by what lies in its rows, its memory with what lies beside it."""
    flops, model_flops = compiled.flops, compiled.model_flops
    kernels = "tpu" if mesh.devices.flat[0].platform == "tpu" else "gpu"
    computed, useful = run_flops(program.layout, flops, model_flops, kernels)
    counts: dict[str, Any] = {"flops": computed / mesh.size, "model_flops": useful / mesh.size}
    if (expected := program.expected) is not None:
        computed, useful = run_flops(expected.layout, flops, model_flops, kernels, others=expected.share)
        if expected.cache is not None:
            useful = sum(model_flops.values()) * expected.useful
        counts |= {
            "expected_flops": computed / mesh.size,
            "expected_model_flops": useful / mesh.size,
        }
    if compiled.refusal:
        return Report(program, compiled.seconds, refusal=compiled.refusal, **counts)
    memory = Memory(
        {kind: device_bytes(tree) for kind, tree in program.arguments.items() if tree is not None},
        compiled.outputs,
        compiled.aliased,
        compiled.temporaries,
        {kind: device_bytes(tree) for kind, tree in program.resident.items()},
    )
    return Report(program, compiled.seconds, memory=memory, traffic=compiled.traffic, **counts)


def _hosts(mesh: Mesh) -> list[int]:
    """The host of each device, where a network joins several; a TPU slice's links join its hosts, too."""
    devices = list(mesh.devices.flat)
    return [0 if device.platform == "tpu" else device.process_index for device in devices]


def _refusal(error: Exception) -> str:
    """`needs 34.60 GiB of 15.75 GiB` from the compiler's message."""
    text = str(error)
    found = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", text) or re.search(
        r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)", text
    )
    return f"needs {found[1]} GiB of {found[2]} GiB" if found else first_line(error)
