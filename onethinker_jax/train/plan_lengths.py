"""What a plan says of the step at given lengths, in Markdown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onethinker_jax.train.cost.hardware import Chip

if TYPE_CHECKING:
    from onethinker_jax.train.plan import Report


def describe_expected(
    lengths: str, notes: Sequence[str], reports: Sequence["Report"], chip: Chip, *, only: str = ""
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
        row("least seconds", lambda r, _: f"{r.expected_seconds(chip):.3g}"),
        row("runs, mean of the steps", lambda _, expected: f"{expected.runs:,.1f}"),
    ]
    for stage in dict.fromkeys(report.program.name.split()[0] for report in known):
        own = [report for report in known if report.program.name.startswith(stage)]
        if only or any(r.traffic is None for r in reports if r.program.name.startswith(stage)):
            continue
        runs = [(report, report.program.expected) for report in own if report.program.expected is not None]
        seconds = sum(report.expected_seconds(chip) * expected.runs for report, expected in runs)
        useful = sum(report.expected_model_flops * expected.runs for report, expected in runs)
        facts = "; ".join(dict.fromkeys(expected.facts for _, expected in runs if expected.facts))
        lines += [
            "",
            f"{stage} step, expected at the given lengths: at least {seconds:.4g} s, MFU at most "
            f"{useful / chip.flops / seconds:.0%}: {facts}.",
        ]
    return "\n".join(["", *lines, ""])
