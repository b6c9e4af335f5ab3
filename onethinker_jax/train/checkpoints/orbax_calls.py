"""What is around every call of Orbax: its own words stay away, and its errors are one line."""

import asyncio
import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager


def one_line(error: Exception) -> str:
    """What an error says, in one line of bounded length."""
    return textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" …")


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block Orbax logs nothing: what is wrong is raised, and said by us."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        absl.setLevel(level)


class _PatientLoop(asyncio.SelectorEventLoop):
    """An event loop that ends its tasks before it closes.

    Orbax reads many arrays at once in a loop of its own and closes it at the first error: reads that end later would
    find no loop, and what they raise would be printed long after the error that was named.
    """

    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _PatientLoop()


@contextmanager
def reads_ended() -> Iterator[None]:
    """Whatever Orbax reads within the block is over at its end."""
    outer = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_PatientLoops())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(outer)
