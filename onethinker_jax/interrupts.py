"""What Ctrl-C does while a command's imports run, and at its end: no traceback, whatever is under way.

A command calls `interrupts_end_at_once` before its heavy imports, and `interrupts_raise` once it handles
KeyboardInterrupt.  Imports nothing that takes time.
"""

import os
import signal

INTERRUPTED = 130


def interrupts_end_at_once(said: str = "") -> None:
    """From now on SIGINT ends the process with status 130, after this one line on stderr."""

    def end(number: int, frame: object) -> None:
        if said:
            os.write(2, f"{said}\n".encode())
        os._exit(INTERRUPTED)

    if _heeded():
        signal.signal(signal.SIGINT, end)


def interrupts_raise() -> None:
    """From now on SIGINT raises KeyboardInterrupt, as Python does by itself."""
    if _heeded():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _heeded() -> bool:
    """Not so in a job that a shell put into the background: it ignores SIGINT, and goes on doing so."""
    return signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
