"""Ctrl-C while a stage trains: the step is finished and saved, then the run stops; a second Ctrl-C stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from onethinker_jax.train.log.log import RunLog


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def deferred_interrupt(log: RunLog) -> Iterator[Interrupt]:
    """Within the block the first SIGINT (or SIGTERM) is noted and announced; a second one raises KeyboardInterrupt."""
    interrupt = Interrupt()

    def note(number: int, frame: object) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True
        log.info("Stopping: finishing this step and saving a checkpoint …")

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
