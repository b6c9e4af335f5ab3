"""The trainer, which does as a test tells it once the first step of a stage is in the metrics.

python -m tests.train.at_a_step STAGE ACTION [PRESET] [--flags]

ACTION is a signal that it sends itself, such as SIGINT, or a file: it holds until that is there. With SIGTERM@save it
sends the signal while the stage's first checkpoint is being written.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onethinker_jax.train.__main__ import main
from onethinker_jax.train.log.log import RunLog, read_metrics
from onethinker_jax.train.open_run import Run
from tests.waiting import wait_until

stage, action, *arguments = sys.argv[1:]
name, _, moment = action.partition("@")
write, save, pending = RunLog.metrics, Run.save, [action]


def write_and_act(log: RunLog, step: int, values: Mapping[str, Any]) -> None:
    """As `RunLog.metrics`, then the action, once."""
    write(log, step, values)
    if pending and read_metrics(log.directory / "metrics.jsonl")[-1]["stage"] == stage:
        pending.clear()
        if action.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, action))
        else:
            wait_until(Path(action).exists)


def save_and_act(run: Run, number: int, state: Any, of: str, mine: Any, **more: Any) -> None:
    """As `Run.save`, which begins to write, then the signal, once."""
    save(run, number, state, of, mine, **more)
    if pending and of == stage:
        pending.clear()
        os.kill(os.getpid(), getattr(signal, name))


if moment == "save":
    Run.save = save_and_act  # type: ignore[method-assign]
else:
    RunLog.metrics = write_and_act  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main(arguments))
