"""The trainer, a part of which comes to no end.

python -m tests.train.health.stalled WHAT [PRESET] [--flags]

WHAT is rollout: the sampler of RL gives no sample any more from the fourth step on; answers: the held-out records are
answered once, and the second time not to the end; or export.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from onethinker_jax.train import heldout, run
from onethinker_jax.train.__main__ import main
from onethinker_jax.train.health.watchdog import KNOWN_AFTER
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.rl import dynamic_sampling

roll_out, evaluate, watchdog, counts = dynamic_sampling.roll_out, heldout.evaluate, Run.watchdog, {"calls": 0}


def hold(*_: Any, **__: Any) -> Any:
    """Never returns."""
    threading.Event().wait()


class Stalled:
    """A sampler that never comes to an end."""

    def parts(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield hold()


def stalling_rollouts(
    params: Any, stream: Any, count: int, sampler: Any, *arguments: Any, **options: Any
) -> Any:
    """As `roll_out`, three times."""
    counts["calls"] += 1
    chosen: Any = sampler if counts["calls"] < 4 else Stalled()
    return roll_out(params, stream, count, chosen, *arguments, **options)


def stalling_answers(*arguments: Any, tell: Callable[[int], None], **options: Any) -> Any:
    """As `evaluate`; the second time it tells no more once a beat was neither the first nor the second."""
    counts["calls"] += 1
    told = []

    def tell_and_hold(done: int) -> None:
        tell(done)
        told.append(done)
        if counts["calls"] == 2 and len(told) > KNOWN_AFTER:
            hold()

    return evaluate(*arguments, tell=tell_and_hold, **options)


def impatient(opened: Run, of: str, **options: Any) -> Any:
    """As `Run.watchdog`; to the export it gives one second."""
    health = replace(opened.health, first_step_timeout_seconds=1.0) if of == "export" else opened.health
    return watchdog(replace(opened, health=health), of, **options)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "rollout":
        dynamic_sampling.roll_out = stalling_rollouts
    elif what == "answers":
        heldout.evaluate = stalling_answers
    else:
        run.export_model, Run.watchdog = hold, impatient  # type: ignore[method-assign]
    sys.exit(main(arguments))
