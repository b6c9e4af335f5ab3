"""Orbax checkpoints: one atomic step holds the TrainState and what the host must remember.

The host part is JSON: the stage, its update count, the loader's position, groups waiting in the filter. Beside it lie
the checksums of all files (`checksums.py`), and the held-out score where there is one.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from onethinker_jax.errors import UserError
from onethinker_jax.files import rename_folder, write_whole
from onethinker_jax.train.checkpoints.checksums import damage, write_checksums
from onethinker_jax.train.checkpoints.keeping import HELDOUT, NUMBER, Described, policy, rank
from onethinker_jax.train.checkpoints.orbax_calls import one_line, quiet, reads_ended
from onethinker_jax.train.checkpoints.stored_arrays import StoredArrays, shape_error
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.state import TrainState

LAYOUT = 2
"""Number of what a checkpoint holds and how; another one is refused. It rises with every change of these."""
METRICS = "metrics"
"""Orbax's name for the folder, and the file in it, of a checkpoint's metrics."""
DAMAGED = ".damaged"
"""What is added to the name of a damaged checkpoint that a run does not go on from."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read or written; the message names it. Training never starts afresh in its place."""


class Checkpoints:
    """The checkpoints of one run, numbered by update over both stages.

    With `settings` it writes, and deletes what these do not keep; without, it only reads, and makes nothing.
    """

    def __init__(self, directory: str | os.PathLike[str], settings: CheckpointSettings | None = None):
        self.directory = epath.Path(directory)
        self._settings = settings
        self._writing: int | None = None  # the newest number that was given to Orbax
        self._good: set[int] = set()  # were held against their checksums
        try:
            with quiet():
                self._manager = ocp.CheckpointManager(absolute(self.directory), options=self._options())
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"{self.directory}: cannot be opened: {one_line(error)}") from error

    def save(
        self, number: int, state: TrainState, host: dict[str, Any], *, heldout: float | None = None
    ) -> float:
        """Begins checkpoint `number`; returns the seconds that this took, after which training may go on.

        They are those of copying the state, and more where the checkpoint before is still being written. A number that
        was already saved is left as it is. `heldout` is the held-out score of the state's model. Raises CheckpointError
        where this checkpoint or the one before cannot be written.
        """
        began = time.perf_counter()
        self._finish()
        if number not in self._manager.all_steps():
            self._writing = number
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), host=ocp.args.JsonSave({"layout": LAYOUT, **host})
            )
            metrics = None if heldout is None else {HELDOUT: heldout, NUMBER: number}
            try:
                with quiet():
                    self._manager.save(number, args=items, metrics=metrics)
            except (ValueError, OSError) as error:
                raise self._not_written(error) from error
        return time.perf_counter() - began

    def add_score(self, number: int, heldout: float) -> None:
        """Gives a checkpoint the held-out score that it was written without, where Orbax looks for it."""
        folder = self.directory / str(number) / METRICS
        folder.mkdir(exist_ok=True)
        file, text = folder / METRICS, json.dumps({HELDOUT: heldout, NUMBER: number})
        if "://" in str(file):
            file.write_text(text)  # an object of a bucket is whole or absent
        else:
            write_whole(Path(file), text)  # a half of it would keep Orbax from opening the checkpoints
        self.numbers()

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints that are whole, as they lie there now."""
        self._finish()
        with quiet():
            self._manager.reload()
        return sorted(self._manager.all_steps())

    def described(self) -> list[Described]:
        """The whole checkpoints with their held-out scores, oldest first."""
        with quiet():
            return [Described(number, self._manager.metrics(number)) for number in self.numbers()]

    def score(self, number: int) -> float | None:
        """The held-out score of a checkpoint, if it has one."""
        with quiet():
            metrics = self._manager.metrics(number)
        return None if metrics is None else metrics[HELDOUT]

    def best(self) -> int | None:
        """Number of the checkpoint with the best held-out score; None where none has one."""
        scored = {one.step: rank(one.metrics) for one in self.described() if one.metrics is not None}
        return max(scored, key=scored.__getitem__) if scored else None

    def newest(self, *, verified: bool = False) -> tuple[int, dict[str, Any]] | None:
        """Number and host part of the newest checkpoint; None when there is none.

        It is held against its checksums, unless another process has `verified` it. Raises CheckpointError naming a file
        that is damaged, or where another version of the program wrote it.
        """
        numbers = self.numbers()
        if not numbers:
            return None
        number = numbers[-1]
        if not verified:
            self.verify(number)
        return number, self.host(number)

    def host(self, number: int, *, of_any_layout: bool = False) -> dict[str, Any]:
        """The host part of a checkpoint; raises CheckpointError where another version of the program wrote it.

        `of_any_layout` is for whoever wants no more than the parameters, which all layouts hold alike.
        """
        host = self._read(number, host=ocp.args.JsonRestore())["host"]
        if (layout := host.get("layout", 1)) != LAYOUT and not of_any_layout:
            raise CheckpointError(
                f"checkpoint {self.directory / str(number)} is of layout {layout}, and this version of onethinker_jax "
                f"reads layout {LAYOUT}: go on with the version that wrote it, or choose another --name"
            )
        return host

    def verify(self, number: int) -> None:
        """Raises CheckpointError naming the first file of a checkpoint that is not as it was written."""
        if number not in self._good and (found := damage(self.directory / str(number))):
            raise self._not_restored(number, found)
        self._good.add(number)

    def settle(self) -> list[str]:
        """Makes sure that the newest checkpoint is good; what is to be said of those that were set aside for that.

        Raises CheckpointError naming the damaged file, unless `on_damaged` says to go on from an older one.
        """
        said: list[str] = []
        while numbers := self.numbers():
            try:
                self.verify(numbers[-1])
                break
            except CheckpointError as error:
                if self._settings is None or self._settings.on_damaged == "stop" or len(numbers) == 1:
                    raise
                aside = self.set_aside(numbers[-1])
                said.append(f"{error}; it is now {aside}, and this run goes on from checkpoint {numbers[-2]}")
        return said

    def set_aside(self, number: int) -> epath.Path:
        """Gives a damaged checkpoint another name, under which nothing takes it for one."""
        return rename_folder(self.directory / str(number), f"{number}{DAMAGED}")

    def restore(self, number: int, like: TrainState) -> TrainState:
        """The state of checkpoint `number`, with the structure and shardings of `like`."""
        found = shape_error(self.directory / str(number), like)
        if found is not None:
            raise CheckpointError(f"checkpoint {self.directory / str(number)} is of other settings: {found}")
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._read(number, state=ocp.args.StandardRestore(target))["state"]

    def arrays(self, number: int) -> StoredArrays:
        """The parameters of checkpoint `number`, each read when it is asked for, whatever the optimiser was."""
        return StoredArrays(
            self.directory / str(number), lambda error: self._not_restored(number, one_line(error))
        )

    def delete(self, number: int) -> None:
        """Deletes a checkpoint."""
        (self.directory / str(number)).rmtree()

    def missing(self) -> bool:
        """Whether the folder was removed under the run."""
        return not self.directory.exists()

    def begin_anew(self) -> None:
        """Makes the folder again after somebody has removed it; what it held is forgotten."""
        absolute(self.directory).mkdir(parents=True, exist_ok=True)
        self._good.clear()
        self.numbers()

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._finish()
        with quiet():
            self._manager.close()

    def _options(self) -> ocp.CheckpointManagerOptions:
        if self._settings is None:
            return ocp.CheckpointManagerOptions(read_only=True)
        return ocp.CheckpointManagerOptions(
            preservation_policy=policy(self._settings.keep),
            best_fn=rank,  # type: ignore[arg-type]  # only says that there are metrics
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._before_commit),
        )

    def _finish(self) -> None:
        """Waits until what was begun is on disk; raises CheckpointError where it cannot be written."""
        try:
            with quiet():
                self._manager.wait_until_finished()
        except (ValueError, OSError) as error:
            raise self._not_written(error) from error

    def _before_commit(self) -> None:
        """Writes the checksums of a checkpoint whose files are written; on the thread that writes, of one process."""
        assert self._settings is not None
        if self._settings.checksums:
            final = absolute(self.directory) / str(self._writing)
            # In a bucket the files lie in their place, and a last one says that they are whole.
            unfinished = [
                path for path in final.parent.iterdir() if path.name.startswith(f"{final.name}.orbax-")
            ]
            write_checksums(unfinished[0] if unfinished else final)

    def _not_written(self, error: Exception) -> CheckpointError:
        where = self.directory / str(self._writing)
        return CheckpointError(f"checkpoint {where} cannot be written: {one_line(error)}")

    def _not_restored(self, number: int, reason: str) -> CheckpointError:
        where, older = self.directory / str(number), [one for one in self.numbers() if one < number]
        good = next((one for one in reversed(older) if damage(self.directory / str(one)) is None), None)
        if good is None:
            hint = "no older one is good: put it back, or choose another --name"
        else:
            hint = (
                f"checkpoint {good} is good: train goes on from it with --checkpoints.on-damaged older, export reads "
                f"it with --step {good}"
            )
        return CheckpointError(f"checkpoint {where} cannot be restored: {reason} ({hint})")

    def _read(self, number: int, **items: Any) -> Any:
        """Items of a checkpoint; whatever is wrong with it is one CheckpointError."""
        try:
            with quiet(), reads_ended():
                return self._manager.restore(number, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            raise self._not_restored(number, one_line(error)) from error


def absolute(directory: epath.Path) -> epath.Path:
    """The directory as Orbax wants it."""
    return directory if "://" in str(directory) else epath.Path(os.path.abspath(directory))
