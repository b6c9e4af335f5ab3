"""Arrays of a plan that are not there: shapes with the shardings that training gives them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from onethinker_jax.data_pipeline.batches.packing import Batch
from onethinker_jax.model.attention.kv_cache import shard_prompts
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.inputs import ModelInputs, VisionInputs
from onethinker_jax.model.int8_weights import in_decoding_dtypes
from onethinker_jax.model.parameters import split_adapters
from onethinker_jax.model.sharding import DECODE_RULES, TRAIN_RULES, batch_sharding, tree_shardings
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.state import Skips, TrainState, optimizer_shapes

BASE = "frozen base"  # what adapters are added to


def prompt_shapes(prefill: Any, arguments: dict[str, Any]) -> Any:
    """The shapes of the prompts that a prefill returns, laid out as it returns them: by `shard_prompts`."""
    shapes = jax.eval_shape(prefill, *arguments.values())

    def laid_out() -> Any:
        return shard_prompts(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))

    return shard_shapes(shapes, jax.jit(laid_out).lower().compile().output_shardings)


def shard_shapes(tree: Any, shardings: Any) -> Any:
    """The shapes of a tree, laid out by the shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def rows_shape(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """An array of rows, which the devices share."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, shape[0]))


def batch_shapes(rows: int, tokens: int, patches: int, sizes: Qwen3VLConfig, mesh: Mesh) -> Batch:
    """The arrays of `Batch` as `shard_rows` lays them out."""

    def array(dtype: Any, *shape: int) -> Any:
        return rows_shape((rows, *shape), dtype, mesh)

    vision = VisionInputs(
        patches=array(jnp.uint8, patches, sizes.vision.patch_values),
        frame_ids=array(jnp.int32, patches),
        coords=array(jnp.int32, patches, 2),
        embed_index=array(jnp.int32, patches, 4),
        embed_weight=array(jnp.float32, patches, 4),
    )
    inputs = ModelInputs(
        tokens=array(jnp.int32, tokens),
        positions=array(jnp.int32, 3, tokens),
        segment_ids=array(jnp.int32, tokens),
        branch_ids=array(jnp.int32, tokens),
        visual_index=array(jnp.int32, tokens),
        vision=vision,
    )
    return Batch(inputs, array(jnp.int32, tokens), array(jnp.bool_, tokens))


def training_layout(shapes: nnx.State, mesh: Mesh | AbstractMesh) -> dict[str, Any]:
    """By kind what is trained, and beside adapters the base, as they lie while a run trains."""
    trained, base = split_adapters(shard_shapes(shapes, tree_shardings(shapes, mesh, TRAIN_RULES)))
    return {"parameters": trained} | ({} if base is None else {BASE: base})


def decoding_shapes(
    shapes: nnx.State, mesh: Mesh | AbstractMesh, dtype: str, weights_dtype: str | None
) -> nnx.State:
    """The sampler's weights as `decoding_layout` lays them out. Raises ShardingError as `tree_shardings` does."""
    weights = jax.eval_shape(lambda params: in_decoding_dtypes(params, dtype, weights_dtype), shapes)
    return shard_shapes(weights, tree_shardings(weights, mesh, DECODE_RULES))


def moved(tree: nnx.State, others: nnx.State) -> list[Any]:
    """The arrays of `tree` that `decoding_layout` would not share with the `others`: no such one is of its name."""
    same = dict(jax.tree_util.tree_leaves_with_path(others))

    def is_shared(path: Any, leaf: Any) -> bool:
        other = same.get(path)
        return (
            other is not None
            and leaf.dtype == other.dtype
            and leaf.sharding.is_equivalent_to(other.sharding, leaf.ndim)
        )

    return [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if not is_shared(path, leaf)]


def state_shapes(
    params: nnx.State, optimizer: Any, tasks: int, mesh: Mesh | AbstractMesh, *, reference: bool
) -> tuple[TrainState, nnx.State]:
    """The train state around `params`, and the gradient sums, as `init_state` and `Update.zeros` lay them out."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    moments = optimizer_shapes(optimizer, params)
    small = jax.eval_shape(lambda: (jnp.zeros((), jnp.int32), init_moments(tasks), Skips.none()))
    step, task_moments, skips = shard_shapes(small, jax.tree.map(lambda _: everywhere, small))
    gradients = jax.tree.map(lambda leaf: leaf.update(dtype=jnp.float32), params)
    state = TrainState(
        params,
        shard_shapes(moments, tree_shardings(moments, mesh)),
        step,
        task_moments,
        skips,
        params if reference else None,
    )
    return state, gradients
