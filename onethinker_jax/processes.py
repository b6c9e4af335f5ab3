"""The processes of one command on several hosts: who they are, and how they agree.

All processes run the same program. They agree through `Processes.gather`, `any`, `first_does` and `all_do`: every
process calls these methods, in the same order.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from onethinker_jax.errors import UserError
from onethinker_jax.host_settings import HostSettings

Result = TypeVar("Result")

CHUNK_BYTES = 2**16  # bytes that go between processes at a time
HEADER = 8  # bytes that say how long a message is


class HostError(UserError):
    """Another process failed, or the work was begun with another number of them. One line that says which."""


@dataclass(frozen=True)
class Processes:
    """This process's number among all, and how many there are."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes what there is once."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, which must be one that JSON can hold, in the order of their numbers."""
        if self.count == 1:
            return [value]
        text = json.dumps(value).encode()
        mine = len(text).to_bytes(HEADER, "little") + text
        chunks = [_exchange(mine, 0)]
        sizes = [HEADER + int.from_bytes(row[:HEADER].tobytes(), "little") for row in chunks[0]]
        chunks += [_exchange(mine, start) for start in range(CHUNK_BYTES, max(sizes), CHUNK_BYTES)]
        rows = np.concatenate(chunks, axis=1)
        return [json.loads(row[HEADER:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return any(self.gather(flag))

    def first_does(self, action: Callable[[], object]) -> None:
        """The first process acts while the others wait; when it fails, all do.

        Raises the action's error in the first process, HostError in the others.
        """
        failure: Exception | None = None
        if self.leads:
            try:
                action()
            except Exception as error:  # noqa: BLE001  raised below, once the others know of it
                failure = error
        said = self.gather(None if failure is None else str(failure))[0]
        if failure is not None:
            raise failure
        if said is not None:
            raise HostError(f"the first process failed: {said}")

    def all_do(self, action: Callable[[], Result]) -> Result:
        """Every process acts, and waits for the others; when one fails, all do.

        Raises this process's own error, or HostError where it was another's.
        """
        result, failure = None, None
        try:
            result = action()
        except Exception as error:  # noqa: BLE001  raised below, once the others know of it
            failure = error
        said = self.gather(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        for number, reason in enumerate(said):
            if reason is not None:
                raise HostError(f"process {number}: {reason}")
        return cast(Result, result)


def _exchange(message: bytes, start: int) -> np.ndarray:
    """uint8 [processes, CHUNK_BYTES], a chunk of every process's message: of one size, or each would be compiled."""
    chunk = np.zeros(CHUNK_BYTES, np.uint8)
    part = message[start : start + CHUNK_BYTES]
    chunk[: len(part)] = np.frombuffer(part, np.uint8)
    return multihost_utils.process_allgather(chunk)


def join_processes(settings: HostSettings) -> Processes:
    """Joins the other processes of the command, once they are there; JAX must not have been used before.

    Raises HostError when they do not come, or the settings do not say who they are.
    """
    if settings.coordinator is None:
        return Processes()
    auto = settings.coordinator == "auto"
    try:
        if auto:
            jax.distributed.initialize(local_device_ids=[] if _alone_on_its_host() else None)
        else:
            jax.distributed.initialize(settings.coordinator, settings.count, settings.index)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        what = "this is no cluster that JAX knows" if auto else "the processes did not find each other"
        raise HostError(f"hosts.coordinator {settings.coordinator}: {what} ({reason})") from error
    return Processes(jax.process_index(), jax.process_count())


def _alone_on_its_host() -> bool:
    """Whether Slurm or Open MPI started one process on each host, which is to have all GPUs of it.

    JAX takes both for launchers of one process a GPU, and shows a process the GPU of its number on the host alone;
    an empty list of devices stands for all. JAX_LOCAL_DEVICE_IDS says it otherwise.
    """
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return False
    tasks, nodes = (os.environ.get(f"SLURM_STEP_NUM_{name}") for name in ("TASKS", "NODES"))
    return (tasks is not None and tasks == nodes) or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
