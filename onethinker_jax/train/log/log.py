"""What a run says and records: the console, `metrics.jsonl`, TensorBoard, and Weights & Biases if asked for.

On a terminal one live line at the bottom shows the stage, how far it is, the last reward, loss and speed, and
the time left, while messages scroll above it; elsewhere (a pipe, a log file) the same facts come as plain
lines at an interval. What takes longer than a few seconds beside the steps (`doing`, a program that compiles)
is said in the same way, and after half a minute without a word a line says what goes on.

The metrics file is the run's memory of its curves: one JSON object a line, and a run that goes on from a
checkpoint first drops the lines past it, so that no step is ever there twice.
"""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onethinker_jax.files import write_whole
from onethinker_jax.text_output import json_text, visible
from onethinker_jax.train.log.compilation_watch import CompilationWatch
from onethinker_jax.train.log.event_file import EventFile
from onethinker_jax.train.log.progress import HEADLINE, Clock, Heart, Lines, Progress
from onethinker_jax.train.log.wandb_run import WandbRun
from onethinker_jax.train.run_folder import RunFolder

TOLD_AFTER = 3.0  # seconds that something takes before a line says so
SILENCE = 30.0  # seconds after which a line says what goes on, whatever it is
SHOWN_AFTER = 1.0  # the same on a terminal, where it is no line that stays
_UNBOUNDED = 10_000  # characters, wider than any table


class RunLog:
    """The console, metrics and TensorBoard files of one run; a context manager.

    Args:
        directory: the run's; `metrics.jsonl` and `tensorboard/<stage>/` are made inside.
        interval: seconds between plain progress lines where the console is no terminal.
        console: a rich console to write to; by default standard output.
        wandb: where the metrics also go; begun with the first stage, ended with this log.
        clock: seconds that rise.
        beats: whether a thread calls `beat` every second; without it whoever asks for none does.

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
        clock: Clock = time.monotonic,
        beats: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self._folder = RunFolder(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.console = console or _console()
        self._interval, self._wandb = interval, wandb
        self._metrics = self._open_metrics()
        self._events: EventFile | None = None
        self._clock = clock
        self._progress: Progress | None = None
        self._doing: list[Progress] = []  # what goes on beside the stage, the innermost last
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._last_line = -math.inf  # of progress
        self._last_said = clock()  # anything
        self._handler = _Messages(self)
        self._logger = logging.getLogger("onethinker_jax")
        self._outer = (self._logger.level, self._logger.propagate)
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False  # or a library's handler on the root logger would say it again
        self._compiling = CompilationWatch(self, clock)
        self._heart = Heart(self.beat) if beats else None

    def stage(self, name: str, total_steps: int, start_step: int = 0, *, recorded: int | None = None) -> None:
        """Begins a stage of `total_steps`, `start_step` of which a checkpoint already holds.

        The lines of this stage past `start_step` are dropped from the metrics file, and those past `recorded` where the
        metrics of later steps are still to be recorded.
        """
        recorded = start_step if recorded is None else recorded
        self._end_stage()
        self._metrics.close()
        for path, step in ((self._folder.metrics, recorded), (self._folder.sampled_lengths, start_step)):
            if path.exists():
                _drop_after(path, name, step)
        self._metrics = self._open_metrics()
        if self._wandb is not None and (address := self._wandb.begin(self.directory, name)):
            self.info(f"Weights & Biases: {address}")
        self._events = EventFile(self._folder.tensorboard(name))
        if start_step:
            self._events.restart(recorded + 1)
        self._progress = Progress(name, total_steps, start_step, clock=self._clock)
        self._last_line = -math.inf
        self._show()
        if not self.console.is_terminal:
            begun = f" from step {start_step:,}" if start_step else ""
            self._line(f"{name}: {total_steps:,} steps{begun}")

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the metrics of the stage after `step` steps of it, and shows the headline ones.

        Args:
            step: steps of the stage that are done, 1 .. total_steps (0: before the first).
            values: name -> number (also a JAX or numpy scalar). A "/" groups: "reward/OCR (image)". The
                console shows "reward", "loss" and "tokens_per_second". A value that is not finite is
                written as null and named on the console.

        Raises RuntimeError: no stage has begun.
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

    def lengths(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Records the lengths of what the stage sampled for a step, a line a prompt (`plan --lengths` reads them)."""
        about = {"stage": self._running().name, "step": step}
        with self._folder.sampled_lengths.open("a", encoding="utf-8") as file:
            file.writelines(json_text({**about, **row}) + "\n" for row in rows)

    def progress(self, step: int) -> None:
        """Moves the display to `step` without recording anything."""
        progress = self._running()
        progress.reached(step)
        if self._live is not None:
            if progress.done:
                self._end_display()
        elif not self.console.is_terminal:
            now = self._clock()
            done = progress.done and self._last_line < progress.done_at
            if now - self._last_line >= self._interval or done:
                self._last_line = now
                self._line(progress.line())

    def phase(self, text: str) -> None:
        """Says what the current step is doing: "sampling 3/12 groups", "updating" ..."""
        self._running().phase = text

    @contextmanager
    def doing(self, name: str, total: int | None = None, *, unit: str = "") -> Iterator["Doing"]:
        """Shows for the block that `name` is being done, how far it is where `total` is given, and the time left.

        On a terminal it has a line of its own beside the stage's; elsewhere plain lines, none if it is soon over.
        """
        progress = Progress(name, total, unit=unit, clock=self._clock)
        self.begin(progress)
        try:
            yield Doing(self, progress)
        finally:
            self.end(progress)

    def begin(self, progress: Progress) -> None:
        """Takes something that begins; `doing` and the watch over compilations do."""
        with self._lock:
            self._doing.append(progress)

    def end(self, progress: Progress, *, said: bool = True) -> None:
        """Takes that it is over; `said`: a plain line says so if one said that it goes on."""
        with self._lock:
            self._doing.remove(progress)
            if said and progress.told:
                self._line(progress.end_line())
            if self._progress is None and not self._active():
                self._end_live(transient=True)

    def reached(self, progress: Progress, step: int) -> None:
        """Notes on a display that `step` units are done."""
        with self._lock:
            progress.reached(step)
            now = self._clock()
            if now - progress.begun >= TOLD_AFTER and now - self._last_line >= self._interval:
                self._tell(progress)

    def beat(self) -> None:
        """Says what takes longer than a few seconds, and what goes on where nothing was said for long."""
        with self._lock:
            now = self._clock()
            if len(self._active()) > (self._progress is not None):
                self._show()
            if self._live is not None:
                self._live.refresh()
            for one in self._doing:
                if not one.told and now - one.begun >= TOLD_AFTER:
                    self._tell(one)
            current = self._doing[-1] if self._doing else self._progress
            if current is not None and not current.done and now - self._last_said >= SILENCE:
                self._tell(current)

    def info(self, text: str) -> None:
        """Prints a line, above the live one."""
        self._line(text)

    def warn(self, text: str) -> None:
        """Prints a line that stands out."""
        self._line(("warning: ", "bold yellow"), text)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Prints a table. Floats show three decimals, None a dash; all columns but the first align right.

        Nothing of a cell is cut off: a narrow terminal breaks it over lines, any other output is as wide as it needs.
        """
        table = Table(
            title=escape(visible(title)), title_justify="left", title_style="bold", header_style="bold"
        )
        for index, column in enumerate(columns):
            table.add_column(
                escape(visible(column)), justify="left" if index == 0 else "right", overflow="fold"
            )
        for row in rows:
            table.add_row(*(escape(visible(_cell(value))) for value in row))
        if self.console.is_terminal:
            self.console.print(table)
            return
        narrow, unbounded = self.console.width, self.console.options.update(max_width=_UNBOUNDED)
        self.console.width = max(narrow, self.console.measure(table, options=unbounded).maximum)
        self.console.print(table)
        self.console.width = narrow

    def close(self, *, failed: bool = False) -> None:
        """Ends the display and closes the files. A second call does nothing."""
        self._compiling.close()
        if self._heart is not None:
            self._heart.stop()
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
        return (self._folder.metrics).open("a", encoding="utf-8")

    def _running(self) -> Progress:
        if self._progress is None:
            raise RuntimeError("no stage has begun: call stage() before metrics(), progress() and phase()")
        return self._progress

    def _line(self, *parts: str | tuple[str, str]) -> None:
        self._last_said = self._clock()
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
        with self._lock:
            if self._progress is not None:
                self._progress.phase = ""
            self._end_live()

    def _end_live(self, *, transient: bool = False) -> None:
        if self._live is not None:
            self._live.transient = transient
            self._live.stop()
            self._live = None

    def _show(self) -> None:
        """Begins the live display of a terminal."""
        if self.console.is_terminal and self._live is None:
            self._live = Live(Lines(self._active), console=self.console, refresh_per_second=4)
            self._live.start(refresh=True)

    def _active(self) -> list[Progress]:
        """What a terminal shows, the stage first."""
        stage = [] if self._progress is None else [self._progress]
        return [*stage, *(one for one in self._doing if one.seconds >= SHOWN_AFTER)]

    def _tell(self, progress: Progress) -> None:
        """Writes the plain line of what goes on."""
        if not self.console.is_terminal:
            self._last_line, progress.told = self._clock(), True
            self._line(progress.line())


class Doing:
    """What a block of `RunLog.doing` tells of itself. Thread-safe."""

    def __init__(self, log: RunLog, progress: Progress) -> None:
        self._log, self._progress = log, progress

    def reached(self, count: int, total: int | None = None) -> None:
        """Notes that `count` units are done, of `total` where that was not known before."""
        if total is not None:
            self._progress.total = total
        self._log.reached(self._progress, count)

    def phase(self, text: str) -> None:
        """What is being done at the moment."""
        self._progress.phase = text


def _console() -> Console:
    """Standard output; wide enough for tables where nobody says how wide it is."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=140)
    return console


class _Messages(logging.Handler):
    """Shows what the package's modules log on the run's console."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        show = self._log.warn if record.levelno >= logging.WARNING else self._log.info
        show(self.format(record))


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
    """Rewrites a file of metrics or lengths without the lines of `stage` past `step`; all of it or nothing."""
    rows = read_metrics(path)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
    text = "".join(json_text(row) + "\n" for row in kept)
    if path.exists() and text == path.read_text(encoding="utf-8"):
        return
    write_whole(path, text)
