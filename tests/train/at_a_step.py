"""The trainer, which does as a test tells it once the first step of a stage is in the metrics.

python -m tests.train.at_a_step STAGE ACTION [PRESET] [--flags]

ACTION is a signal that it sends itself, such as SIGINT, or a file: it holds until that is there. With SIGTERM@save it
sends the signal while the stage's first checkpoint is being written, and with SIGTERM@update twice when the updates of
the second step of RL begin, which cuts them: it goes on once all processes know where.
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
from onethinker_jax.train.stopping.notice import Notice
from tests.waiting import wait_until

stage, action, *arguments = sys.argv[1:]
name, _, moment = action.partition("@")
write, save, cut_agreed, pending = RunLog.metrics, Run.save, Notice.cut_agreed, [action]


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


def cut_agreed_and_act(notice: Notice, processes: Any) -> bool:
    """As `Notice.cut_agreed`, in the second step behind the signals."""
    deferred = notice._deferred
    assert deferred is not None
    if pending and read_metrics(deferred.log.directory / "metrics.jsonl")[-1]["stage"] == stage:
        pending.clear()
        for _ in range(2):
            os.kill(os.getpid(), getattr(signal, name))
        wait_until(notice.cut.is_set)
        wait_until(lambda: notice._peers is None or notice._peers._last is not None)
    return cut_agreed(notice, processes)


if moment == "save":
    Run.save = save_and_act  # type: ignore[method-assign]
elif moment == "update":
    Notice.cut_agreed = cut_agreed_and_act  # type: ignore[method-assign]
else:
    RunLog.metrics = write_and_act  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main(arguments))
