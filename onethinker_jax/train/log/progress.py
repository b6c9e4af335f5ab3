"""How far something is, and how a run says so: a bar on a terminal, plain lines elsewhere."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

HEADLINE = {
    "reward": "reward",
    "loss": "loss",
    "tokens_per_second": "tok/s",
}  # metric -> its name on the line
SPEED_WINDOW = 30  # points that the time left is estimated from
_BEAT_SECONDS = 1.0
_POINT_SECONDS = 0.2  # between two of them at least

Clock = Callable[[], float]


class Progress:
    """How far a stage or another piece of work is: counted where `total` is known, else only timed.

    Renders as a terminal's line; `line()` is the plain one. `told` says whether a plain line was written of it.
    """

    def __init__(
        self,
        name: str,
        total: int | None = None,
        start: int = 0,
        *,
        unit: str = "",
        clock: Clock = time.monotonic,
    ) -> None:
        self.name, self.total, self.step, self.unit = name, total, start, unit
        self.values: dict[str, float] = {}
        self.phase = ""
        self.told = False
        self.begun = clock()
        self._clock, self._done_at = clock, math.inf
        self._points: deque[tuple[float, int]] = deque(maxlen=SPEED_WINDOW)

    @property
    def done(self) -> bool:
        """Whether all that is counted is done."""
        return self.total is not None and self.step >= self.total

    @property
    def done_at(self) -> float:
        """When it was; infinity while it is not."""
        return self._done_at

    @property
    def seconds(self) -> float:
        """Since it began, until it was done."""
        return min(self._done_at, self._clock()) - self.begun

    def reached(self, step: int) -> None:
        """Notes that `step` units are done by now."""
        now = self._clock()
        self.step = step
        last = self._points[-1] if self._points else (-math.inf, -1)
        if step > last[1] and now - last[0] >= _POINT_SECONDS:
            self._points.append((now, step))
        if self.done:
            self._done_at = min(self._done_at, now)

    def seconds_left(self) -> float | None:
        """From the speed of the last points, so that the first step's compilation does not count for long."""
        if self.total is None or len(self._points) < 2:
            return None
        (first, first_step), (last, last_step) = self._points[0], self._points[-1]
        left = (self.total - last_step) * (last - first) / (last_step - first_step)
        return max(left - (self._clock() - last), 0.0)

    def facts(self) -> list[tuple[str, str]]:
        """(label, value) pairs of what the last metrics said and the time."""
        shown = [(HEADLINE[name], brief(self.values[name])) for name in HEADLINE if name in self.values]
        left = self.seconds_left()
        if self.done:
            shown.append(("took", clock_text(self.seconds)))
        elif left is not None:
            shown.append(("left", clock_text(left)))
        else:
            shown.append(("elapsed", clock_text(self.seconds)))
        return shown

    def count(self) -> str:
        """Such as "120/640 records"; nothing where nothing is counted."""
        if self.total is None:
            return ""
        return f"{self.step:,}/{self.total:,}" + (f" {self.unit}" if self.unit else "")

    def line(self) -> str:
        """The plain line."""
        facts = "  ".join(f"{label} {value}" for label, value in self.facts())
        parts = [f"{self.name} {self.count()}".rstrip(), facts, "" if self.done else self.phase]
        return "  ".join(part for part in parts if part)

    def end_line(self) -> str:
        """The plain line once it is over."""
        return (
            f"{self.name}: {f'{self.step:,} {self.unit}'.strip() if self.total else 'done'} in "
            + clock_text(self.seconds)
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text(f"{self.count()}  " if self.total is not None else "")
        for label, value in self.facts():
            text.append(f"{label} ", "dim").append(value, "bold").append("  ")
        if self.phase:
            text.append(self.phase, "dim")
        room = options.max_width - len(self.name) - 2
        if self.total is None:
            text.truncate(max(room, 1), overflow="ellipsis")
            yield Text.assemble((self.name, "bold cyan"), " ", text)
            return
        bar = max(min(room - text.cell_len, 24), 8)
        text.truncate(max(room - bar, 1), overflow="ellipsis")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text(self.name, "bold cyan"),
            ProgressBar(max(self.total, 1), min(self.step, self.total), width=bar),
            text,
        )
        yield grid


class Lines:
    """The lines of a terminal that are drawn anew, one for each thing that goes on."""

    def __init__(self, active: Callable[[], Sequence[Progress]]) -> None:
        self._active = active

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*self._active())


class Heart:
    """A thread that calls a function every second until it is stopped."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat, self._stopped = beat, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns once the thread has ended; a second call does nothing."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            self._beat()


def brief(value: float) -> str:
    """A number as a line shows it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def clock_text(seconds: float) -> str:
    """Such as 0:09 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
