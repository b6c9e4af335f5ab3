"""Parameters that lie somewhere, read one after another: a directory of them is written without a model in memory.

`hf_weights.py` has the table of names, and the writing of the directory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.hf_weights import (
    TABLE,
    Beside,
    expected_tensors,
    find_parameters,
    load_parameter,
    parameter_name,
    turned,
    write_directory,
)
from onethinker_jax.model.safetensors_files import Tensor


@dataclass(frozen=True)
class StoredParameter:
    """A parameter of ours that lies somewhere: `read` gives it whole, on the host; as `dtype` it is written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def rounded(self) -> np.ndarray:
        """The whole parameter in its `dtype`."""
        return self.read().astype(self.dtype, copy=False)


def stored_parameters(path: str | Path, *, dtype: Any) -> list[StoredParameter]:
    """The parameters of a directory, in `dtype`. Raises as `load_hf` does, of what it finds without reading weights."""
    config, _, flat, tensors = find_parameters(Path(path), dtype, "none")
    wanted = jnp.dtype(dtype)

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(load_parameter(name, shape, config, tensors, None, wanted))

    return [
        StoredParameter(name, value.shape, np.dtype(wanted), partial(read, name, value.shape))
        for name, value in ((parameter_name(key), value) for key, value in flat.items())
    ]


def save_parameters(
    parameters: Iterable[StoredParameter],
    config: Qwen3VLConfig,
    path: str | Path,
    *,
    beside: Beside | None = None,
    max_file_bytes: int = 5 * 10**9,
) -> None:
    """As `save_hf`, of parameters that are read one after another: no two of them are in memory at a time."""
    newest = _NewestRead()
    tensors = [tensor for one in parameters for tensor in _stored_tensors(one, config, newest)]
    write_directory(tensors, config, Path(path), beside or Beside(), max_file_bytes)


class _NewestRead:
    """The parameter that was read last: its layers are cut out of one reading, and it goes before the next comes."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._values: np.ndarray | None = None

    def values(self, parameter: StoredParameter) -> np.ndarray:
        if parameter.name != self._name or self._values is None:
            self._values = None
            self._name, self._values = parameter.name, parameter.read()
        return self._values


def _stored_tensors(
    parameter: StoredParameter, config: Qwen3VLConfig, newest: _NewestRead
) -> Iterator[Tensor]:
    """The checkpoint's tensors of one parameter, which is read when the first of them is written."""
    name, layout = TABLE[parameter.name]

    def fetch(layer: int | None) -> np.ndarray:
        values = newest.values(parameter)
        one = (values if layer is None else values[layer]).astype(parameter.dtype, copy=False)
        return turned(one, layout)

    for layer, (full_name, shape) in enumerate(expected_tensors(parameter.name, parameter.shape, config)):
        yield Tensor(full_name, parameter.dtype, shape, partial(fetch, layer if "{}" in name else None))
