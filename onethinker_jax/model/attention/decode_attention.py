"""Attention of one new token of every sample slot: its prompt's keys, its own, and itself, merged by log-sum-exp.

A prompt's keys are read once for all samples of it. Both parts of the cache are read in chunks of columns (as in
FlashDecoding), and a chunk that no sample needs is skipped: the cost of a step follows the longest prompt and the
longest sample that are there, not the capacity for them, although every shape is fixed. The tokens of a prefill chunk
meet their prompt's keys in the same way (`prefix_attention`). On GPUs and TPUs a kernel (`decode_gpu.py`,
`decode_tpu.py`) reads both parts of the cache in place, of each row only what it sees. `qwen3_vl.py` has the legend of
the axis letters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.attention import Backend, platform_backend
from onethinker_jax.model.attention.kv_cache import KeyValues, KVCache
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, begin, merge, update
from onethinker_jax.model.sharding import BATCH_AXES, context_mesh, dividing

CHUNK = 256  # columns whose scores are held at once


def whole_chunks(entries: int) -> int:
    """The smallest number of columns, at least `entries`, that is one chunk or a multiple of CHUNK."""
    return entries if entries <= CHUNK else -(-entries // CHUNK) * CHUNK


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Visible:
    """Which entries of a cache a step's queries see."""

    prefix: Array  # int32 [R], tokens of each row's prompt that are seen, from the first on
    suffix: Array  # int32 [R, g], tokens of each sample that are seen: the newest before `column`
    column: Array  # int32 [], of the ring, where this step's entry goes; the newest entry lies before it


def decode_attention(
    query: Float[Array, "R g N H"],
    key: Float[Array, "R g K H"],
    value: Float[Array, "R g K H"],
    cache: KVCache,
    layer: Int[Array, ""],
    visible: Visible,
    *,
    backend: Backend | None = None,
) -> Float[Array, "R g N H"]:
    """softmax(q k^T / sqrt(H)) v over the prompt's tokens, the sample's own, and the new token's `key` and `value`.

    Query heads are grouped over key heads (GQA): head n reads key head n // (N / K). `backend` None takes the
    platform's: kernels for GPUs and TPUs, elsewhere XLA.
    """
    rows, slots, heads, size = query.shape
    kv_heads = key.shape[2]
    query = query.reshape(rows, slots, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("rgkqh,rgkh->rgkq", query, key, preferred_element_type=jnp.float32)[..., None]
    newest = OnlineSoftmax(
        scores * size**-0.5, jnp.ones_like(scores), value[:, :, :, None].astype(jnp.float32)
    )
    backend = platform_backend() if backend is None else backend
    if backend == "xla":
        parts = _by_xla(query, cache.prefix, cache.suffix, layer, visible)
    else:
        parts = _by_kernel(query, cache, layer, visible, backend)
    whole = merge((newest, *parts))
    return (whole.acc / whole.l).astype(value.dtype).reshape(rows, slots, heads, size)


def prefix_attention(
    query: Float[Array, "B C N H"], prefix: KeyValues, layer: Int[Array, ""], start: Int[Array, ""]
) -> Float[Array, "B C N H"]:
    """softmax(q k^T / sqrt(H)) v of tokens `start` to `start` + C of each prompt, each over all up to itself.

    `prefix` [L, B, K, S, H] already holds their keys and values.
    """
    rows, count, heads, size = query.shape
    kv_heads = prefix.key.shape[2]
    groups = heads // kv_heads
    query = query.reshape(rows, count, kv_heads, groups, size).transpose(0, 2, 3, 1, 4)
    mine = jnp.tile(start + jnp.arange(count), groups)[:, None]

    state = _scan_chunks(
        query.reshape(rows, kv_heads, groups * count, size),
        prefix,
        layer,
        lambda columns: columns <= mine,
        lambda first: first < start + count,
    )
    out = (state.acc / state.l).astype(query.dtype).reshape(rows, kv_heads, groups, count, size)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, count, heads, size)


def _by_xla(
    query: Array, prefix: KeyValues, suffix: KeyValues, layer: Array, visible: Visible
) -> tuple[OnlineSoftmax, OnlineSoftmax]:
    """The softmaxes of `query` [R, g, K, N / K, H] over the prompts' keys and over the samples' own."""
    return _prefix_softmax(query, prefix, layer, visible), _suffix_softmax(query, suffix, layer, visible)


def _by_kernel(
    query: Array, cache: KVCache, layer: Array, visible: Visible, backend: Backend
) -> tuple[OnlineSoftmax, OnlineSoftmax]:
    """As `_by_xla`. On a mesh every device works on the rows and heads that it holds."""
    from onethinker_jax.model.attention import decode_gpu, decode_tpu

    kernel = decode_tpu if backend.startswith("flash_tpu") else decode_gpu
    softmax = partial(kernel.decode_softmax, interpret=backend.endswith("interpreted"))

    def local(
        query: Array, prefix: KeyValues, suffix: KeyValues, layer: Array, visible: Visible
    ) -> tuple[OnlineSoftmax, OnlineSoftmax]:
        if kernel is decode_gpu and not all(decode_gpu.addressable(part) for part in (prefix, suffix)):
            return _by_xla(query, prefix, suffix, layer, visible)
        rows, slots = visible.suffix.shape
        flat = jax.tree.map(lambda x: x.reshape(x.shape[0], rows * slots, *x.shape[3:]), suffix)
        lengths, own = visible.prefix, visible.suffix.reshape(-1)
        oldest = (visible.column - own) % suffix.capacity
        nothing = jnp.zeros_like(lengths)
        of_prompts = softmax(_together(query), prefix, layer, nothing, lengths)
        of_samples = softmax(query.reshape(rows * slots, *query.shape[2:]), flat, layer, oldest, own)
        own_parts = jax.tree.map(lambda x: x.reshape(rows, slots, *x.shape[1:]), of_samples)
        return _apart(of_prompts, query.shape), own_parts

    mesh = context_mesh()
    if mesh is None or mesh.size == 1:
        return local(query, cache.prefix, cache.suffix, layer, visible)
    rows, heads = dividing(mesh, query.shape[0], BATCH_AXES), dividing(mesh, query.shape[2], "tensor")
    by_row, everywhere = PartitionSpec(rows), PartitionSpec()
    by_head = PartitionSpec(rows, None, heads)
    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(
            by_head,
            PartitionSpec(None, rows, heads),
            PartitionSpec(None, rows, None, heads),
            everywhere,
            Visible(by_row, by_row, everywhere),  # pyright: ignore[reportArgumentType]
        ),
        out_specs=by_head,
        check_vma=False,
    )
    return sharded(query, cache.prefix, cache.suffix, layer, visible)


def _together(query: Array) -> Array:
    """[R, K, g J, H]: all samples of a prompt."""
    rows, _, kv_heads, _, size = query.shape
    return query.swapaxes(1, 2).reshape(rows, kv_heads, -1, size)


def _apart(state: OnlineSoftmax, shape: tuple[int, ...]) -> OnlineSoftmax:
    """The softmax of queries that `_together` joined, for queries of `shape` again."""
    rows, slots, kv_heads, groups, _ = shape
    return jax.tree.map(lambda x: x.reshape(rows, kv_heads, slots, groups, -1).swapaxes(1, 2), state)


def _prefix_softmax(query: Array, prefix: KeyValues, layer: Array, visible: Visible) -> OnlineSoftmax:
    longest = visible.prefix.max()

    def seen(columns: Array) -> Array:
        return (columns < visible.prefix[:, None])[:, None, None]  # [R, 1, 1, C]

    state = _scan_chunks(_together(query), prefix, layer, seen, lambda start: start < longest)
    return _apart(state, query.shape)


def _suffix_softmax(query: Array, suffix: KeyValues, layer: Array, visible: Visible) -> OnlineSoftmax:
    capacity = suffix.capacity
    longest = visible.suffix.max()

    def age(columns: Array) -> Array:
        return (visible.column - columns - 1) % capacity  # 0 of the newest

    def seen(columns: Array) -> Array:
        return (age(columns) < visible.suffix[..., None])[:, :, None, None]  # [R, g, 1, 1, C]

    def needed(start: Array) -> Array:
        columns = start + jnp.arange(min(CHUNK, capacity))
        return (age(columns) < longest).any()

    return _scan_chunks(query, suffix, layer, seen, needed)


def _scan_chunks(
    query: Array,
    part: KeyValues,
    layer: Array,
    seen: Callable[[Array], Array],
    needed: Callable[[Array], Array],
) -> OnlineSoftmax:
    """The softmax of `query` [*B, Q, H] over a layer's keys, chunk by chunk.

    `seen(columns [C])` broadcasts to the scores [*B, Q, C]; `needed(start)` says whether a chunk is looked at.
    """
    size = query.shape[-1]
    chunk = min(CHUNK, part.capacity)

    def step(state: OnlineSoftmax, start: Array) -> OnlineSoftmax:
        key, value, key_scale, value_scale = _chunk_of(part, layer, start, chunk)
        scores = _product("...qh,...hc->...qc", query, key)
        if key_scale is not None:
            scores *= key_scale[..., None, :]
        scores = jnp.where(seen(start + jnp.arange(chunk)), scores * size**-0.5, NEGATIVE)

        def mix(p: Array) -> Array:
            scaled = p if value_scale is None else p * value_scale[..., None, :]
            return _product("...qc,...ch->...qh", scaled.astype(query.dtype), value)

        return update(state, scores, mix)

    nothing = begin(query.shape[:-1], size)
    if chunk == part.capacity:
        return step(nothing, jnp.int32(0))

    def maybe(state: OnlineSoftmax, start: Array) -> tuple[OnlineSoftmax, None]:
        return jax.lax.cond(needed(start), step, lambda state, _: state, state, start), None

    return jax.lax.scan(maybe, nothing, jnp.arange(0, part.capacity, chunk))[0]


def _chunk_of(part: KeyValues, layer: Array, start: Array, count: int) -> list[Any]:
    """Keys, values and scales of `count` columns of one layer."""

    def cut(x: Array | None, axis: int) -> Array | None:
        if x is None:
            return None
        starts = [jnp.int32(0)] * x.ndim
        starts[0], starts[axis] = layer, start
        sizes = [1, *x.shape[1:]]
        sizes[axis] = count
        return jax.lax.dynamic_slice(x, starts, sizes)[0]

    return [cut(part.key, -1), cut(part.value, -2), cut(part.key_scale, -1), cut(part.value_scale, -1)]


def _product(form: str, left: Array, right: Array) -> Array:
    return jnp.einsum(form, left, right.astype(left.dtype), preferred_element_type=jnp.float32)
