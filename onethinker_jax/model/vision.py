"""The vision tower: flattened patches -> ViT -> merged visual tokens, and the DeepStack features.

Everything has a fixed shape: a row holds P patches of any number of images and video frames, told apart by
`frame_ids`; position embeddings are interpolated by four indices and weights a patch; the patch
convolution is a matrix product. Blocks are scanned, so compile time does not grow with depth. `qwen3_vl.py` has the
legend of the axis letters; D is the tower's width here, and out_D the decoder's.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.attention import attention
from onethinker_jax.model.config import VisionConfig
from onethinker_jax.model.inputs import VisionInputs
from onethinker_jax.model.layers import LayerNorm, Linear, Remat, recompute, stack_layers, wide
from onethinker_jax.model.rope import rotate, vision_rope
from onethinker_jax.model.sharding import BATCH_AXES, constrain, gather_weights


class VisionBlock(nnx.Module):
    """x + attention(norm x) within a frame, then x + MLP(norm x) with tanh GELU."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        size = config.hidden_size
        self.norm1 = LayerNorm(size, dtype=dtype)
        self.norm2 = LayerNorm(size, dtype=dtype)
        self.qkv = Linear(size, 3 * size, bias=True, rngs=rngs, dtype=dtype)
        gain = (2 * config.depth) ** -0.5  # of what is added to the residual stream, 2 x depth times
        self.proj = Linear(size, size, bias=True, rngs=rngs, dtype=dtype, gain=gain)
        self.fc1 = Linear(size, config.intermediate_size, bias=True, rngs=rngs, dtype=dtype)
        self.fc2 = Linear(config.intermediate_size, size, bias=True, rngs=rngs, dtype=dtype, gain=gain)
        self.num_heads = config.num_heads

    def __call__(
        self, x: Float[Array, "B P D"], frame_ids: Int[Array, "B P"], cos: Array, sin: Array
    ) -> Float[Array, "B P D"]:
        """`frame_ids` bound what a patch sees; `cos` and `sin`, float32 [B, P, H], are those of `vision_rope`."""
        rows, count, size = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(rows, count, 3, self.num_heads, size // self.num_heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        query = rotate(query.astype(jnp.float32), cos, sin).astype(x.dtype)
        key = rotate(key.astype(jnp.float32), cos, sin).astype(x.dtype)
        mixed = attention(query, key, value, frame_ids, causal=False)
        x = x + self.proj(mixed.reshape(rows, count, size))
        return x + self.fc2(wide(jax.nn.gelu, self.fc1(self.norm2(x))))


class PatchMerger(nnx.Module):
    """Joins each merge block of 2 x 2 patches into one visual token of the decoder's width, by an MLP (exact GELU).

    The main merger normalises each patch before the join; DeepStack mergers normalise the joined block.
    """

    def __init__(self, config: VisionConfig, *, norm_after_join: bool, rngs: nnx.Rngs, dtype: jnp.dtype):
        self.block = config.merge_size**2
        joined = config.hidden_size * self.block
        self.norm = LayerNorm(joined if norm_after_join else config.hidden_size, dtype=dtype)
        self.fc1 = Linear(joined, joined, bias=True, rngs=rngs, dtype=dtype)
        self.fc2 = Linear(joined, config.out_hidden_size, bias=True, rngs=rngs, dtype=dtype)
        self.norm_after_join = norm_after_join

    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B M out_D"]:
        """Merge blocks are runs of 4 patches, as the processor orders them: M = P / 4."""
        rows, count, size = x.shape
        if not self.norm_after_join:
            x = self.norm(x)
        x = x.reshape(rows, count // self.block, size * self.block)
        if self.norm_after_join:
            x = self.norm(x)
        return self.fc2(wide(partial(jax.nn.gelu, approximate=False), self.fc1(x)))


class VisionTower(nnx.Module):
    """Patches in; M = P / 4 visual tokens, and n DeepStack features of the same shape, out.

    The DeepStack features are the outputs of blocks `deepstack_layers`, each merged by a merger of its own.
    """

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        self.patch_embed = Linear(config.patch_values, config.hidden_size, bias=True, rngs=rngs, dtype=dtype)
        self.pos_embed = nnx.Param(fresh_positions(config.grid_side, config.hidden_size).astype(dtype))
        self.blocks = stack_layers(lambda r: VisionBlock(config, rngs=r, dtype=dtype), config.depth, rngs)
        self.merger = PatchMerger(config, norm_after_join=False, rngs=rngs, dtype=dtype)
        taps = len(config.deepstack_layers)
        self.deepstack_mergers = nnx.data(
            stack_layers(lambda r: PatchMerger(config, norm_after_join=True, rngs=r, dtype=dtype), taps, rngs)
            if taps
            else None
        )
        self.config = config

    def __call__(
        self, vision: VisionInputs, *, remat: Remat = "none"
    ) -> tuple[Float[Array, "B M out_D"], Float[Array, "n B M out_D"]]:
        """The visual tokens, and the n DeepStack features; pixels of uint8 are normalised here."""
        dtype = self.patch_embed.kernel.dtype
        patches = vision.patches
        if patches.dtype == jnp.uint8:  # (x / 255 - 0.5) / 0.5
            patches = patches.astype(jnp.float32) / 127.5 - 1.0
        x = self.patch_embed(patches.astype(dtype)) + self._positions(vision).astype(dtype)
        cos, sin = vision_rope(vision.coords, self.config)
        graphdef, blocks = nnx.split(self.blocks)
        taken = jnp.array(self.config.deepstack_layers, jnp.int32).reshape(-1, 1, 1, 1)

        def body(
            carry: tuple[Array, Array], layer: tuple[Array, nnx.State]
        ) -> tuple[tuple[Array, Array], None]:
            x, taps = carry
            index, params = layer
            x = constrain(x, BATCH_AXES, "tensor")
            x = nnx.merge(graphdef, gather_weights(params, "visual.blocks"))(x, vision.frame_ids, cos, sin)
            return (x, jnp.where(taken == index, x[None], taps)), None

        taps = jnp.zeros((len(self.config.deepstack_layers), *x.shape), x.dtype)
        layers = (jnp.arange(self.config.depth), blocks)
        (x, taps), _ = jax.lax.scan(recompute(body, remat), (x, taps), layers)
        merged = self.merger(x)
        if self.deepstack_mergers is None:
            return merged, jnp.zeros((0, *merged.shape), merged.dtype)
        graphdef, mergers = nnx.split(self.deepstack_mergers)
        return merged, jax.vmap(lambda params, tap: nnx.merge(graphdef, params)(tap))(mergers, taps)

    def _positions(self, vision: VisionInputs) -> Float[Array, "B P D"]:
        """The learned table of position embeddings, interpolated bilinearly, weights in float32."""
        corners = self.pos_embed[...][vision.embed_index].astype(jnp.float32)  # [B, P, 4, D]
        return jnp.einsum("bpcd,bpc->bpd", corners, vision.embed_weight)


def patch_values(params: nnx.State) -> int:
    """Numbers in one flattened patch (`VisionConfig.patch_values`) of the model with these parameters."""
    return int(params["visual"]["patch_embed"]["kernel"].shape[0])  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def fresh_positions(side: int, size: int) -> Float[Array, "side*side D"]:
    """A position table to start from: sines and cosines of row and column, from half a wave a side upward.

    Neighbours begin alike, so where something is can be read off linearly (as in MAE, arXiv 2111.06377);
    the norm is near that of the patch embeddings that it is added to. What D / 4 leaves over is zero.
    """
    waves = size // 4
    frequency = 0.5 * jnp.pi * side ** jnp.linspace(0.0, 1.0, waves)
    angle = jnp.linspace(0.0, 1.0, side)[:, None] * frequency
    axis = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)  # [side, D / 2]
    rows, columns = jnp.repeat(axis, side, axis=0), jnp.tile(axis, (side, 1))
    table = 0.7 * jnp.concatenate([rows, columns], axis=-1)
    return jnp.pad(table, ((0, 0), (0, size - table.shape[1])))
