"""What a run has heard of its end: Ctrl-C, or the SIGTERM of a scheduler that takes the machine away.

While a stage trains (`deferred`), the step is finished and saved, then the run stops. Ctrl-C leaves the step all the
time it takes; a second one stops at once. SIGTERM gives a step half of `preemption.deadline`, then cuts it: what is
finished is saved. A second SIGTERM cuts it at once. Outside of training SIGTERM ends the run in order. Of several
processes all hear what one hears (`peers.py`).
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum

from onethinker_jax.command_line import Terminated
from onethinker_jax.errors import EndedByStop
from onethinker_jax.processes import Processes
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.stopping.peers import Peers

STOP_GRACE_S = 10.0
"""How long Ctrl-C lets the step that it finishes wait for scores."""


class StopKind(IntEnum):
    """Why a run stops; of two reasons the greater counts."""

    NONE = 0
    INTERRUPT = 1
    PREEMPTION = 2


@dataclass(frozen=True)
class Deferred:
    """What a training loop does of a stop: `give_up` ends waiting for scores, `cut` also ends the step."""

    log: RunLog
    give_up: Callable[[], None]
    cut: Callable[[], None]


class StepCut(EndedByStop):
    """The step under way is not waited for any more."""


class Notice:
    """What this process has heard, and how long the step under way still has."""

    def __init__(self, settings: PreemptionSettings | None = None, peers: Peers | None = None):
        """`peers` are the other processes, where there are any."""
        self.kind = StopKind.NONE
        self.cut = threading.Event()
        """Set once the step under way is not waited for any more."""
        self._settings, self._peers = settings or PreemptionSettings(), peers
        self._deferred: Deferred | None = None
        self._listening = self._raised = self._stops = False
        self._writing = False  # a checkpoint, which neither a signal nor the deadline ends
        self._sigterms = 0
        self._latches = {
            kind: threading.Lock() for kind in StopKind
        }  # each is taken once: by the first who hears
        self._timers: list[threading.Timer] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """For the block, a whole run: SIGTERM ends it in order, at the deadline whatever it does."""
        with ExitStack() as stack:
            stack.enter_context(_handling(signal.SIGTERM, self._on_sigterm))
            stack.enter_context(_heard_at_once(signal.SIGTERM, lambda: self._hear(StopKind.PREEMPTION)))
            if self._peers is not None:
                stack.enter_context(self._peers.following(lambda: self.kind, self._hear_from_peer))
            self._listening = True
            stack.callback(self._forget_timers)
            yield

    @contextmanager
    def deferred(
        self,
        log: RunLog,
        *,
        give_up: Callable[[], None] = lambda: None,
        cut: Callable[[], None] = lambda: None,
    ) -> Iterator["Notice"]:
        """For the block, a training loop: the first SIGINT or SIGTERM is noted and announced, for the loop to act on.

        `give_up` ends what the step may wait for without end, such as scores; `cut` is also to end its sampling.
        """
        self._deferred = Deferred(log, give_up, cut)
        try:
            with (
                _handling(signal.SIGTERM, self._on_sigterm),
                _handling(signal.SIGINT, self._on_sigint),
            ):
                self.heed()
                yield self
                self.heed()
        finally:
            self._deferred = None
            if not self._listening:
                self._forget_timers()

    def reached(self) -> bool:
        """Whether the run stops here. Of several processes, which all call this, the same call says so first."""
        return bool(self.kind) if self._peers is None else self._peers.reached()

    def agreed(self, processes: Processes) -> StopKind:
        """Why the run stops, if it does: what any process has heard by now. All processes call this."""
        self._hear(StopKind(max(processes.gather(int(self.kind)))))
        return self.kind

    def cut_agreed(self, processes: Processes) -> bool:
        """Whether the step under way is cut here: of several processes, which all call this, the same call says so."""
        self._stops = self._stops or self.reached()
        return self._stops and processes.any(self.cut.is_set())

    def heed_cut(self) -> None:
        """Raises StepCut once the step under way is not waited for any more."""
        if self.cut.is_set():
            raise StepCut("the step is cut")

    def begin_writing(self) -> None:
        """A checkpoint is begun; if the run stops, the deadline waits for it until `writing` has ended it."""
        if self.kind:
            self._writing = True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For the block a checkpoint is written to its end, whatever is heard."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def heed(self) -> None:
        """Stops the run where `writing` has left a signal for later."""
        if self.kind:
            raise self.stop()

    def stop(self) -> KeyboardInterrupt:
        """What is to be raised once all is saved."""
        if self.kind is StopKind.PREEMPTION:
            return Terminated(status=self._settings.exit_status)
        return KeyboardInterrupt()

    def _on_sigint(self, number: int, frame: object) -> None:
        if self.kind:
            if self._deferred is not None:
                _apart(self._deferred.give_up)
            raise KeyboardInterrupt
        self._hear(StopKind.INTERRUPT)

    def _on_sigterm(self, number: int, frame: object) -> None:
        self._sigterms += 1
        self._hear(StopKind.PREEMPTION)
        if self._deferred is not None:
            if self._sigterms > 1:
                _apart(self._cut)
        elif not (
            self._raised or self._writing
        ):  # a second one would disturb what the first one ends in order
            self._raised = True
            raise self.stop()

    def _hear_from_peer(self, kind: int) -> None:
        """In the thread that follows the others. Outside of training the main thread is stopped by a signal."""
        self._hear(StopKind(kind))
        if kind == StopKind.PREEMPTION and self._deferred is None:
            os.kill(os.getpid(), signal.SIGTERM)

    def _hear(self, kind: StopKind) -> None:
        """Notes and announces it, once, and starts the clock; from any thread, and from a signal's handler."""
        if kind is StopKind.NONE or not self._latches[kind].acquire(blocking=False):
            return
        self.kind = max(self.kind, kind)
        half = self._settings.deadline / 2
        if kind is StopKind.INTERRUPT:
            told = "Stopping: finishing this step and saving a checkpoint …"
            self._after(STOP_GRACE_S, self._give_up)
        else:
            told = f"SIGTERM: finishing this step, or cutting it in {half:g} s, and saving a checkpoint …"
            self._after(half, self._cut)
            self._after(2 * half, self._end)
        if (deferred := self._deferred) is not None:
            deferred.log.info(told)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _forget_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _give_up(self) -> None:
        if (deferred := self._deferred) is not None:
            deferred.give_up()

    def _cut(self) -> None:
        self.cut.set()
        if (deferred := self._deferred) is not None:
            deferred.cut()
            deferred.give_up()

    def _end(self) -> None:
        """The deadline: ends the process, once no checkpoint is being written."""
        while self._writing:
            time.sleep(0.1)
        said = (
            f"stopped; what was under way did not end within preemption.deadline {self._settings.deadline:g} s: "
            "the same command goes on from the newest checkpoint\n"
        )
        with suppress(OSError):  # nobody may read it any more
            os.write(2, said.encode())
        os._exit(self._settings.exit_status)


def _apart(act: Callable[[], None]) -> None:
    """Acts in a thread: in a signal's handler it could wait for good for a lock that the main thread holds."""
    threading.Thread(target=act, daemon=True).start()


@contextmanager
def _handling(number: signal.Signals, handler: Callable[[int, object], None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)


@contextmanager
def _heard_at_once(number: signal.Signals, act: Callable[[], None]) -> Iterator[None]:
    """Within the block a thread acts on the signal, also while the main thread waits in a library.

    Python's own handlers wait for that: for a device, or for another process, until the deadline may be over.
    """
    heard_at, said_at = os.pipe()
    os.set_blocking(said_at, False)

    def watch() -> None:
        while byte := os.read(heard_at, 1):
            if byte[0] == number:
                act()

    before = signal.set_wakeup_fd(said_at, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(said_at)
        thread.join()
        os.close(heard_at)
