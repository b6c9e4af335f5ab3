"""Which program JAX is tracing or compiling, shown while it takes long: by JAX's own events, on whatever thread."""

import threading
from dataclasses import dataclass
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
