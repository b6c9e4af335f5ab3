"""How the processes of a run hear of each other's notices, and where all of them stop.

They write to and read from the key-value store of JAX's coordination service, which no device takes part in. JAX's own
`multihost_utils.reached_preemption_sync_point` is not enough here: it says so only at a step's end, when a rollout may
be minutes long, it hears SIGTERM by a handler of its own that knows no deadline, and Orbax asks it too, with numbers of
checkpoints. How all agree on where to stop is its way: each says how far it is, and all stop one step after the
furthest.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jax._src import distributed  # where the coordination service's client is; Orbax takes it from there too
from jax.errors import JaxRuntimeError

from onethinker_jax.processes import Processes

POLL_S = 0.5
_KINDS, _PLACES = "onethinker/stop/kind/", "onethinker/stop/place/"


class Peers:
    """The other processes of a run, as one of them sees them."""

    def __init__(self, processes: Processes):
        """`processes` says who this is and how many there are; JAX's coordination service must run."""
        self._index, self._count = processes.index, processes.count
        self._client: Any = distributed.global_state.client
        self._lock = threading.Lock()
        self._calls = 0
        self._last: int | None = None  # the call of `reached` at which all processes stop

    def reached(self) -> bool:
        """Whether all processes stop at this call, which each of them makes equally often.

        Waits, once a stop is known, until all have said how far they are.
        """
        with self._lock:
            self._calls += 1
            return self._last is not None and self._calls >= self._last

    @contextmanager
    def following(self, own: Callable[[], int], hear: Callable[[int], None]) -> Iterator[None]:
        """For the block a thread tells the others the kind of stop that `own` gives, and calls `hear` with theirs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._follow, args=(own, hear, ended), name="peers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _follow(self, own: Callable[[], int], hear: Callable[[int], None], ended: threading.Event) -> None:
        known = 0
        try:
            while not ended.wait(POLL_S):
                if (mine := own()) > known:
                    self._client.key_value_set(f"{_KINDS}{int(mine)}", "", allow_overwrite=True)
                kinds = [int(key.rpartition("/")[2]) for key, _ in self._client.key_value_dir_get(_KINDS)]
                if (told := max([*kinds, known])) > known:
                    hear(told)
                    known = told
                if known and self._last is None:
                    self._meet(ended)
        except JaxRuntimeError:  # the service is gone, and JAX ends the processes that it has served
            return

    def _meet(self, ended: threading.Event) -> None:
        """Finds out where all stop; nobody goes on meanwhile."""
        with self._lock:
            self._client.key_value_set(f"{_PLACES}{self._index}", str(self._calls), allow_overwrite=True)
            places: list[int] = []
            while len(places) < self._count:
                if ended.wait(0.02):
                    return
                places = [int(value) for _, value in self._client.key_value_dir_get(_PLACES)]
            self._last = max(places) + 1
