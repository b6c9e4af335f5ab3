"""A child: runs cases of one library in turn, and tells the parent each row as soon as it is measured.

What a case raises for want of memory, or because a kernel does not take its sizes, is a row of its own, and the next
case goes on; anything else ends this process with its traceback, and the parent starts another one for the rest.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from benchmarks.gpu.cases import Case, run_of
from benchmarks.gpu.table import Row


class Device(Protocol):
    """A library's side: `ours.Ours` or `peer.Peer`."""

    kind: str
    description: str

    def measure(self, case: Case) -> Iterator[Row]: ...

    def clear(self) -> None: ...


class Parent:
    """What the child says: lines of JSON on what was its standard output; what libraries print goes to the console."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, kind: str, value: object) -> None:
        self._out.write(json.dumps({kind: value}) + "\n")
        self._out.flush()


def failed(case: Case, reason: str) -> Row:
    """A row that says why a case has no figures."""
    form = "ours" if case.library == "jax" else f"transformers, {case.kind}"
    return Row(case.part, case.size, form, notes=" ".join(reason.split()).replace("|", "/")[:300])


def too_late(case: Case, deadline: float) -> Row | None:
    """The row of a case that would not end before the deadline."""
    left = max(deadline - time.time(), 0)
    if case.seconds <= left and left:
        return None
    return failed(case, f"left out: may take {case.seconds:.0f} s, {left:.0f} s are left")


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs some cases; started by benchmarks.gpu.")
    parser.add_argument("cases", type=int, nargs="+")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--deadline", type=float, required=True)
    arguments = parser.parse_args()
    parent, run = Parent(), run_of(tiny=arguments.tiny)
    cases = [run.cases[number] for number in arguments.cases]
    if cases[0].library == "jax":
        from benchmarks.gpu.ours import Ours

        device: Device = Ours(run.scale, cases)
    else:
        if reason := no_peer(tiny=arguments.tiny):
            for number, case in zip(arguments.cases, cases, strict=True):
                parent.say("row", failed(case, f"left out: {reason}").to_json())
                parent.say("end", number)
            return 0
        from benchmarks.gpu.peer import Peer

        device = Peer(run.scale)
    parent.say("device", [device.kind, device.description])
    for number, case in zip(arguments.cases, cases, strict=True):
        parent.say("begin", number)
        for row in rows(device, case, arguments.deadline):
            parent.say("row", row.to_json())
        parent.say("end", number)
    return 0


def no_peer(*, tiny: bool) -> str:
    """Why transformers cannot be measured here; empty where it can."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    import torch

    return "" if tiny or torch.cuda.is_available() else "torch sees no GPU"


def rows(device: Device, case: Case, deadline: float) -> Iterator[Row]:
    """What a case measures, or why it does not."""
    if late := too_late(case, deadline):
        yield late
        return
    try:
        yield from device.measure(case)
    except (RuntimeError, ValueError) as error:  # also JAX's own errors, and torch's want of memory
        device.clear()
        yield failed(case, f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
