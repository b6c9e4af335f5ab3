"""What a stage watches of itself while it trains: the watchdog, skipped updates, flags, memory and disk."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from onethinker_jax.errors import UserError
from onethinker_jax.train.health.flags import FLAGS, Flags
from onethinker_jax.train.health.host_resources import GIB, free_disk, host_memory, resident_memory
from onethinker_jax.train.health.replay_folder import FailedUpdate, write_replay
from onethinker_jax.train.state import TrainState

if TYPE_CHECKING:
    from onethinker_jax.train.open_run import Run


class NotFinite(UserError):
    """Updates in a row were not finite, and the run stops. The error is one line that names where to look."""


@dataclass(frozen=True)
class NotedUpdate:
    """An update that the device may still be at work on."""

    step: int
    place: Any  # where its records are found again
    loss: jax.Array | float  # summed
    norm: jax.Array | float  # of the gradient

    @property
    def finite(self) -> bool:
        """Whether it was taken; waits for the device."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class StageHealth:
    """The health of one stage; within its block the watchdog watches."""

    def __init__(self, stage: str, run: "Run") -> None:
        self.failing: NotedUpdate | None = None
        """The update at which too many in a row were skipped: the run is to stop."""
        self._stage, self._run, self._settings = stage, run, run.health
        self._flags, self._memory, self._disk = (Flags(run.health) for _ in range(3))
        self._watchdog = run.watchdog(stage)
        self._noted: list[NotedUpdate] = []
        self._norms: list[float] = []  # that no flag has seen
        self._total, self._in_a_row = 0, 0  # skips that are known here
        self._checkpoint_bytes = 0

    def __enter__(self) -> "StageHealth":
        self._watchdog.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watchdog.__exit__(*error)

    def begin(self, state: TrainState, saved: Mapping[str, Any] | None = None) -> None:
        """Goes on from a checkpoint's state and from what `checkpointed` gave for it, if there is one."""
        self._total, self._in_a_row = _counts(state)
        self._checkpoint_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if saved is not None:
            self._norms = list(saved["norms"])
            self._flags.restore(saved["flags"])

    def checkpointed(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON holds it; says where the disk has little space for one."""
        free, size = free_disk(self._run.folder.path), self._checkpoint_bytes
        low = {}
        if free < self._settings.low_disk * size:
            low["disk"] = (
                f"{free / GIB:.3g} GiB are free on the disk of {self._run.folder.path}, and a checkpoint has "
                f"{size / GIB:.3g}: make space"
            )
        self._say(step, self._disk.new(low))
        return {"norms": self._norms, "flags": self._flags.state()}

    def beat(self, step: int) -> None:
        """Notes that the devices are through with `step`."""
        self._watchdog.beat(step)

    def unwatched(self) -> AbstractContextManager[None]:
        """A block that is no part of a step, such as answering the held-out records, which has a watch of its own."""
        return self._watchdog.paused()

    def note(self, *updates: NotedUpdate) -> None:
        """Takes updates whose numbers nobody need have waited for yet."""
        self._noted += updates

    def catch_up(self, step: int, state: TrainState) -> None:
        """Waits for the updates that were noted, and says which were skipped; `failing` says if the run is to stop.

        The skips come of the gradient of all processes: these see the same, and stop at the same step.
        """
        noted, before = self._noted, self._in_a_row
        values = jax.device_get([(update.loss, update.norm) for update in noted])
        noted = [
            replace(update, loss=float(loss), norm=float(norm))
            for update, (loss, norm) in zip(noted, values, strict=True)
        ]
        self._noted, known = [], self._total
        self._total, self._in_a_row = _counts(state)
        most = self._settings.max_consecutive_nonfinite
        if most and self._in_a_row >= most:
            noted = _until_failing(noted, before, most)
            self.failing = noted[-1]
        self._norms += [float(update.norm) for update in noted if update.finite]
        if self._total > known:
            self._say_skipped(step, self._total - known, next(u for u in reversed(noted) if not u.finite))

    def metrics(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """The step's metrics of health, after its lines are said; `values` are its other metrics."""
        up, (resources, low) = self._flags.look(self._norms, values), self._host()
        self._norms = []
        self._say(step, [*self._flags.new(up), *self._memory.new(low)])
        shown = FLAGS if self._stage == "rl" else FLAGS[:1]
        flags = {f"health/{name}": float(name in up) for name in shown}
        return {"health/skipped_updates": float(self._total), **flags, **resources}

    def keep(self, failed: FailedUpdate, state: TrainState) -> NotFinite:
        """Writes the update for a replay; the error to raise once the stage is saved, its state `forgiven`."""
        run = self._run
        with run.log.doing("keeping the update for a replay"):
            where = write_replay(run.folder, failed, state, {"stage": self._stage}, run.hosts)
        return NotFinite(
            f"{self._stage} step {failed.step}: {self._in_a_row} updates in a row were not finite (loss "
            f"{failed.loss:g}, gradient norm {failed.norm:g}) and were skipped; the last is in {where}: python -m "
            f"onethinker_jax.train.replay {run.folder.path} looks at it; the same command goes on behind it"
        )

    def _say(self, step: int, lines: Sequence[str]) -> None:
        for line in lines:
            self._run.log.warn(f"{self._stage} step {step}: {line}")

    def _say_skipped(self, step: int, new: int, last: NotedUpdate) -> None:
        most = self._settings.max_consecutive_nonfinite
        what = "1 update was" if new == 1 else f"{new} updates were"
        ends = f", at {most} the run stops" if most else ""
        self._run.log.warn(
            f"{self._stage} step {step}: {what} skipped, the last of step {last.step} with loss {last.loss:g} and "
            f"gradient norm {last.norm:g}; {self._in_a_row} in a row{ends}; {self._total} so far"
        )

    def _host(self) -> tuple[dict[str, float], dict[str, str]]:
        """Metrics of memory and disk, and what of the memory is low."""
        settings, low = self._settings, {}
        values: dict[str, float] = {}
        if (resident := resident_memory()) is not None:
            values["host/memory_resident_gib"] = resident / GIB
        if (memory := host_memory()) is not None:
            values["host/memory_available_gib"] = memory.available / GIB
            if memory.available < settings.low_host_memory * memory.limit:
                low["memory"] = (
                    f"{memory.available / GIB:.3g} GiB of the host's memory are left of {memory.limit / GIB:.3g}: "
                    "smaller rl.prompts_ahead, data.window, data.media_workers or data.cache_bytes take less"
                )
        values["host/disk_free_gib"] = free_disk(self._run.folder.path) / GIB
        return values, low


def forgiven(state: TrainState) -> TrainState:
    """The state of a run that goes on after it has stopped: its skips no longer count as in a row."""
    return replace(state, skips=replace(state.skips, in_a_row=jnp.zeros_like(state.skips.in_a_row)))


def _counts(state: TrainState) -> tuple[int, int]:
    total, in_a_row = jax.device_get((state.skips.total, state.skips.in_a_row))
    return int(total), int(in_a_row)


def _until_failing(noted: Sequence[NotedUpdate], in_a_row: int, most: int) -> list[NotedUpdate]:
    """The updates up to the one at which `most` in a row were reached, `in_a_row` having been skipped before."""
    for number, update in enumerate(noted, 1):
        in_a_row = 0 if update.finite else in_a_row + 1
        if in_a_row == most:
            return list(noted[:number])
    raise ValueError(f"the updates that were noted reach no {most} in a row")
