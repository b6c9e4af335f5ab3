"""The device's part of sampling: prompts are prefilled, put into prompt slots of a cache, and decoded in blocks.

A prompt's vision tower and prefill run once, its keys and values are stored once, and a decode step reads them once
for all samples of it. Prompts are prefilled whole, in one dispatch, or in chunks of `prefill_chunk_tokens`: media and
embeddings first, then a dispatch a chunk. A decode block is one dispatch of up to `decode_block` tokens a sample slot.
It ends early when enough slots are free; the host (`continuous_batching.py`) then gives these other samples. A row of
the arrays is a prompt slot. `qwen3_vl.py` has the legend of the axis letters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, Key

from onethinker_jax.model.attention.attention import platform_backend
from onethinker_jax.model.attention.decode_attention import Visible, whole_chunks
from onethinker_jax.model.attention.kv_cache import (
    KVCache,
    Prefilled,
    empty_cache,
    insert,
    shard_cache,
    shard_prompts,
    take_rows,
    to_cache,
    zeros,
)
from onethinker_jax.model.generation.sampling import (
    TOP_LOGPROBS,
    SampleSettings,
    SamplingConfig,
    draw,
    draw_each,
    sample_keys,
    seeded_keys,
    top_tokens,
)
from onethinker_jax.model.inputs import HostOrDevice, ModelInputs
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import BATCH_AXES, constrain
from onethinker_jax.model.text import layers_are_unrolled


@dataclass(frozen=True)
class GenerationShape:
    """The fixed shapes of sampling."""

    prompt_slots: int  # R, prompts decoded together
    sample_slots: int  # g, samples of a prompt decoded together
    prompt_buckets: tuple[tuple[int, int], ...]  # (tokens, patches) of padded prompts, smallest first
    prefill_rows: int  # B, prompts prefilled together
    decode_block: int = 32  # most tokens that a sample slot draws in one dispatch
    # How often the prompt slots are halved when few are in use; each halving costs a decode step to compile.
    halvings: int = 2
    kv_dtype: str = "float32"  # or bfloat16, int8
    weights_dtype: str | None = None  # int8, or None: what the model computes in
    prefill_chunk_tokens: int | None = None  # most tokens of a prompt computed in one dispatch; None: all

    def chunk_size(self, tokens: int) -> int:
        """C, tokens in a chunk of prompts that are padded to `tokens`."""
        return min(self.prefill_chunk_tokens or tokens, tokens)

    def chunk_starts(self, tokens: int, longest: int) -> list[int]:
        """The first tokens of the chunks of prompts of up to `longest` tokens, padded to `tokens`.

        A chunk that would reach beyond `tokens` ends there, and so computes some tokens a second time.
        """
        chunk = self.chunk_size(tokens)
        return [min(start, tokens - chunk) for start in range(0, longest, chunk)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Embedded:
    """B prompts as the decoder reads them, kept while their chunks are computed."""

    x: Array  # [B, T, D]
    positions: Array  # int32 [B, 3, T]
    visual_index: Array  # int32 [B, T]
    deepstack: Array | None  # [n, B, M, D]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """Which samples are in the R x g sample slots, and how far they have come; kept by the host."""

    prompt: HostOrDevice  # int32 [R], the prompt's number
    sample: HostOrDevice  # int32 [R, g], the sample's number among those of its prompt
    token: HostOrDevice  # int32 [R, g], the newest
    length: HostOrDevice  # int32 [R, g], tokens drawn so far
    live: HostOrDevice  # bool [R, g], False: nothing is drawn here
    settings: SampleSettings | None = (
        None  # [R, g], of each sample; None: all are drawn as `SamplingConfig` says
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeBlock:
    """What a decode block drew in `steps` steps.

    Along the first axis a slot's own tokens come first, as many as its length grew by.
    """

    tokens: HostOrDevice  # int32 [decode_block, R, g]
    logprobs: HostOrDevice  # float32 [decode_block, R, g], of the distribution sampled from
    model_logprobs: HostOrDevice  # float32 [decode_block, R, g], of the model's
    length: HostOrDevice  # int32 [R, g]
    live: HostOrDevice  # bool [R, g], False where an end token or the longest length was reached
    steps: HostOrDevice  # int32 []
    # The likeliest tokens of the model's distribution, int32 and float32 [decode_block, R, g, N]; None unless samples
    # have settings of their own, zeros unless these ask for them.
    top: tuple[HostOrDevice, HostOrDevice] | None = None


@dataclass(frozen=True)
class Programs:
    """The compiled functions.

    `insert` and `decode_block` overwrite the cache that they are given, `prefill_chunk` overwrites the prompts.
    """

    empty: Callable[[nnx.State], KVCache]
    prefill: Callable[[nnx.State, ModelInputs, Array, Array], Prefilled]
    embed: Callable[[nnx.State, ModelInputs, Array, Array], tuple[Embedded, Prefilled]]
    prefill_chunk: Callable[[nnx.State, Embedded, Prefilled, HostOrDevice], Prefilled]
    insert: Callable[[KVCache, Prefilled, HostOrDevice], KVCache]
    decode_block: Callable[..., tuple[KVCache, DecodeBlock]]
    take: Callable[[KVCache, HostOrDevice], KVCache]


def make_programs(graphdef: nnx.GraphDef, sampling: SamplingConfig, shape: GenerationShape) -> Programs:
    """Sampling's programs: parameters come first, then the arguments of the functions below.

    Equal arguments give the same programs, and prefill is one for all samplings: what was compiled is not compiled
    again.
    """
    return _programs(graphdef, sampling, shape, platform_backend())


@lru_cache(maxsize=8)
def _programs(
    graphdef: nnx.GraphDef, sampling: SamplingConfig, shape: GenerationShape, backend: str
) -> Programs:
    def prefill_next_chunk(
        params: nnx.State, embedded: Embedded, prompts: Prefilled, start: HostOrDevice
    ) -> Prefilled:
        return prefill_chunk(nnx.merge(graphdef, params), embedded, prompts, start, shape=shape)

    def decode(params: nnx.State, *arguments: Any) -> tuple[KVCache, DecodeBlock]:
        return decode_block(nnx.merge(graphdef, params), *arguments, sampling=sampling, shape=shape)

    def new_cache(params: nnx.State) -> KVCache:
        return empty(nnx.merge(graphdef, params), sampling, shape)

    return Programs(
        jax.jit(new_cache),
        *_whole_prefill(graphdef, shape.kv_dtype, backend),
        jax.jit(prefill_next_chunk, donate_argnums=2),
        jax.jit(insert, donate_argnums=0),
        jax.jit(decode, donate_argnums=1, compiler_options=decode_options(shape.weights_dtype)),
        jax.jit(take_rows),
    )


@lru_cache(maxsize=8)
def _whole_prefill(
    graphdef: nnx.GraphDef, kv_dtype: str, _backend: str
) -> tuple[Callable[..., Prefilled], Callable[..., tuple[Embedded, Prefilled]]]:
    """`Programs.prefill` and `Programs.embed`."""

    def prefill_prompts(
        params: nnx.State, prompts: ModelInputs, length: Array, following: Array
    ) -> Prefilled:
        return prefill(nnx.merge(graphdef, params), prompts, length, following, kv_dtype=kv_dtype)

    def embed_prompts(
        params: nnx.State, prompts: ModelInputs, length: Array, following: Array
    ) -> tuple[Embedded, Prefilled]:
        return embed(nnx.merge(graphdef, params), prompts, length, following)

    return jax.jit(prefill_prompts), jax.jit(embed_prompts)


def decode_options(weights_dtype: str | None) -> dict[str, int | str]:
    """What the compiler is told when it compiles decoding for the platform of the mesh in context.

    On GPUs XLA joins products of the same input into one, and for that copies their weights next to each other. Where
    all layers of an int8 stack are converted, its pass `slice-sinker` would convert the stack before it is sliced, and
    so write it anew at every token.
    """
    if not layers_are_unrolled():
        return {}
    joined: dict[str, int | str] = {"xla_gpu_dot_merger_threshold_mb": 0}
    return joined if weights_dtype is None else joined | {"xla_disable_hlo_passes": "slice-sinker"}


def empty(model: Qwen3VL, sampling: SamplingConfig, shape: GenerationShape) -> KVCache:
    """A cache of zeros for prompts and samples of any length that the settings allow."""
    text = model.config.text
    layers, heads, size = text.num_layers, text.num_kv_heads, text.head_dim
    prompt, columns = whole_chunks(shape.prompt_buckets[-1][0]), whole_chunks(sampling.max_new_tokens)
    return empty_cache(
        (layers, shape.prompt_slots, heads, prompt, size),
        (layers, shape.prompt_slots, shape.sample_slots, heads, columns, size),
        width=text.hidden_size,
        kv_dtype=shape.kv_dtype,
        compute_dtype=model.embed[...].dtype,
    )


def prefill(
    model: Qwen3VL,
    prompts: ModelInputs,
    length: Int[Array, " B"],
    next_position: Int[Array, " B"],
    *,
    kv_dtype: str,
) -> Prefilled:
    """Prompts, each `length` tokens from the left of its row [B, T], as a cache of `kv_dtype` holds them."""
    hidden, kv = model.prefill(prompts)
    last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]
    return Prefilled(to_cache(*kv, kv_dtype), length, next_position, last)


def embed(
    model: Qwen3VL, prompts: ModelInputs, length: Int[Array, " B"], next_position: Int[Array, " B"]
) -> tuple[Embedded, Prefilled]:
    """Prompts as in `prefill`, before their first chunk: the vision tower has run, keys and values are zeros.

    Keys and values have the dtype that the model computes in, so that a chunk sees what it would in a whole prompt.
    """
    x, deepstack = model.embedded(prompts)
    rows, tokens, width = x.shape
    text = model.config.text
    prefix = zeros(
        (text.num_layers, rows, text.num_kv_heads, whole_chunks(tokens), text.head_dim), x.dtype.name
    )
    last = jnp.zeros((rows, width), x.dtype)
    if deepstack is not None:
        deepstack = constrain(deepstack, None, BATCH_AXES)
    embedded = Embedded(constrain(x, BATCH_AXES), prompts.positions, prompts.visual_index, deepstack)
    return embedded, shard_prompts(Prefilled(prefix, length, next_position, last))


def prefill_chunk(
    model: Qwen3VL,
    embedded: Embedded,
    prompts: Prefilled,
    start: Int[Array, ""],
    *,
    shape: GenerationShape,
) -> Prefilled:
    """`prompts` with the chunk of tokens from `start` on computed; those before `start` must be computed already."""
    chunk = shape.chunk_size(embedded.x.shape[1])
    x, positions, visual_index = (
        jax.lax.dynamic_slice_in_dim(whole, start, chunk, axis=axis)
        for whole, axis in ((embedded.x, 1), (embedded.positions, 2), (embedded.visual_index, 1))
    )
    hidden, prefix = model.decoder.prefill_chunk(
        x, positions, visual_index, embedded.deepstack, prompts.prefix, start
    )
    at = prompts.length - 1 - start  # of a prompt's last token, in the chunk
    last = jnp.take_along_axis(hidden, jnp.clip(at, 0, chunk - 1)[:, None, None], axis=1)[:, 0]
    last = jnp.where(((at >= 0) & (at < chunk))[:, None], last, prompts.last_hidden)
    return shard_prompts(replace(prompts, prefix=prefix, last_hidden=last))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Decoding:
    cache: KVCache
    column: Array  # int32 []
    slots: Slots
    drawn: DecodeBlock


def decode_block(
    model: Qwen3VL,
    cache: KVCache,
    slots: Slots,
    key: Key[Array, ""],
    column: Int[Array, ""],
    fewest_rows: Int[Array, ""],
    fewest_slots: Int[Array, ""],
    *,
    sampling: SamplingConfig,
    shape: GenerationShape,
) -> tuple[KVCache, DecodeBlock]:
    """The cache with the keys and values of up to `shape.decode_block` more tokens of every live slot, and the tokens.

    `key` is folded from (seed, step), and unused where samples have settings of their own; `column` is the next of the
    cache's ring. The decode block ends early when no more than `fewest_rows` rows have a live slot, or no more than
    `fewest_slots` slots are live.
    """
    slots = jax.tree.map(jnp.asarray, slots)
    drawn_shape = (shape.decode_block, *slots.token.shape)
    if slots.settings is None:
        keys = sample_keys(key, jnp.broadcast_to(slots.prompt[:, None], slots.sample.shape), slots.sample)
        no_top = None
    else:
        keys = seeded_keys(slots.settings.seed, slots.sample)
        likeliest = (*drawn_shape, min(TOP_LOGPROBS, model.config.text.vocab_size))
        no_top = jnp.zeros(likeliest, jnp.int32), jnp.zeros(likeliest, jnp.float32)
    nothing = DecodeBlock(
        jnp.zeros(drawn_shape, jnp.int32),
        jnp.zeros(drawn_shape, jnp.float32),
        jnp.zeros(drawn_shape, jnp.float32),
        slots.length,
        slots.live,
        jnp.int32(0),
        no_top,
    )

    def unfinished(state: _Decoding) -> Array:
        live = state.slots.live
        enough = (live.any(-1).sum() <= fewest_rows) | (live.sum() <= fewest_slots)
        return (state.drawn.steps < shape.decode_block) & ~enough

    step = partial(_step, model, sampling, shape.kv_dtype, keys)
    state = jax.lax.while_loop(unfinished, step, _Decoding(cache, jnp.asarray(column), slots, nothing))
    drawn = replace(state.drawn, length=state.slots.length, live=state.slots.live)
    # What the host reads lies on every device.
    return shard_cache(state.cache), jax.tree.map(constrain, drawn)


def _step(
    model: Qwen3VL, sampling: SamplingConfig, kv_dtype: str, keys: Array, state: _Decoding
) -> _Decoding:
    """One more token of every live slot: a sample's first token is drawn from its prompt's last hidden state."""
    cache, slots, column, drawn = state.cache, state.slots, state.column, state.drawn
    known = jnp.where(slots.live, jnp.maximum(slots.length - 1, 0), 0)  # tokens with an entry in the cache
    visible = Visible(jnp.where(slots.live.any(-1), cache.length, 0), known, column)
    positions = cache.next_position[:, None] + known
    hidden, new = model.decode(slots.token, positions, cache, visible)
    new = to_cache(*(part[:, :, :, None] for part in new), kv_dtype)  # [L, R, g, 1, K, H], one token
    hidden = jnp.where((slots.length == 0)[..., None], cache.last_hidden[:, None], hidden)
    logits, each = model.logits(hidden), slots.settings
    if each is None:
        one = draw(logits, keys, slots.length, sampling)
    else:
        one = draw_each(logits, keys, slots.length, each, sampling.suppressed_ids)
    token = jnp.where(slots.live, one.token, slots.token)
    length = slots.length + slots.live
    longest = sampling.max_new_tokens if each is None else each.max_new_tokens
    ended = jnp.isin(token, jnp.array(sampling.eos_ids, jnp.int32)) | (length >= longest)
    put = partial(jax.lax.dynamic_update_index_in_dim, index=drawn.steps, axis=0)

    def put_top(top: Any) -> Any:
        return jax.tree.map(put, top, top_tokens(logits, sampling.suppressed_ids))

    top = drawn.top
    if each is not None:
        top = jax.lax.cond(each.top_logprobs, put_top, lambda top: top, top)
    return _Decoding(
        replace(cache, suffix=cache.suffix.put(new, column)),
        (column + 1) % cache.suffix.capacity,
        replace(slots, token=token, length=length, live=slots.live & ~ended),
        replace(
            drawn,
            tokens=put(drawn.tokens, token),
            logprobs=put(drawn.logprobs, one.logprob),
            model_logprobs=put(drawn.model_logprobs, one.model_logprob),
            steps=drawn.steps + 1,
            top=top,
        ),
    )
