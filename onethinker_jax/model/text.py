"""The decoder: grouped-query attention with QK norm, interleaved M-RoPE and SwiGLU, scanned over layers.

The SwiGLU of a layer is one (dense) or a choice among experts (``moe.py``).

DeepStack features are added to the visual positions after each of the first n layers; those layers and the
rest are two scans over one stack of parameters.  Three ways through the same block: ``__call__`` over whole
packed rows, ``prefill`` which also keeps keys and values, and ``decode`` for one token of G samples a prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention import attention, decode_attention
from onethinker_jax.model.config import TextConfig
from onethinker_jax.model.layers import Linear, Remat, RMSNorm, recompute, stack_layers, wide
from onethinker_jax.model.moe import Experts
from onethinker_jax.model.rope import rotate, text_rope
from onethinker_jax.model.sharding import BATCH_AXES, constrain, gather_weights

Attend = Callable[[Array, Array, Array], Array]  # query, key, value -> mixed values


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer; the prefix is stored once a prompt, the suffix once a sample."""

    prefix_key: Array  # [L, B, S, K, H]
    prefix_value: Array  # [L, B, S, K, H]
    suffix_key: Array  # [L, B, G, U, K, H]
    suffix_value: Array  # [L, B, G, U, K, H]


def gather_visual(
    features: Float[Array, "B M D"], visual_index: Int[Array, "B T"], text: Float[Array, "*T"]
) -> Float[Array, "B T D"]:
    """Each visual token's feature by its index in the row; ``text`` where the index is -1."""
    taken = jnp.take_along_axis(features, jnp.maximum(visual_index, 0)[..., None], axis=1)
    return jnp.where(visual_index[..., None] >= 0, taken, text)


class DecoderLayer(nnx.Module):
    """Pre-norm attention and SwiGLU, dense or of experts; the caller says how queries meet keys."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        width, size = config.hidden_size, config.head_dim

        def linear(inputs: int, outputs: int, gain: float = 1.0) -> Linear:
            return Linear(inputs, outputs, bias=False, rngs=rngs, dtype=dtype, gain=gain)

        residual = (2 * config.num_layers) ** -0.5  # of what is added to the residual stream, 2 x L times

        self.input_norm = RMSNorm(width, eps=config.rms_norm_eps, dtype=dtype)
        self.q_proj = linear(width, config.num_heads * size)
        self.k_proj = linear(width, config.num_kv_heads * size)
        self.v_proj = linear(width, config.num_kv_heads * size)
        self.o_proj = linear(config.num_heads * size, width, residual)
        self.q_norm = RMSNorm(size, eps=config.rms_norm_eps, dtype=dtype)
        self.k_norm = RMSNorm(size, eps=config.rms_norm_eps, dtype=dtype)
        self.mlp_norm = RMSNorm(width, eps=config.rms_norm_eps, dtype=dtype)
        if config.moe is None:
            self.gate_proj = linear(width, config.intermediate_size)
            self.up_proj = linear(width, config.intermediate_size)
            self.down_proj = linear(config.intermediate_size, width, residual)
        else:
            self.experts = Experts(width, config.moe, rngs=rngs, dtype=dtype, gain=residual)
        self.dense = config.moe is None
        self.head_dim = size

    def __call__(
        self, x: Float[Array, "B T D"], cos: Float[Array, "B T H"], sin: Float[Array, "B T H"], attend: Attend
    ) -> Float[Array, "B T D"]:
        rows, length, _ = x.shape
        heads = (rows, length, -1, self.head_dim)
        normal = self.input_norm(x)
        query = rotate(self.q_norm(self.q_proj(normal).reshape(heads)), cos, sin)
        key = rotate(self.k_norm(self.k_proj(normal).reshape(heads)), cos, sin)
        value = self.v_proj(normal).reshape(heads)
        x = x + self.o_proj(attend(query, key, value).reshape(rows, length, -1))
        normal = self.mlp_norm(x)
        if self.dense:
            return x + self.down_proj(wide(jax.nn.silu, self.gate_proj(normal)) * self.up_proj(normal))
        return x + self.experts(normal)


class Decoder(nnx.Module):
    """Embeddings in, normalised hidden states out."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        self.layers = stack_layers(
            lambda r: DecoderLayer(config, rngs=r, dtype=dtype), config.num_layers, rngs
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B 3 T"],
        segment_ids: Int[Array, "B T"],
        branch_ids: Int[Array, "B T"] | None,
        visual_index: Int[Array, "B T"],
        deepstack: Float[Array, "n B M D"] | None,
        *,
        remat: Remat = "none",
        keep_kv: bool = False,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array] | None]:
        """Hidden states, and with ``keep_kv`` the keys and values, each [L, B, T, K, H]."""
        cos, sin = (table.astype(x.dtype) for table in text_rope(positions, self.config))
        graphdef, params = nnx.split(self.layers)

        def body(x: Array, layer: tuple[nnx.State, Array | None]) -> tuple[Array, tuple[Array, Array] | None]:
            params, feature = layer
            x = constrain(x, BATCH_AXES, "tensor")  # what is kept of a layer is split over all devices
            kept = []

            def attend(query: Array, key: Array, value: Array) -> Array:
                if keep_kv:
                    kept.append(tuple(constrain(part, BATCH_AXES, None, "tensor") for part in (key, value)))
                return attention(query, key, value, segment_ids, branch_ids, causal=True)

            x = nnx.merge(graphdef, gather_weights(params, "decoder.layers"))(x, cos, sin, attend)
            x = x if feature is None else x + gather_visual(feature, visual_index, jnp.zeros((), x.dtype))
            return x, kept[0] if keep_kv else None

        body = recompute(body, remat)
        injected = 0 if deepstack is None else deepstack.shape[0]
        first, rest = (
            jax.tree.map(lambda p, s=s: p[s], params) for s in (slice(0, injected), slice(injected, None))
        )
        x, early = jax.lax.scan(body, x, (first, deepstack)) if injected else (x, None)
        late = None
        if injected < self.config.num_layers:
            x, late = jax.lax.scan(body, x, (rest, None))
        kv = None
        if keep_kv:
            kv = jax.tree.map(
                lambda *parts: jnp.concatenate(parts), *[part for part in (early, late) if part is not None]
            )
        return self.norm(x), kv

    def decode(
        self,
        x: Float[Array, "B G D"],
        positions: Int[Array, "B G"],
        cache: KVCache,
        prefix_mask: Int[Array, "B S"],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, "B G D"], KVCache]:
        """One more token of each sample: hidden states, and the cache with the token's keys at ``step``.

        A generated token is text: its three positions are equal.
        """
        tables = text_rope(jnp.repeat(positions[:, None], 3, axis=1), self.config)
        cos, sin = (table.astype(x.dtype) for table in tables)
        graphdef, params = nnx.split(self.layers)

        def body(x: Array, layer: tuple[nnx.State, KVCache]) -> tuple[Array, tuple[Array, Array]]:
            params, kv = layer
            new = []

            def attend(query: Array, key: Array, value: Array) -> Array:
                new.append((key, value))
                return decode_attention(
                    query,
                    kv.prefix_key,
                    kv.prefix_value,
                    kv.suffix_key,
                    kv.suffix_value,
                    key,
                    value,
                    prefix_mask,
                    step,
                )

            x = nnx.merge(graphdef, params)(x, cos, sin, attend)
            return x, new[0]

        x, (keys, values) = jax.lax.scan(body, x, (params, cache))

        def put(suffix: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(suffix, new[:, :, :, None], step, axis=3)

        cache = KVCache(
            cache.prefix_key, cache.prefix_value, put(cache.suffix_key, keys), put(cache.suffix_value, values)
        )
        return self.norm(x), cache
