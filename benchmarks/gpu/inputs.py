"""Prompts and packed rows of random tokens and images, of exact lengths."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.cases import Scale
from onethinker_jax.data_pipeline.batches.packing import Batch, pack_rows
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.inputs import mrope_positions, patch_geometry
from onethinker_jax.train.cost.attention_layout import AttentionLayout, RowLayouts


def example_of(sizes: Qwen3VLConfig, tokens: int, scale: Scale, seed: int = 0) -> Example:
    """`tokens` tokens, a multiple of `scale.unit`: in each unit an image between text; every token is a target."""
    rng, vision, units = np.random.default_rng(seed), sizes.vision, tokens // scale.unit
    image = (scale.side // vision.merge_size) ** 2
    before = (scale.unit - image - 2) // 2
    special = {
        sizes.image_token_id,
        sizes.video_token_id,
        sizes.vision_start_token_id,
        sizes.vision_end_token_id,
    }
    text = np.setdiff1d(np.arange(min(sizes.text.vocab_size, 4096)), list(special))
    ids = rng.choice(text, (units, scale.unit))
    ids[:, before] = sizes.vision_start_token_id
    ids[:, before + 1 : before + 1 + image] = sizes.image_token_id
    ids[:, before + 1 + image] = sizes.vision_end_token_id
    ids = ids.reshape(-1).astype(np.int32)
    grids = np.array([[1, scale.side, scale.side]] * units, np.int32)
    positions = mrope_positions(
        ids,
        grids,
        None,
        image_token_id=sizes.image_token_id,
        video_token_id=sizes.video_token_id,
        vision_start_token_id=sizes.vision_start_token_id,
        merge=vision.merge_size,
    )
    frame_ids, coords, index, weight = patch_geometry(grids, vision.merge_size, vision.grid_side)
    visual = ids == sizes.image_token_id
    return Example(
        tokens=ids,
        positions=positions,
        loss_mask=np.ones(tokens, bool),
        visual_index=np.where(visual, np.cumsum(visual) - 1, -1).astype(np.int32),
        patches=rng.integers(0, 256, (len(frame_ids), vision.patch_values), dtype=np.uint8),
        grids=grids,
        frame_ids=frame_ids,
        coords=coords,
        embed_index=index,
        embed_weight=weight,
        next_position=int(positions.max()) + 1,
    )


def packed_row(sizes: Qwen3VLConfig, tokens: int, scale: Scale) -> Batch:
    """A row of `tokens` tokens, packed with examples of `scale.unit`."""
    examples = [example_of(sizes, scale.unit, scale, seed=number) for number in range(tokens // scale.unit)]
    batch, left = pack_rows(examples, rows=1, tokens=tokens, patches=scale.patches(tokens))
    assert not left
    return batch


def packed_layout(tokens: int, scale: Scale) -> AttentionLayout:
    """How segments lie in `packed_row`; a frame of patches is an image."""
    units = tokens // scale.unit
    return AttentionLayout(
        RowLayouts(tokens, Counter({((scale.unit,),) * units: 1})),
        RowLayouts(scale.patches(tokens), Counter({((scale.side**2,),) * units: 1})),
    )


def prompt_layout(tokens: int, scale: Scale) -> AttentionLayout:
    """How segments lie in a row that a prompt of `example_of` fills."""
    images = packed_layout(tokens, scale).patches
    return AttentionLayout(RowLayouts(tokens, Counter({((tokens,),): 1})), images)


def waves_like(shapes: object) -> object:
    """Arrays of these shapes on the device: sines that no two places share, whole numbers 0.

    A cache may fill most of a GPU's memory: random numbers would need several times its size while they are made.
    """

    def fill(shape: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            return jnp.zeros(shape.shape, shape.dtype)
        angles = jnp.zeros((), jnp.float32)
        for axis in range(len(shape.shape)):
            places = jax.lax.broadcasted_iota(jnp.float32, shape.shape, axis)
            angles = angles + places * (axis + 1) ** 0.5
        return jnp.sin(angles).astype(shape.dtype)

    def made(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.jit(partial(fill, leaf), out_shardings=leaf.sharding)()

    return jax.tree.map(made, shapes)
