"""A limit per minute that is kept evenly: requests, or tokens, are let through at a constant pace.

A pace instead of a bucket: a bucket lets a minute's worth through at once and refills meanwhile, which exceeds
the limit of every server that counts over windows shorter than its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Lets amounts through one after the other, each only when those before it have had their time.

    In any minute at most `per_minute`, and the amount that began it, go through. For one event loop.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """`per_minute` may be infinite. Raises ValueError when it is not positive."""
        if not per_minute > 0:
            raise ValueError(f"per_minute {per_minute} must be positive")
        self._seconds_each = 60.0 / per_minute
        self._clock, self._sleep = clock, sleep
        self._free_at = clock()
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self, amount: float = 1.0) -> None:
        """Waits until the amount may go through."""
        async with self._turn:
            while (wait := self._free_at - self._clock()) > 0:
                await self._sleep(min(wait, 1.0))  # a correction may have shortened it meanwhile
            self._free_at = max(self._free_at, self._clock()) + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """What went through was more than was taken by so much, or less where this is negative."""
        self._free_at += amount * self._seconds_each

    def pause(self, seconds: float) -> None:
        """Lets nothing more through for so long."""
        self._free_at = max(self._free_at, self._clock() + seconds)
