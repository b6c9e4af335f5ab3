"""What a plan says of the step at given lengths, in Markdown."""

from collections.abc import Sequence
from typing import Any

from onethinker_jax.train.cost.hardware import Chip
from onethinker_jax.train.plans.report import Report


def expected_seconds(report: Report, chip: Chip) -> float:
    """Least time of one run at the given lengths."""
    assert report.traffic is not None
    assert report.memory is not None
    assert report.program.expected is not None
    expected, moved = report.program.expected, report.traffic.hbm
    if expected.cache is None:
        moved *= expected.share
    else:  # at full lengths every token reads the whole cache
        cache = report.memory.arguments["KV cache"] * report.program.trips
        moved -= cache * (1 - expected.cache)
    seconds = report.seconds(chip)
    links = [seconds[name] * expected.share for name in (chip.link, "network") if name in seconds]
    return max(report.expected_flops / chip.flops, moved / chip.hbm_bandwidth, *links)


def describe_expected(
    lengths: str, notes: Sequence[str], reports: Sequence[Report], chip: Chip, *, only: str = ""
) -> str:
    """The step at the given lengths in Markdown: each program's runs and time, and of each stage the sum."""
    known = [r for r in reports if r.traffic is not None and r.program.expected is not None]

    def row(name: str, value: Any) -> str:
        return f"| {name} | " + " | ".join(value(r, r.program.expected) for r in known) + " |"

    lines = [
        f"Given lengths: {'; '.join([lengths, *notes])}.",
        "",
        "| one run at the given lengths | " + " | ".join(report.program.name for report in known) + " |",
        "|---" * (len(known) + 1) + "|",
        row("TFLOP a device", lambda r, _: f"{r.expected_flops / 1e12:.4g}"),
        row("least seconds", lambda r, _: f"{expected_seconds(r, chip):.3g}"),
        row("runs, mean of the steps", lambda _, expected: f"{expected.runs:,.1f}"),
    ]
    for stage in dict.fromkeys(report.program.name.split()[0] for report in known):
        own = [report for report in known if report.program.name.startswith(stage)]
        if only or any(r.traffic is None for r in reports if r.program.name.startswith(stage)):
            continue
        runs = [(report, report.program.expected) for report in own if report.program.expected is not None]
        seconds = sum(expected_seconds(report, chip) * expected.runs for report, expected in runs)
        useful = sum(report.expected_model_flops * expected.runs for report, expected in runs)
        facts = "; ".join(dict.fromkeys(expected.facts for _, expected in runs if expected.facts))
        lines += [
            "",
            f"{stage} step, expected at the given lengths: at least {seconds:.4g} s, MFU at most "
            f"{useful / chip.flops / seconds:.0%}: {facts}.",
        ]
    return "\n".join(["", *lines, ""])
