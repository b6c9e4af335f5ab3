"""Orbax checkpoints: one atomic step holds the TrainState and what the host must remember.

The host part is JSON: the stage, its update count, the loader's position, groups waiting in the filter.
"""

import asyncio
import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from onethinker_jax.errors import UserError
from onethinker_jax.train.state import TrainState


class CheckpointError(UserError):
    """A checkpoint that cannot be read; the message names it. Training never starts afresh in its place."""


class Checkpoints:
    """The checkpoints of one run, numbered by update over both stages; the newest `keep` are kept."""

    def __init__(self, directory: Path, *, keep: int | None):
        self.directory = directory
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, number: int, state: TrainState, host: dict[str, Any]) -> None:
        """Starts writing; training goes on meanwhile. A step that was already saved is left as it is."""
        if number in self._manager.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host))
        self._manager.save(number, args=items)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Number and host part of the newest checkpoint; None when there is none."""
        self._manager.wait_until_finished()
        number = self._manager.latest_step()
        if number is None:
            return None
        return number, self._read(number, host=ocp.args.JsonRestore())["host"]

    def restore(self, number: int, like: TrainState) -> TrainState:
        """The state of checkpoint `number`, with the structure and shardings of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._read(number, state=ocp.args.StandardRestore(target))["state"]

    def parameters(self, number: int) -> dict[str, Any]:
        """The parameters of checkpoint `number` as {dotted name: array}, whatever the optimiser was."""
        restored = self._read(number, state=ocp.args.StandardRestore())
        leaves = jax.tree_util.tree_leaves_with_path(restored["state"]["params"])
        named = (([str(getattr(key, "key", key)) for key in path], leaf) for path, leaf in leaves)
        return {".".join(part for part in path if part != "value"): leaf for path, leaf in named}

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _read(self, number: int, **items: Any) -> Any:
        """Items of a checkpoint; whatever is wrong with it is one CheckpointError."""
        absl = logging.getLogger("absl")  # would say the same in its own words
        level = absl.level
        absl.setLevel(logging.CRITICAL)
        try:
            with _reads_ended():
                return self._manager.restore(number, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" …")
            raise CheckpointError(
                f"checkpoint {self.directory / str(number)} cannot be restored: {reason} (delete it to go on "
                "from the one before)"
            ) from error
        finally:
            absl.setLevel(level)


class _PatientLoop(asyncio.SelectorEventLoop):
    """An event loop that ends its tasks before it closes.

    Orbax reads many arrays at once in a loop of its own and closes it at the first error: reads that end later would
    find no loop, and what they raise would be printed long after the error that was named.
    """

    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _PatientLoop()


@contextmanager
def _reads_ended() -> Iterator[None]:
    """Whatever Orbax reads within the block is over at its end."""
    outer = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_PatientLoops())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(outer)
