"""All that one GPU should show, in minutes: `python -m benchmarks.gpu`; one Markdown table is printed last.

    XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 python -m benchmarks.gpu [--minutes 8] [--only training] [--tiny]

Measured ceilings (products of bfloat16 matrices, memory); attention by the flash kernels, XLA and cuDNN, with their
agreement; training steps of 2B, 4B and 8B on packed rows with images; prefill; decoding; a whole RL step; and the same
by transformers, whose processes run by turns with ours, since only one of them can hold the GPU's memory. Weights are
random. Beside each figure stands what the plan's own count of the same compiled program takes at least, by the chip's
data sheet and by the measured ceilings.

What does not fit in `--minutes` is left out by name, what fails is a row that says so. `--tiny` runs every part at tiny
sizes on any device: a test does so, and says nothing about speed. docs/performance.md says how to read the table.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.gpu.cases import Case, run_of
from benchmarks.gpu.table import Row, Table, one_line
from benchmarks.gpu.worker import failed
from onethinker_jax.train.cost.hardware import chip_of


@dataclass
class Run:
    """A call of the script: its table, and how its children are started."""

    command: Sequence[str]
    environment: dict[str, str]
    deadline: float
    table: Table

    def take(self, cases: Sequence[tuple[int, Case]]) -> list[tuple[int, Case]]:
        """Runs the first cases, those of one library, in a child; returns the cases that are left."""
        library = cases[0][1].library
        mine = cases[: next((at for at, (_, one) in enumerate(cases) if one.library != library), len(cases))]
        others = list(cases[len(mine) :])
        platform = {"JAX_PLATFORMS": "cpu"} if library == "torch" else {}  # the GPU is torch's alone
        process = subprocess.Popen(
            [*self.command, *(str(number) for number, _ in mine), "--deadline", str(self.deadline)],
            stdout=subprocess.PIPE,
            text=True,
            env={**self.environment, **platform},
        )
        late = threading.Event()
        timer = threading.Timer(max(self.deadline - time.time(), 0), lambda: (late.set(), process.kill()))
        timer.start()
        try:
            ended = self._listen(process)
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        left = [(number, case) for number, case in mine if number not in ended]
        if late.is_set():
            for _, case in left:
                self.add(failed(case, "left out: the minutes were over"))
            return others
        if left:
            reason = f"its process ended with status {process.returncode}; the console says why"
            self.add(failed(left[0][1], reason))
        return [*left[1:], *others]

    def _listen(self, process: subprocess.Popen[str]) -> set[int]:
        """Takes in what a child says; returns the numbers of the cases that it is through with."""
        assert process.stdout is not None
        ended = set()
        for line in process.stdout:
            ((kind, value),) = json.loads(line).items()
            if kind == "row":
                self.add(Row.from_json(value))
            elif kind == "end":
                ended.add(value)
            elif kind == "device":
                name, description = value
                self.table.ceilings = replace(
                    self.table.ceilings, chip=chip_of(name) or self.table.ceilings.chip
                )
                self.table.devices[description] = None
        process.wait()
        return ended

    def add(self, row: Row) -> None:
        """Adds a row to the table, and shows it."""
        sys.stderr.write(one_line(self.table.add(row)) + "\n")
        sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Speed of every part on one GPU, beside plan and transformers."
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="what does not fit in is left out by name")
    parser.add_argument("--only", default="", help="the cases whose names match this regular expression")
    parser.add_argument("--tiny", action="store_true", help="every part at tiny sizes, on any device")
    options = parser.parse_args(arguments)
    tiny = ["--tiny"] if options.tiny else []
    command = [sys.executable, "-m", "benchmarks.gpu.worker", *tiny]
    cases = [
        (n, case)
        for n, case in enumerate(run_of(tiny=options.tiny).cases)
        if re.search(options.only, case.name)
    ]
    if not cases:
        parser.error(f"--only {options.only}: no case's name matches")
    with tempfile.TemporaryDirectory() as compilations:
        defaults = {
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
            "JAX_COMPILATION_CACHE_DIR": compilations,  # a child that takes over after another finds its programs
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        }
        deadline = time.time() + 60 * options.minutes
        run = Run(command, {**defaults, **os.environ}, deadline, Table())
        try:
            while cases:
                cases = run.take(cases)
        finally:  # also after Ctrl-C
            sys.stdout.write(run.table.document())
    return 0 if any(row.seconds for row in run.table.rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
