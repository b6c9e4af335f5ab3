"""The model of a checkpoint: its parameters one by one, each read when it is asked for, or all of them as a policy.

A checkpoint of any mesh and any number of processes is read by one process. Of a run with LoRA the base is read from
its own files in the same way, and the adapters are merged into one parameter at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.model.lora import add_adapters, merged_kernel
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.stored_parameters import StoredParameter, stored_parameters
from onethinker_jax.train.checkpoints.adapter_record import AdapterRecord
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.checkpoints.standing import checkpoints_of
from onethinker_jax.train.checkpoints.stored_arrays import StoredArrays
from onethinker_jax.train.run_folder import RunFolder


@dataclass(frozen=True)
class StoredModel:
    """The model of a run's checkpoint `number`, adapters merged, and what these are of."""

    config: Qwen3VLConfig
    parameters: list[StoredParameter]
    arrays: StoredArrays
    adapters: AdapterRecord | None
    number: int
    newest: bool
    heldout: float | None

    def in_dtype(self, dtype: str | None) -> "StoredModel":
        """The same, its parameters rounded to `dtype` as they are read."""
        if dtype is None:
            return self
        wanted = np.dtype(jnp.dtype(dtype))
        return replace(self, parameters=[replace(one, dtype=wanted) for one in self.parameters])

    def merged_policy(self, dtype: Any) -> Qwen3VL:
        """The whole model on the default device, in `dtype`, rounded to the parameters' own before."""
        model = nnx.eval_shape(lambda: Qwen3VL(self.config, rngs=nnx.Rngs(0)))
        graphdef, shapes = nnx.split(model)
        stored = {one.name: one for one in self.parameters}
        flat = [
            (path, variable.replace(jnp.asarray(stored[_name(path)].rounded().astype(dtype))))
            for path, variable in nnx.to_flat_state(shapes)
        ]
        return nnx.merge(graphdef, nnx.from_flat_state(flat))

    def policy(self) -> Qwen3VL:
        """The policy as it was trained, on the default device: with adapters beside their base."""
        if self.adapters is None:
            model = nnx.eval_shape(lambda: Qwen3VL(self.config, rngs=nnx.Rngs(0)))
        else:
            model = load_hf(self.adapters.base, dtype=jnp.dtype(self.adapters.dtype))
            add_adapters(model, self.adapters.lora, rngs=nnx.Rngs(0), dtype=jnp.dtype(jnp.float32))
        graphdef, shapes = nnx.split(model)
        trained, base = split_adapters(shapes)
        flat = [
            (path, variable.replace(jnp.asarray(self.arrays.read(_name(path)))))
            for path, variable in nnx.to_flat_state(trained)
        ]
        return nnx.merge(graphdef, join_adapters(nnx.from_flat_state(flat), base))


def load_run(run: Path) -> Qwen3VL:
    """The policy of a run's newest checkpoint; raises CheckpointError when there is none."""
    return stored_model(run).policy()


def stored_model(run: Path, step: str = "newest") -> StoredModel:
    """The model of a run's checkpoint: the newest, the best by its held-out score, or one by its number.

    Raises CheckpointError where there is no such checkpoint, or it is damaged.
    """
    folder = RunFolder(run)
    checkpoints, _ = checkpoints_of(run)
    config = Qwen3VLConfig.from_directory(folder.base)
    number = _number(checkpoints, step)
    checkpoints.verify(number)
    host, arrays = checkpoints.host(number, of_any_layout=True), checkpoints.arrays(number)
    scores = {one.step: one.metrics for one in checkpoints.described()}
    record = AdapterRecord.from_json(host["adapters"]) if "adapters" in host else None
    if record is None:
        parameters = _whole(config, arrays, checkpoints, number)
    else:
        record.check_base(checkpoints.directory / str(number))
        parameters = _merged(record, arrays)
    metrics = scores[number]
    checkpoints.close()
    heldout = None if metrics is None else metrics["heldout"]
    return StoredModel(config, parameters, arrays, record, number, number == max(scores), heldout)


def _number(checkpoints: Checkpoints, step: str) -> int:
    numbers = checkpoints.numbers()
    if not numbers:
        raise CheckpointError(f"{checkpoints.directory}: holds no checkpoint yet")
    if step == "newest":
        return numbers[-1]
    if step == "best":
        best = checkpoints.best()
        if best is None:
            raise CheckpointError(
                f"{checkpoints.directory}: no checkpoint has a held-out score (evaluation.every makes them)"
            )
        return best
    if int(step) not in numbers:
        raise CheckpointError(f"{checkpoints.directory}: holds {', '.join(map(str, numbers))}, not {step}")
    return int(step)


def _whole(
    config: Qwen3VLConfig, arrays: StoredArrays, checkpoints: Checkpoints, number: int
) -> list[StoredParameter]:
    model = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))
    wanted = {
        _name(path): variable.shape for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    if wrong := sorted(
        name
        for name, shape in wanted.items()
        if name not in arrays.shapes or arrays.shapes[name].shape != shape
    ):
        raise CheckpointError(
            f"checkpoint {checkpoints.directory / str(number)} does not hold the model of the run's base/config.json: "
            f"{wrong[0]} is missing or of another shape"
        )
    return [
        StoredParameter(name, shape, np.dtype(arrays.shapes[name].dtype), partial(arrays.read, name))
        for name, shape in wanted.items()
    ]


def _merged(record: AdapterRecord, arrays: StoredArrays) -> list[StoredParameter]:
    """The base's parameters, those that have adapters with these added as they are read."""

    def read(parameter: StoredParameter, pair: Mapping[str, str]) -> np.ndarray:
        kernel, a, b = parameter.read(), arrays.read(pair["a"]), arrays.read(pair["b"])
        return np.asarray(
            merged_kernel(jnp.asarray(kernel), jnp.asarray(a), jnp.asarray(b), record.lora.scale)
        )

    found: list[StoredParameter] = []
    for parameter in stored_parameters(record.base, dtype=jnp.dtype(record.dtype)):
        module = parameter.name.removesuffix(".kernel")
        pair = {letter: f"{module}.lora.{letter}" for letter in "ab"}
        if pair["a"] in arrays.shapes:
            parameter = replace(parameter, read=partial(read, parameter, pair))
        found.append(parameter)
    return found


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
