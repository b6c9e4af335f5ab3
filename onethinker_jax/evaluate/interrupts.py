"""Ctrl-C is heard at any moment: also while a library computes or compiles for minutes, and Python cannot raise.

Everything that an evaluation keeps is on disk as whole lines, so that it can end at any point. A thread hears the
signal itself; it lets Python end the work in order, and ends the process where that takes longer than a moment.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from onethinker_jax.command_line import INTERRUPTED

GRACE_SECONDS = 1.0
"""How long the work may take to end in order."""


class Interrupts:
    """What is said when Ctrl-C ends the work."""

    def __init__(self) -> None:
        self.kept: Callable[[], str] = lambda: "no answer is kept"
        """How many answers are kept, and where."""
        self.again = "the same command"
        """What goes on."""

    def said(self) -> str:
        """The line's end, after "stopped; "."""
        return f"{self.kept()}; {self.again} goes on"


@contextmanager
def heard(interrupts: Interrupts, grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Within the block SIGINT raises KeyboardInterrupt, or ends the process with status 130 after `grace` seconds.

    Does nothing outside the main thread, or where SIGINT is ignored (a job in the background).
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) in (
        signal.SIG_IGN,
        None,
    ):
        yield
        return
    heard_at, said_at = os.pipe()
    os.set_blocking(said_at, False)
    ended = threading.Event()
    before = signal.set_wakeup_fd(said_at, warn_on_full_buffer=False)
    hook = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        """Python drops what is raised in a callback of the garbage collector: the thread ends the process then."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)

    sys.unraisablehook = unraisable

    def watch() -> None:
        while byte := os.read(heard_at, 1):
            if byte[0] == signal.SIGINT:
                break
        if byte and not ended.wait(grace):
            with suppress(OSError):
                os.write(2, f"stopped; {interrupts.said()}\n".encode())
            os._exit(INTERRUPTED)

    thread = threading.Thread(target=watch, name="interrupts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        sys.unraisablehook = hook
        os.close(said_at)
        thread.join()
        os.close(heard_at)
