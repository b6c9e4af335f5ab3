"""Plans every preset of the family for its slice and puts the reports into docs/plan.md, between the markers.

    python docs/plan_presets.py [PRESET ...]      # all of them by default; minutes each

The page is written after each preset: an interrupted run loses one.  Exit status 1 when one does not fit.
"""

import re
import subprocess
import sys
from pathlib import Path

from onethinker_jax.train.presets_qwen3_vl import SLICES

PAGE = Path(__file__).parent / "plan.md"
BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"


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
    """Into the page: in the place of this preset's older report, or after the others."""
    head, body, tail = re.split(f"{BEGIN}|{END}", PAGE.read_text())
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    block = f"{begin}{report}{end}"
    if begin in body:
        before, rest = body.split(begin)
        body = before + block + rest.split(end)[1]
    else:
        body = f"{body}{block}\n"
    PAGE.write_text(f"{head}{BEGIN}{body}{END}{tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
