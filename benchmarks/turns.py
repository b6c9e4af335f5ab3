"""Variants of one measurement, each in a process of its own, that take turns, and the table of what they took.

A benchmark starts itself once a variant (`--variant NAME --directory DIR`); the child answers rounds with its call.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Rows = dict[str, list[dict[str, float]]]  # variant -> what each round took


def answer_rounds(call: Callable[[int], dict[str, float]]) -> None:
    """The child: answers each line of standard input, a round's number, with what that round took."""
    loaded = largest_resident()
    for line in sys.stdin:
        began, busy = time.perf_counter(), time.process_time()
        found = call(int(line))
        row = found | {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - busy,
            "memory": largest_resident() - loaded,
        }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


def largest_resident() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def take_turns(module: str, names: Sequence[str], directory: Path, rounds: int) -> Rows:
    """What rounds 1 to `rounds` of each variant took; round 0, in which programs are compiled, is left out."""
    command = [sys.executable, "-m", module, *sys.argv[1:], "--directory", str(directory)]
    children = {
        name: subprocess.Popen(
            [*command, "--variant", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in names
    }
    found: Rows = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, process in children.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the process of {name} ended with status {process.wait()}")
            if number:
                found[name].append(json.loads(line))
    for process in children.values():
        process.communicate()
    return found


def print_table(title: str, found: Rows) -> None:
    """Medians over the rounds; `x` is how many times as fast as the last variant."""
    columns = ("seconds", "cpu_seconds", "tokens", "memory")
    sys.stdout.write(
        f"{title}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n"
        "| variant | seconds | tokens/s | x | CPU seconds | x | memory MiB |\n" + "|---" * 7 + "|\n"
    )
    middle = {
        name: {column: float(np.median([row[column] for row in rows])) for column in columns}
        for name, rows in found.items()
    }
    slow = middle[list(found)[-1]]
    for name, row in middle.items():
        cells = [
            name,
            f"{row['seconds']:.2f}",
            f"{row['tokens'] / row['seconds']:.0f}",
            f"{slow['seconds'] / row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{slow['cpu_seconds'] / row['cpu_seconds']:.2f}",
            f"{row['memory'] / 2**20:.0f}",
        ]
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
