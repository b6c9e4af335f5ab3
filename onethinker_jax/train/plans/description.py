"""A plan's report in Markdown."""

from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.hardware import GIB, Chip
from onethinker_jax.train.plans.report import Report


def describe(
    config: TrainConfig,
    chip: Chip,
    mesh: Mesh,
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
