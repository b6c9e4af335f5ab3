"""Which programs JAX traces or compiles, shown while it takes long and counted: by JAX's own events, on any thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import jax

from onethinker_jax.train.log.progress import Clock, Progress

_EVENTS = tuple(
    f"/jax/core/compile/{name}_duration"
    for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
# Functions that are compiled -> what they are to a reader of the console; others go by their own names.
PROGRAMS = {
    "accumulate": "the gradients of a micro-batch",
    "apply": "the optimiser's update",
    "prefill_prompts": "the prefill of prompts",
    "embed_prompts": "the media of prompts",
    "prefill_next_chunk": "the prefill of a chunk of prompts",
    "decode": "decoding",
    "fresh": "the fresh model",
}


class Display(Protocol):
    """Where it is shown: a `RunLog`."""

    def begin(self, progress: Progress) -> None:
        """Shows that this is under way."""
        ...

    def end(self, progress: Progress, *, said: bool = True) -> None:
        """Shows no more of it; `said` leaves a line with how long it took."""
        ...


@dataclass
class _Open:
    """What a thread is compiling, and how many events deep."""

    progress: Progress
    depth: int = 1


class CompilationWatch:
    """Shows in `display` what is compiled until it is closed."""

    def __init__(self, display: Display, clock: Clock) -> None:
        self._display, self._clock = display, clock
        self._open: dict[int, _Open] = {}  # by thread
        self._told: set[str] = set()  # a program's tracing was said: its compilation needs no line of its own
        self._listens = True
        jax.monitoring.register_scalar_listener(self._begun)
        jax.monitoring.register_event_duration_secs_listener(self._ended)

    def close(self) -> None:
        """Nothing is shown any more; a second call does nothing."""
        if self._listens:
            jax.monitoring.unregister_scalar_listener(self._begun)
            jax.monitoring.unregister_event_duration_listener(self._ended)
        self._listens = False

    def _begun(self, event: str, value: float | int, **kwargs: str | int) -> None:
        if event not in _EVENTS:
            return
        thread = threading.get_ident()
        if thread in self._open:
            self._open[thread].depth += 1
            return
        name = str(kwargs.get("fun_name", "a function")).removeprefix("jit(").removesuffix(")")
        progress = Progress(f"compiling {PROGRAMS.get(name, name)}", clock=self._clock)
        progress.phase = "(first time, may take a minute)"
        progress.told = progress.name in self._told
        self._open[thread] = _Open(progress)
        self._display.begin(progress)

    def _ended(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        found = self._open.get(threading.get_ident())
        if event not in _EVENTS or found is None:
            return
        found.depth -= 1
        if found.depth == 0:
            del self._open[threading.get_ident()]
            if found.progress.told:
                self._told.add(found.progress.name)
            self._display.end(found.progress, said=False)


@dataclass
class Compilations:
    """XLA compilations seen so far, oldest first."""

    names: list[str] = field(default_factory=list)  # of the compiled functions
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
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
