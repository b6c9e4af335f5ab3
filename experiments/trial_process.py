"""What a trial's own process does: it takes its cores, says everything into a log file, and is an ordinary run."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

from onethinker_jax.errors import UserError
from onethinker_jax.train.config.run import TrainConfig

KEPT_FROM = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
"""JAX's variable for the shortest compilation whose program is kept."""


def train(config: TrainConfig, cores: Sequence[int], log: Path) -> None:
    """`python -m onethinker_jax.train` with these settings, on these cores; ends the process with its exit status."""

    def run() -> None:
        from onethinker_jax.train.run import run

        run(config)

    in_process(run, cores, log)


def answer_heldout(config: TrainConfig, cores: Sequence[int], log: Path) -> None:
    """The held-out answers of the model that all trials start from, greedy and sampled, into the run's folder."""

    def run() -> None:
        from experiments.opened_run import opened
        from onethinker_jax.train.heldout import HeldOut

        with opened(config) as at:
            HeldOut(config, at.policy, at.ready.processor, at.ready.corpora.heldout, at.scorer, at.run).score(
                "fresh", at.params
            )

    in_process(run, cores, log)


def in_process(run: Callable[[], None], cores: Sequence[int], log: Path) -> None:
    """Runs on these cores alone, in a process group of its own, so that Ctrl-C in the terminal does not reach it.

    The process ends with the one that started it, after the checkpoint that a SIGTERM asks of a run.
    """
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.sched_setaffinity(0, cores)
    if KEPT_FROM not in os.environ:  # JAX is loaded by now, and has read its variables
        import jax

        # small programs are worth keeping too: every trial compiles the same ones
        jax.config.update(KEPT_FROM.lower(), 0.0)
    os.environ["COLUMNS"] = "140"
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        run()
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
