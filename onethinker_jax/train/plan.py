"""python -m onethinker_jax.train.plan PRESET --topology v5p-32 [--flags]: does it fit, and how fast could it be?

Compiles the preset's device programs for a TPU slice or a GPU host (h200x8), on a machine without one, and reports
memory, FLOPs, bytes moved, collectives and a roofline estimate (docs/plan.md). Without --topology it reports for the
GPUs present; --only sampling (or RL, or "gradients|update") compiles the programs whose names match.

Exit status: 0 it fits, 1 it does not or cannot be planned (one line says why), 2 an unknown preset or flag.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import importlib.util
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from onethinker_jax.command_line import UsageError
from onethinker_jax.train.__main__ import parse
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.gpu import GpuTopology, is_gpu, parse_gpu_topology
from onethinker_jax.train.cost.hardware import GIB, GPUS, Chip, Topology, TopologyError, parse_topology

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from onethinker_jax.train.cost.program_cost import Traffic
    from onethinker_jax.train.plans.planned_program import Program
    from onethinker_jax.train.simulation.given_lengths import GivenLengths


@dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """What is to be planned, and for which devices."""

    topology: str | None = None
    """What to compile for: a TPU slice (v5p-32, v6e:4x8), GPUs of a host (h200x8) or of two (h200x8x2); by default the
    GPUs that are present."""
    only: str = ""
    """Compiles the programs whose names match this regular expression, such as sampling or RL."""
    lengths: str | None = None
    """Also report the step at these lengths: a file of them (such as a run's lengths.jsonl), or stated distributions,
    such as prompt=1200,response=lognormal:600:0.8."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device: arguments by kind, what the program adds, what else lies there meanwhile."""

    arguments: dict[str, float]
    outputs: float  # beyond those that take an argument's place
    aliased: float
    temporaries: float
    resident: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes that the program and what stays beside it need; aliased outputs lie in arguments."""
        kinds = (self.arguments, self.resident)
        return sum(sum(kind.values()) for kind in kinds) + self.outputs + self.temporaries


@dataclass(frozen=True)
class Report:
    """What is known of one compiled program; `refusal` is the compiler's, when it needs too much memory."""

    program: "Program"
    seconds_to_compile: float
    flops: float  # of one device and run
    model_flops: float  # the same without recomputation
    memory: Memory | None = None
    traffic: "Traffic | None" = None
    refusal: str = ""
    expected_flops: float = 0.0  # of a run at the given lengths
    expected_model_flops: float = 0.0

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Least time of one run by what limits it."""
        assert self.traffic is not None
        seconds = {
            "compute": self.flops / chip.flops,
            "HBM": self.traffic.hbm / chip.hbm_bandwidth,
            chip.link: sum(self.traffic.wire.values()) / chip.link_bandwidth,
        }
        if self.traffic.network:
            seconds["network"] = self.traffic.network / chip.network
        return seconds

    def fits(self, chip: Chip) -> bool:
        """Whether the compiler took the program and its total is within the chip's usable HBM."""
        return self.memory is not None and self.memory.total <= (1 - chip.margin) * chip.hbm


def run(config: PlanConfig) -> int:
    """Compiles and reports; returns 0 where all fits, else 1."""
    command_line.interrupts_end_at_once("stopped")  # the compiler does not come back before it is done
    os.environ.setdefault("USE_TORCH", "0")
    if config.topology is not None:  # before the first import of JAX: the slice's devices are only described
        os.environ["JAX_PLATFORMS"] = "cpu"
    lengths = None
    if config.lengths is not None:
        from onethinker_jax.train.simulation.expected_step import largest_sizes
        from onethinker_jax.train.simulation.given_lengths import given_lengths

        lengths = given_lengths(config.lengths, largest_sizes(config))
    chip, mesh = _target(config, config.topology)
    reports = plan(config, mesh, only=config.only, lengths=lengths)
    sys.stdout.write(describe(config, chip, mesh, reports, config.topology, only=config.only))
    if lengths is not None:
        from onethinker_jax.train.plans.lengths import describe_expected

        sys.stdout.write(
            describe_expected(config.lengths or "", lengths.notes, reports, chip, only=config.only)
        )
    return 0 if all(report.fits(chip) for report in reports) else 1


def _target(config: TrainConfig, topology: str | None) -> tuple[Chip, "Mesh"]:
    """The chip and the mesh to compile for. Raises TopologyError or ShardingError."""
    import jax

    from onethinker_jax.model.sharding import make_mesh

    shape = (config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    if topology is None:
        device = jax.devices()[0]
        if device.platform != "gpu":
            raise TopologyError(
                "there is no GPU here; name a TPU slice or a GPU host: --topology v5p-32, --topology h200x8"
            )
        chip = GPUS.get(device.device_kind)
        if chip is None:
            raise TopologyError(f"unknown GPU {device.device_kind!r}; known are {', '.join(GPUS)}")
        return chip, make_mesh(*shape)
    described = parse_gpu_topology(topology) if is_gpu(topology) else parse_topology(topology)
    if config.mesh.size != described.devices:
        raise TopologyError(
            f"{topology} has {described.devices} devices; mesh data={config.mesh.data} fsdp={config.mesh.fsdp} "
            f"tensor={config.mesh.tensor} has {config.mesh.size}"
        )
    return described.chip, make_mesh(*shape, devices=_described_devices(described))


def _described_devices(topology: Topology | GpuTopology) -> Sequence[Any]:
    """Devices that are not there, as the compiler for them describes them. Raises TopologyError without a compiler."""
    import jax
    from jax.experimental import topologies

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
        raise TopologyError(f"libtpu does not know {topology.libtpu_name}: {_first_line(error)}") from None


def plan(
    config: TrainConfig, mesh: "Mesh", *, only: str = "", lengths: "GivenLengths | None" = None
) -> list[Report]:
    """Compiles the preset's programs whose names match `only` for the mesh's devices; no array is made.

    Raises UsageError where none does; ShardingError, ConfigError or SettingError naming what cannot be; LengthsError
    where the lengths make no step.
    """
    import jax

    from onethinker_jax.train.plans.programs import plan_programs
    from onethinker_jax.train.policy import planned_sizes

    sizes = planned_sizes(config.model)
    without_remat = replace(config, model=replace(config.model, remat="none"))
    with jax.set_mesh(mesh):
        programs = plan_programs(config, sizes, mesh, lengths=lengths)
        pairs = [
            (program, plain)
            for program, plain in zip(programs, plan_programs(without_remat, sizes, mesh), strict=True)
            if re.search(only, program.name)
        ]
        if not pairs:
            names = ", ".join(program.name for program in programs)
            raise UsageError(f"--only {only}: no program's name matches; there are: {names}")
        return [compile_program(program, plain, mesh)[0] for program, plain in pairs]


def compile_program(program: "Program", plain: "Program", mesh: "Mesh") -> tuple[Report, Any]:
    """What is known of a program, and its executable, None where the compiler refuses it: too much memory.

    `plain` is the same program without recomputation. The mesh must be the one in context.
    """
    import jax

    from onethinker_jax.train.cost.attention_layout import run_flops
    from onethinker_jax.train.cost.program_cost import count_flops, count_traffic, device_bytes

    began = time.perf_counter()
    traced = program.function.trace(*program.arguments.values())
    flops = count_flops(traced.jaxpr.jaxpr, trips=program.trips)
    unrepeated = plain.function.trace(*plain.arguments.values()).jaxpr.jaxpr
    model_flops = count_flops(unrepeated, trips=program.trips)
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
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Report(program, time.perf_counter() - began, refusal=_refusal(error), **counts), None
    seconds = time.perf_counter() - began
    analysis: Any = compiled.memory_analysis()
    memory = Memory(
        {kind: device_bytes(tree) for kind, tree in program.arguments.items() if tree is not None},
        analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        analysis.alias_size_in_bytes,
        analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes,
        {kind: device_bytes(tree) for kind, tree in program.resident.items()},
    )
    traffic = count_traffic(compiled.as_text(), trips=program.trips, hosts=_hosts(mesh))
    return Report(program, seconds, memory=memory, traffic=traffic, **counts), compiled


def _hosts(mesh: "Mesh") -> list[int]:
    """The host of each device, where a network joins several; a TPU slice's links join its hosts, too."""
    devices = list(mesh.devices.flat)
    return [0 if device.platform == "tpu" else device.process_index for device in devices]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _refusal(error: Exception) -> str:
    """`needs 34.60 GiB of 15.75 GiB` from the compiler's message."""
    text = str(error)
    found = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", text) or re.search(
        r"\(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)", text
    )
    return f"needs {found[1]} GiB of {found[2]} GiB" if found else _first_line(error)


def describe(
    config: TrainConfig,
    chip: Chip,
    mesh: "Mesh",
    reports: Sequence[Report],
    topology: str | None,
    *,
    only: str = "",
) -> str:
    """The report in Markdown; without the sums of a step where `only` some programs are there."""
    where = topology or f"{mesh.size} x {chip.name}"
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    fits = all(report.fits(chip) for report in reports)
    model = config.model
    lines = [
        f"### {config.name} on {where}{only and f', only {only}'}: {'fits' if fits else 'does not fit'}",
        "",
        f"{mesh.size} devices, mesh {shape}; {chip.name}: {chip.hbm / GIB:.2f} GiB, "
        f"{chip.flops / 1e12:.0f} TFLOP/s, HBM {chip.hbm_bandwidth / 1e9:.0f} GB/s, {_links(chip)}. "
        f"Computes in {model.compute_dtype}, weights {model.master_dtype}, remat {model.remat}.",
        "",
        "| GiB a device | " + " | ".join(report.program.name for report in reports) + " |",
        "|---" * (len(reports) + 1) + "|",
        *_memory_rows(reports, chip),
        "",
        "| one run | " + " | ".join(report.program.name for report in reports) + " |",
        "|---" * (len(reports) + 1) + "|",
        *_cost_rows(reports, chip),
        "",
        *([] if only else _step_lines(reports, chip)),
    ]
    return "\n".join(lines) + "\n"


def _links(chip: Chip) -> str:
    speed = f"{chip.link} {chip.link_bandwidth / 1e9:.0f} GB/s"
    return f"{speed}, network {chip.network / 1e9:.0f} GB/s a GPU" if chip.network else f"{speed} an axis"


def _memory_rows(reports: Sequence[Report], chip: Chip) -> list[str]:
    kinds = {kind: None for r in reports if r.memory for kind in r.memory.arguments}
    beside = {kind: None for r in reports if r.memory for kind in r.memory.resident}

    def row(name: str, value: Any) -> str:
        cells = ("-" if r.memory is None else value(r.memory) for r in reports)
        return (
            f"| {name} | " + " | ".join(c if isinstance(c, str) else f"{c / GIB:.2f}" for c in cells) + " |"
        )

    rows = [row(f"arguments: {kind}", lambda m, k=kind: m.arguments.get(k, "")) for kind in kinds]
    rows += [
        row("outputs", lambda m: m.outputs),
        row("aliased (outputs in the place of arguments)", lambda m: m.aliased),
        row("temporaries", lambda m: m.temporaries),
    ]
    rows += [row(f"beside it: {kind}", lambda m, k=kind: m.resident.get(k, "")) for kind in beside]
    totals = (r.refusal if r.memory is None else f"**{r.memory.total / GIB:.2f}**" for r in reports)
    verdicts = ("fits" if r.fits(chip) else "does not fit" for r in reports)
    free = f", {chip.margin:.0%} to stay free" if chip.margin else ""
    rows.append(f"| **total** of {chip.hbm / GIB:.2f}{free} | " + " | ".join(totals) + " |")
    return [*rows, "| | " + " | ".join(verdicts) + " |"]


def _cost_rows(reports: Sequence[Report], chip: Chip) -> list[str]:
    def row(name: str, value: Any, *, needs_program: bool = True) -> str:
        cells = ("-" if needs_program and r.traffic is None else value(r) for r in reports)
        return f"| {name} | " + " | ".join(cells) + " |"

    def limit(report: Report) -> str:
        seconds = report.seconds(chip)
        worst = max(seconds, key=lambda name: seconds[name])
        return f"**{seconds[worst]:.3g} s** ({worst})"

    def mfu(report: Report) -> str:
        slowest = max(report.seconds(chip).values())
        return f"{report.model_flops / chip.flops / slowest:.0%}" if report.model_flops else ""

    kinds = sorted({kind for r in reports if r.traffic for kind in r.traffic.wire})
    rows = [
        row("TFLOP a device", lambda r: f"{r.flops / 1e12:.4g}", needs_program=False),
        row("without recomputation", lambda r: f"{r.model_flops / 1e12:.4g}", needs_program=False),
        row("HBM bytes moved, GB", lambda r: f"{r.traffic.hbm / 1e9:.4g}"),
    ]
    rows += [
        row(
            f"{kind}: calls, GB sent",
            lambda r, k=kind: f"{r.traffic.calls[k]:,}, {r.traffic.wire[k] / 1e9:.4g}",
        )
        for kind in kinds
    ]
    limits = ["compute", "HBM", chip.link]
    if any(r.traffic and r.traffic.network for r in reports):
        limits.append("network")
        rows.append(row("GB sent to other hosts", lambda r: f"{r.traffic.network / 1e9:.4g}"))
    for name in limits:
        rows.append(row(f"least seconds: {name}", lambda r, n=name: f"{r.seconds(chip).get(n, 0.0):.3g}"))
    return [
        *rows,
        row("**least time**", limit),
        row("MFU at that", mfu),
        row("runs a step", lambda r: str(r.program.runs), needs_program=False),
        row("seconds to compile", lambda r: f"{r.seconds_to_compile:.0f}", needs_program=False),
    ]


def _step_lines(reports: Sequence[Report], chip: Chip) -> list[str]:
    """A whole step of each stage, all of its programs' runs one after another."""
    lines = []
    for stage in dict.fromkeys(report.program.name.split()[0] for report in reports):
        own = [report for report in reports if report.program.name.startswith(stage)]
        if any(report.traffic is None for report in own):
            continue
        seconds = sum(max(r.seconds(chip).values()) * r.program.runs for r in own)
        useful = sum(r.model_flops * r.program.runs for r in own)
        lines.append(
            f"{stage} step, every length at its limit: at least {seconds:.4g} s, MFU at most "
            f"{useful / chip.flops / seconds:.0%}."
        )
    return lines


main = partial(
    command_line.main, partial(parse, settings=PlanConfig, prog="python -m onethinker_jax.train.plan"), run
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
