"""How far the work is, and how long the rest will take, now and then in a line."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("onethinker_jax.evaluate")

LINE_SECONDS = 10.0
"""Between two lines on how far it is."""


class Progress:
    """Lines on how many of the records are through and how long the others will take."""

    def __init__(
        self,
        total: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        begun: int = 0,
        what: str = "records",
    ):
        """`begun` were through before: the time that is left is told by the others."""
        self._total, self._clock, self._begun, self._what = total, clock, begun, what
        self._began = self._line_at = clock()

    def reached(self, done: int) -> None:
        """Says so where the last line is some time ago, and at the end."""
        now = self._clock()
        if done == self._total or now >= self._line_at + LINE_SECONDS:
            self._line_at = now
            new = done - self._begun
            left = (now - self._began) / max(new, 1) * (self._total - done)
            more = f", about {duration(left)} left" if new > 0 and done < self._total else ""
            logger.info("%s of %s %s%s", f"{done:,}", f"{self._total:,}", self._what, more)


def duration(seconds: float) -> str:
    """As a reader says it: 1 h 05 min, or 3 min 20 s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
