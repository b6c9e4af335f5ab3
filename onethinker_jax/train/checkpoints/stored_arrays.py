"""The arrays of a checkpoint by their names: their shapes without reading them, and one at a time on the host.

An array comes back whole, whatever mesh and how many processes wrote its parts.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from onethinker_jax.train.checkpoints.orbax_calls import quiet, reads_ended

_STATE = "state"
Keys = tuple[str, ...]


class StoredArrays:
    """The parameters of a checkpoint; `shapes` has the shape and dtype of each by its dotted name."""

    def __init__(self, checkpoint: epath.Path, as_error: Callable[[Exception], Exception]):
        """`as_error` makes an error that names the checkpoint of one that Orbax raises."""
        self._path, self._as_error = epath.Path(checkpoint) / _STATE, as_error
        self._checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        try:
            with quiet():
                stored = _stored(self._path)
        except (ValueError, KeyError, OSError) as error:
            raise as_error(error) from error
        params = {keys[1:]: one for keys, one in stored.items() if keys[0] == "params"}
        self._keys = {".".join(key for key in keys if key != "value"): keys for keys in params}
        self.shapes = {
            name: jax.ShapeDtypeStruct(params[keys].shape, params[keys].dtype)
            for name, keys in self._keys.items()
        }

    def read(self, name: str) -> np.ndarray:
        """One parameter, as it is stored; nothing else is read, and nothing kept."""
        item: Any = 0
        args: Any = ocp.RestoreArgs(restore_type=np.ndarray)
        for key in reversed(("params", *self._keys[name])):
            item, args = {key: item}, {key: args}
        wanted = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
        try:
            with quiet(), reads_ended():
                restored = self._checkpointer.restore(self._path, args=wanted)
        except (ValueError, KeyError, OSError) as error:
            raise self._as_error(error) from error
        return jax.tree.leaves(restored)[0]


def shape_error(checkpoint: epath.Path, like: Any) -> str | None:
    """How the arrays of a checkpoint differ from those of the state `like`, by the first one; None where they agree."""
    try:
        with quiet():
            stored = _stored(epath.Path(checkpoint) / _STATE)
    except (ValueError, KeyError, OSError):
        return None  # to restore it will say why
    wanted = {_keys_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
    for keys in sorted(wanted.keys() | stored.keys(), key=lambda keys: (keys[0] != "params", keys)):
        name = ".".join(key for key in keys if key != "value")
        if keys not in stored:
            return f"it holds no {name}"
        if keys not in wanted:
            return f"it holds {name}, which this run has not"
        theirs, mine = stored[keys], wanted[keys]
        if (tuple(theirs.shape), str(theirs.dtype)) != (tuple(mine.shape), str(mine.dtype)):
            return f"its {name} is {theirs.dtype} {list(theirs.shape)}, and this run's {mine.dtype} {list(mine.shape)}"
    return None


def _stored(state: epath.Path) -> dict[Keys, Any]:
    """What is stored of each array, by the names of the nodes above it."""
    tree = ocp.PyTreeCheckpointHandler().metadata(state)
    return {_keys_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree.tree)}


def _keys_of(path: tuple[Any, ...]) -> Keys:
    parts = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return tuple(str(part) for part in parts)
