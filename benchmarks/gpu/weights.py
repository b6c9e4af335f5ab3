"""Random weights, made on the device: a model's speed does not depend on them, and no file is needed."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import tree_shardings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.policy import abstract_model


def fresh_weights(
    sizes: Qwen3VLConfig, config: TrainConfig, mesh: Mesh, **rules: Any
) -> tuple[nnx.GraphDef, nnx.State]:
    """Random weights of these sizes in the master dtype, made on the device."""
    settings = config.model
    graphdef, shapes = nnx.split(abstract_model(sizes, settings))
    dtype = jnp.dtype(settings.master_dtype)

    def fresh() -> nnx.State:
        return nnx.state(Qwen3VL(sizes, rngs=nnx.Rngs(0), dtype=dtype, remat=settings.remat))

    return graphdef, jax.jit(fresh, out_shardings=tree_shardings(shapes, mesh, **rules))()
