"""What a run says and records: the console, `metrics.jsonl`, TensorBoard, and Weights & Biases if asked for.

On a terminal one live line at the bottom shows the stage, how far it is, the last reward, loss and speed, and
the time left, while messages scroll above it; elsewhere (a pipe, a log file) the same facts come as plain
lines at an interval. The metrics file is the run's memory of its curves: one JSON object a line, and a run
that goes on from a checkpoint first drops the lines past it, so that no step is ever there twice.
"""

import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onethinker_jax.text_output import json_text, visible
from onethinker_jax.train.event_file import EventFile
from onethinker_jax.train.wandb_run import WandbRun

METRICS_FILE = "metrics.jsonl"
HEADLINE = {
    "reward": "reward",
    "loss": "loss",
    "tokens_per_second": "tok/s",
}  # metric -> its name on the line
SPEED_WINDOW = 30  # points that the time left is estimated from


class RunLog:
    """The console, metrics and TensorBoard files of one run; a context manager.

    Args:
        directory: the run's; `metrics.jsonl` and `tensorboard/<stage>/` are made inside.
        interval: seconds between plain progress lines where the console is no terminal.
        console: a rich console to write to; by default standard output.
        wandb: where the metrics also go; begun with the first stage, ended with this log.

    Leaving the context, also through Ctrl-C or an error, gives the terminal back and closes the files;
    the exception passes on. Records of the package's own loggers appear on the console meanwhile.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        interval: float = 10.0,
        console: Console | None = None,
        wandb: WandbRun | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.console = console or _console()
        self._interval, self._wandb = interval, wandb
        self._metrics = self._open_metrics()
        self._events: EventFile | None = None
        self._progress: _Progress | None = None
        self._live: Live | None = None
        self._last_line = -math.inf
        self._handler = _Messages(self)
        self._logger = logging.getLogger("onethinker_jax")
        self._outer = (self._logger.level, self._logger.propagate)
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False  # or a library's handler on the root logger would say it again

    def stage(self, name: str, total_steps: int, start_step: int = 0) -> None:
        """Begins a stage of `total_steps`, `start_step` of which a checkpoint already holds.

        The lines of this stage past `start_step` are dropped from the metrics file.
        """
        self._end_stage()
        self._metrics.close()
        _drop_after(self.directory / METRICS_FILE, name, start_step)
        self._metrics = self._open_metrics()
        if self._wandb is not None and (address := self._wandb.begin(self.directory, name)):
            self.info(f"Weights & Biases: {address}")
        self._events = EventFile(self.directory / "tensorboard" / name)
        if start_step:
            self._events.restart(start_step + 1)
        self._progress = _Progress(name, total_steps, start_step)
        self._last_line = -math.inf
        if self.console.is_terminal:
            self._live = Live(self._progress, console=self.console, refresh_per_second=4)
            self._live.start()
        else:
            begun = f" from step {start_step:,}" if start_step else ""
            self._line(f"{name}: {total_steps:,} steps{begun}")

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the metrics of the stage after `step` steps of it, and shows the headline ones.

        Args:
            step: steps of the stage that are done, 1 .. total_steps (0: before the first).
            values: name -> number (also a JAX or numpy scalar). A "/" groups: "reward/OCR (image)". The
                console shows "reward", "loss" and "tokens_per_second". A value that is not finite is
                written as null and named on the console.

        Raises:
            RuntimeError: no stage has begun.
        """
        progress = self._running()
        numbers = {name: float(value) for name, value in values.items()}
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            self.warn(f"{progress.name} step {step}: not finite: {', '.join(broken)}")
        row = {"stage": progress.name, "step": step, "time": round(time.time(), 3)}
        row |= {name: None if name in broken else value for name, value in numbers.items()}
        self._metrics.write(json_text(row) + "\n")
        self._metrics.flush()
        if self._events is not None:
            self._events.scalars(step, {k: v for k, v in numbers.items() if k not in broken})
            self._events.flush()
        if self._wandb is not None:
            self._wandb.scalars(progress.name, step, {k: v for k, v in numbers.items() if k not in broken})
        progress.values |= {name: numbers[name] for name in HEADLINE if name in numbers}
        self.progress(step)

    def progress(self, step: int) -> None:
        """Moves the display to `step` without recording anything."""
        progress = self._running()
        progress.reached(step)
        if self._live is not None:
            if step >= progress.total:
                self._end_display()
        elif not self.console.is_terminal:
            now = time.monotonic()
            done = step >= progress.total and self._last_line < progress.done_at
            if now - self._last_line >= self._interval or done:
                self._last_line = now
                self._line(progress.line())

    def phase(self, text: str) -> None:
        """Says what the current step is doing, on a terminal's live line: "sampling", "scoring" ..."""
        self._running().phase = text

    def info(self, text: str) -> None:
        """Prints a line, above the live one."""
        self._line(text)

    def warn(self, text: str) -> None:
        """Prints a line that stands out."""
        self._line(("warning: ", "bold yellow"), text)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Prints a table. Floats show three decimals, None a dash; all columns but the first align right."""
        table = Table(
            title=escape(visible(title)), title_justify="left", title_style="bold", header_style="bold"
        )
        for index, column in enumerate(columns):
            table.add_column(escape(visible(column)), justify="left" if index == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(visible(_cell(value))) for value in row))
        self.console.print(table)

    def close(self, *, failed: bool = False) -> None:
        """Ends the display and closes the files. A second call does nothing."""
        self._end_stage()
        self._metrics.close()
        if self._wandb is not None:
            self._wandb.end(failed=failed)
        self._logger.removeHandler(self._handler)
        level, self._logger.propagate = self._outer
        self._logger.setLevel(level)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def _open_metrics(self):
        return (self.directory / METRICS_FILE).open("a", encoding="utf-8")

    def _running(self) -> "_Progress":
        if self._progress is None:
            raise RuntimeError("no stage has begun: call stage() before metrics(), progress() and phase()")
        return self._progress

    def _line(self, *parts: str | tuple[str, str]) -> None:
        when = [] if self.console.is_terminal else [time.strftime("%H:%M:%S ")]
        shown = [visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts]
        self.console.print(Text.assemble(*when, *shown), soft_wrap=True, highlight=False)

    def _end_stage(self) -> None:
        self._end_display()
        if self._events is not None:
            self._events.close()
            self._events = None
        self._progress = None

    def _end_display(self) -> None:
        """Leaves the live line as it is now, behind what follows."""
        if self._live is not None and self._progress is not None:
            self._progress.phase = ""
            self._live.stop()
            self._live = None


def _console() -> Console:
    """Standard output; wide enough for tables where nobody says how wide it is."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=140)
    return console


class _Progress:
    """Where a stage stands. Renders as the live line; `line()` is the plain one."""

    def __init__(self, name: str, total: int, start: int) -> None:
        self.name, self.total, self.step = name, total, start
        self.values: dict[str, float] = {}
        self.phase = ""
        self.done_at = math.inf
        self._begun = time.monotonic()
        self._points: deque[tuple[float, int]] = deque(maxlen=SPEED_WINDOW)

    def reached(self, step: int) -> None:
        """Notes the time at which `step` steps were done."""
        now = time.monotonic()
        self.step = step
        if not self._points or step > self._points[-1][1]:
            self._points.append((now, step))
        if step >= self.total:
            self.done_at = min(self.done_at, now)

    def seconds_left(self) -> float | None:
        """From the speed of the last points, so that the first step's compilation does not count for long."""
        if len(self._points) < 2:
            return None
        (first, first_step), (last, last_step) = self._points[0], self._points[-1]
        left = (self.total - last_step) * (last - first) / (last_step - first_step)
        return max(left - (time.monotonic() - last), 0.0)

    def facts(self) -> list[tuple[str, str]]:
        """(label, value) pairs of what the last metrics said and the time."""
        shown = [(HEADLINE[name], _brief(self.values[name])) for name in HEADLINE if name in self.values]
        left = self.seconds_left()
        if self.step >= self.total:
            shown.append(("took", _clock(min(self.done_at, time.monotonic()) - self._begun)))
        elif left is not None:
            shown.append(("left", _clock(left)))
        else:
            shown.append(("elapsed", _clock(time.monotonic() - self._begun)))
        return shown

    def line(self) -> str:
        """The plain line."""
        facts = "  ".join(f"{label} {value}" for label, value in self.facts())
        return f"{self.name} {self.step:,}/{self.total:,}  {facts}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text(f"{self.step:,}/{self.total:,}  ")
        for label, value in self.facts():
            text.append(f"{label} ", "dim").append(value, "bold").append("  ")
        if self.phase:
            text.append(self.phase, "dim")
        room = options.max_width - len(self.name) - 2
        bar = max(min(room - text.cell_len, 24), 8)
        text.truncate(max(room - bar, 1), overflow="ellipsis")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text(self.name, "bold cyan"),
            ProgressBar(max(self.total, 1), min(self.step, self.total), width=bar),
            text,
        )
        yield grid


class _Messages(logging.Handler):
    """Shows what the package's modules log on the run's console."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        show = self._log.warn if record.levelno >= logging.WARNING else self._log.info
        show(self.format(record))


def _brief(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, oldest first; none if there is no file.

    A last line cut short by a killed process is left out. Raises ValueError naming any other broken line.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8") as file:
        lines = list(file)
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}: line {number} is not JSON ({error})") from None
    return rows


def _drop_after(path: Path, stage: str, step: int) -> None:
    """Rewrites the metrics file without the lines of `stage` past `step`; all of it or nothing."""
    rows = read_metrics(path)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
    text = "".join(json_text(row) + "\n" for row in kept)
    if path.exists() and text == path.read_text(encoding="utf-8"):
        return
    fresh = path.with_suffix(".jsonl.part")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


@dataclass
class Compilations:
    """XLA compilations seen so far, oldest first."""

    names: list[str] = field(default_factory=list)  # of the compiled functions
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.names)

    def since(self, count: int) -> list[str]:
        """Names of the functions compiled after the first `count` compilations."""
        return self.names[count:]


@contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts what XLA compiles (or loads from the persistent cache) while the context is open.

    A trainer notes `count` once every shape has been seen; anything in `since(count)` later is a compilation
    after warm-up: a shape that was not fixed.
    """
    seen = Compilations()

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            name = str(kwargs.get("fun_name", "a function"))
            seen.names.append(name.removeprefix("jit(").removesuffix(")"))
            seen.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
