"""Plans every preset of the family for its slice and puts the reports into docs/plan.md, between the markers.

    python docs/plan_presets.py [PRESET ...]      # all of them by default; minutes each

The page is written after each preset: an interrupted run loses one. Exit status 1 when one does not fit.
"""

import re
import subprocess
import sys
from pathlib import Path

from onethinker_jax.train.config.presets_qwen3_vl import SLICES

PAGE = Path(__file__).parent / "plan.md"
BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"
SUMMARY, SUMMARY_END = "<!-- summary: begin -->", "<!-- summary: end -->"


def main(names: list[str]) -> int:
    """Plans the presets named, or all; returns the exit status."""
    slices = {preset.__name__: topology for preset, topology in SLICES.items()}
    if unknown := [name for name in names if name not in slices]:
        sys.stderr.write(f"error: unknown preset {unknown[0]!r}; there are: {', '.join(slices)}\n")
        return 2
    failed = 0
    for name in names or slices:
        command = [sys.executable, "-m", "onethinker_jax.train.plan", name, "--topology", slices[name]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        failed |= done.returncode
        if done.stdout:
            _put(
                name,
                f"    python -m onethinker_jax.train.plan {name} --topology {slices[name]}\n\n{done.stdout}",
            )
    return 1 if failed else 0


def _put(name: str, report: str) -> None:
    """Into the page: in the place of this preset's older report, or after the others; and into the summary."""
    head, body, tail = re.split(f"{BEGIN}|{END}", PAGE.read_text())
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    block = f"{begin}{report}{end}"
    if begin in body:
        before, rest = body.split(begin)
        body = before + block + rest.split(end)[1]
    else:
        body = f"{body}{block}\n"
    above, _, below = re.split(f"{SUMMARY}|{SUMMARY_END}", head)
    head = f"{above}{SUMMARY}\n{_summary(body)}{SUMMARY_END}{below}"
    PAGE.write_text(f"{head}{BEGIN}{body}{END}{tail}")


def _summary(reports: str) -> str:
    """A row a preset: its slice, whether it fits, its largest program's memory, and the limits of a step."""
    lines = [
        "| preset | slice | fits | GiB of a device, at most | of | step at least |",
        "|---|---|---|---|---|---|",
    ]
    for name, report in re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", reports, re.DOTALL):
        headings = re.findall(r"^### \w+ on ([\w:-]+).*: (.*)$", report, re.MULTILINE)
        rows = re.findall(r"^\| \*\*total\*\* of ([\d.]+) \|(.*)$", report, re.MULTILINE)
        largest = max(float(total) for _, row in rows for total in re.findall(r"\*\*([\d.]+)\*\*", row))
        times = re.findall(r"\*\*([\d.e+-]+) s\*\*", report)
        runs = [
            run
            for row in re.findall(r"^\| runs a step \|(.*)\|$", report, re.MULTILINE)
            for run in row.split("|")
        ]
        step = "-"  # where a program was refused
        if len(times) == len(runs):
            seconds = sum(float(time) * int(run) for time, run in zip(times, runs, strict=True))
            step = f"{seconds:.3g} s"
        fits = "yes" if all(verdict == "fits" for _, verdict in headings) else "no"
        lines.append(f"| {name} | {headings[0][0]} | {fits} | {largest:.1f} | {rows[0][0]} | {step} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
