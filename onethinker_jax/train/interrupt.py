"""Ctrl-C while a stage trains: the step is finished and saved, then the run stops; a second Ctrl-C stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onethinker_jax.train.log.log import RunLog

STOP_GRACE_S = 10.0
"""How long a stop lets the step that it finishes wait for scores."""


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def deferred_interrupt(log: RunLog, *, give_up: Callable[[], None] = lambda: None) -> Iterator[Interrupt]:
    """Within the block the first SIGINT (or SIGTERM) is noted and announced; a second one raises KeyboardInterrupt.

    `give_up` ends what the step may wait for without end, such as scores: it is called `STOP_GRACE_S` seconds after
    the first signal, or by the second.
    """
    interrupt = Interrupt()
    grace = threading.Timer(STOP_GRACE_S, give_up)
    grace.daemon = True

    def note(number: int, frame: object) -> None:
        if interrupt.requested:
            give_up()
            raise KeyboardInterrupt
        interrupt.requested = True
        log.info("Stopping: finishing this step and saving a checkpoint …")
        grace.start()

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        grace.cancel()
