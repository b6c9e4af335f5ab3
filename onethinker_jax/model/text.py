"""The decoder: grouped-query attention with QK norm, interleaved M-RoPE and SwiGLU, scanned over layers.

The SwiGLU of a layer is one (dense) or a choice among experts (`moe.py`).

DeepStack features are added to the visual positions after each of the first n layers; in training those layers and the
rest are two scans over one stack of parameters. Four ways lead through the same layers: `__call__` over packed
rows; `prefill` of whole prompts, which gives their keys and values too; `prefill_chunk` for the next tokens of
prompts; and `decode` for one token of each sample slot of a cache. `qwen3_vl.py` has the legend of the axis letters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.attention import attention, platform_backend
from onethinker_jax.model.attention.decode_attention import Visible, decode_attention, prefix_attention
from onethinker_jax.model.attention.kv_cache import KeyValues, KVCache, to_cache
from onethinker_jax.model.config import TextConfig
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.layers import Linear, Remat, RMSNorm, recompute, stack_layers, wide
from onethinker_jax.model.moe import Experts, join_stacks, split_stacks
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.rope import rotate, text_rope
from onethinker_jax.model.sharding import BATCH_AXES, constrain, gather_weights

Attend = Callable[[Array, Array, Array], Array]  # query, key, value -> mixed values


def gather_visual(
    features: Float[Array, "B M D"], visual_index: Int[Array, "B T"], text: Float[Array, "*T"]
) -> Float[Array, "B T D"]:
    """Each visual token's feature by its index among the row's; `text` where the index is -1."""
    taken = jnp.take_along_axis(features, jnp.maximum(visual_index, 0)[..., None], axis=1)
    return jnp.where(visual_index[..., None] >= 0, taken, text)


def _inject(
    x: Float[Array, "B T D"], feature: Float[Array, "B M D"], visual_index: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """`x` with a DeepStack feature added at its visual tokens."""
    return x + gather_visual(feature, visual_index, jnp.zeros((), x.dtype))


def _inject_into_first(
    x: Float[Array, "B T D"],
    number: Int[Array, ""],
    deepstack: Float[Array, "n B M D"] | None,
    visual_index: Int[Array, "B T"],
) -> Float[Array, "B T D"]:
    """`x` after layer `number`, which has a DeepStack feature if it is one of the first n."""
    if deepstack is None or not len(deepstack):
        return x

    def add(x: Array) -> Array:
        feature = jax.lax.dynamic_index_in_dim(deepstack, number, keepdims=False)
        return _inject(x, feature, visual_index)

    return jax.lax.cond(number < len(deepstack), add, lambda x: x, x)


class DecoderLayer(nnx.Module):
    """x + attention(norm x), then x + SwiGLU(norm x), dense or of experts (arXiv 2505.09388).

    Queries and keys are normalised head by head before the rotary. The caller says how queries meet keys.
    """

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
        """`cos` and `sin` are those of `text_rope`; `attend` gets query and key, rotated, and value."""
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
    """The stack of layers and the last norm: embeddings in, normalised hidden states out."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        self.layers = stack_layers(
            lambda r: DecoderLayer(config, rngs=r, dtype=dtype), config.num_layers, rngs
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "B T D"],
        deepstack: Float[Array, "n B M D"] | None,
        inputs: ModelInputs,
        *,
        remat: Remat = "none",
    ) -> Float[Array, "B T D"]:
        """Hidden states of packed rows; `x` and `deepstack` are what `Qwen3VL.embedded` makes of `inputs`."""
        cos, sin = (table.astype(x.dtype) for table in text_rope(inputs.positions, self.config))
        graphdef, params = nnx.split(self.layers)
        # A frozen stack is read layer by layer where it lies: to cut it into the two scans' parts would copy it.
        params, frozen = split_adapters(params)
        numbers = None if frozen is None else jnp.arange(self.config.num_layers)

        def attend(query: Array, key: Array, value: Array) -> Array:
            return attention(query, key, value, inputs.segment_ids, inputs.branch_ids, causal=True)

        def body(x: Array, layer: tuple[tuple[nnx.State, Array | None], Array | None]) -> tuple[Array, None]:
            (params, number), feature = layer
            if number is not None:
                base = jax.tree.map(lambda p: jax.lax.dynamic_index_in_dim(p, number, keepdims=False), frozen)
                params = join_adapters(params, base)
            x = constrain(x, BATCH_AXES, "tensor")  # what is kept of a layer is split over all devices
            x = nnx.merge(graphdef, gather_weights(params, "decoder.layers"))(x, cos, sin, attend)
            return x if feature is None else _inject(x, feature, inputs.visual_index), None

        body = recompute(body, remat)
        injected = 0 if deepstack is None else len(deepstack)
        first, rest = (
            jax.tree.map(lambda p, s=s: p[s], (params, numbers))
            for s in (slice(0, injected), slice(injected, None))
        )
        if injected:
            x, _ = jax.lax.scan(body, x, (first, deepstack))
        if injected < self.config.num_layers:
            x, _ = jax.lax.scan(body, x, (rest, None))
        return self.norm(x)

    def prefill(
        self,
        x: Float[Array, "B T D"],
        deepstack: Float[Array, "n B M D"] | None,
        inputs: ModelInputs,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """The hidden states of prompts, and the keys and values of every layer, each [L, B, T, K, H].

        One scan goes over all layers, in `prefill_chunk` and `decode` too: two scans would copy the stack of
        parameters at every call. (In training the cast to the dtype that is computed in copies it anyway.)
        """
        cos, sin = (table.astype(x.dtype) for table in text_rope(inputs.positions, self.config))
        graphdef, params = nnx.split(self.layers)

        def body(x: Array, layer: tuple[nnx.State, Array]) -> tuple[Array, tuple[Array, Array]]:
            params, number = layer
            kept = []

            def attend(query: Array, key: Array, value: Array) -> Array:
                kept.append(tuple(constrain(part, BATCH_AXES, None, "tensor") for part in (key, value)))
                return attention(query, key, value, inputs.segment_ids, inputs.branch_ids, causal=True)

            x = constrain(x, BATCH_AXES, "tensor")
            x = nnx.merge(graphdef, params)(x, cos, sin, attend)
            return _inject_into_first(x, number, deepstack, inputs.visual_index), kept[0]

        x, kv = jax.lax.scan(body, x, (params, jnp.arange(self.config.num_layers)))
        return self.norm(x), kv

    def prefill_chunk(
        self,
        x: Float[Array, "B C D"],
        positions: Int[Array, "B 3 C"],
        visual_index: Int[Array, "B C"],
        deepstack: Float[Array, "n B M D"] | None,
        prefix: KeyValues,
        start: Int[Array, ""],
    ) -> tuple[Float[Array, "B C D"], KeyValues]:
        """Tokens `start` to `start` + C of prompts: hidden states, and `prefix` with their keys and values added.

        `prefix` is [L, B, K, S, H]; the columns before `start` hold the tokens before `start`.
        """
        cos, sin = (table.astype(x.dtype) for table in text_rope(positions, self.config))
        graphdef, params = nnx.split(self.layers)

        def body(
            carry: tuple[Array, KeyValues], layer: tuple[nnx.State, Array]
        ) -> tuple[tuple[Array, KeyValues], None]:
            (x, prefix), (params, number) = carry, layer
            kept = []

            def attend(query: Array, key: Array, value: Array) -> Array:
                new = to_cache(key[None], value[None], prefix.key.dtype.name)
                kept.append(prefix.put(new, start, number))
                return prefix_attention(query, kept[0], number, start)

            x = nnx.merge(graphdef, params)(x, cos, sin, attend)
            return (_inject_into_first(x, number, deepstack, visual_index), kept[0]), None

        (x, prefix), _ = jax.lax.scan(body, (x, prefix), (params, jnp.arange(self.config.num_layers)))
        return self.norm(x), prefix

    def decode(
        self, x: Float[Array, "R g D"], positions: Int[Array, "R g"], cache: KVCache, visible: Visible
    ) -> tuple[Float[Array, "R g D"], tuple[Array, Array]]:
        """One more token of each sample slot: hidden states, and its keys and values, each [L, R, g, K, H].

        `positions` holds one number a token, because a sampled token is text: its three positions are equal. On GPUs
        the layers are unrolled: in a scan XLA copies each layer's weights out of the stack before it reads them. On
        TPUs it copies only experts', which a kernel therefore reads in the stack.
        """
        tables = text_rope(jnp.repeat(positions[:, None], 3, axis=1), self.config)
        cos, sin = (table.astype(x.dtype) for table in tables)
        graphdef, params = nnx.split(self.layers)
        stacks, params = split_stacks(params, x)

        def body(x: Array, layer: tuple[nnx.State, Array]) -> tuple[Array, tuple[Array, Array]]:
            params, number = layer
            params = join_stacks(stacks, params, number)
            new = []

            def attend(query: Array, key: Array, value: Array) -> Array:
                new.append((key, value))
                return decode_attention(query, key, value, cache, number, visible)

            x = nnx.merge(graphdef, params)(x, cos, sin, attend)
            return x, new[0]

        unroll = self.config.num_layers if layers_are_unrolled() else 1
        x, new = jax.lax.scan(body, x, (params, jnp.arange(self.config.num_layers)), unroll=unroll)
        return self.norm(x), new


def layers_are_unrolled() -> bool:
    """Whether the platform that is being compiled for decodes with its layers one after another in the program."""
    return platform_backend().startswith("flash_gpu")
