"""Attention of one new token of every sample slot: its prompt's keys, its own, and itself, merged by log-sum-exp.

A prompt's keys are read once for all samples of it. Both parts of the cache are read in chunks of columns (as in
FlashDecoding), and a chunk that no sample needs is skipped: the cost of a step follows the longest prompt and the
longest sample that are there, not the capacity for them, although every shape is fixed. The tokens of a prefill chunk
meet their prompt's keys in the same way (`prefix_attention`). `qwen3_vl.py` has the legend of the axis letters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.kv_cache import KeyValues, KVCache
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, begin, merge, update

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
) -> Float[Array, "R g N H"]:
    """softmax(q k^T / sqrt(H)) v over the prompt's tokens, the sample's own, and the new token's `key` and `value`.

    Query heads are grouped over key heads (GQA): head n reads key head n // (N / K).
    """
    rows, slots, heads, size = query.shape
    kv_heads = key.shape[2]
    query = query.reshape(rows, slots, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("rgkqh,rgkh->rgkq", query, key, preferred_element_type=jnp.float32)[..., None]
    newest = OnlineSoftmax(
        scores * size**-0.5, jnp.ones_like(scores), value[:, :, :, None].astype(jnp.float32)
    )
    prefix = _prefix_softmax(query, cache.prefix, layer, visible)
    suffix = _suffix_softmax(query, cache.suffix, layer, visible)
    whole = merge((newest, prefix, suffix))
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


def _prefix_softmax(query: Array, prefix: KeyValues, layer: Array, visible: Visible) -> OnlineSoftmax:
    rows, slots, kv_heads, groups, size = query.shape
    together = query.swapaxes(1, 2).reshape(rows, kv_heads, slots * groups, size)  # all samples of a prompt
    longest = visible.prefix.max()

    def seen(columns: Array) -> Array:
        return (columns < visible.prefix[:, None])[:, None, None]  # [R, 1, 1, C]

    state = _scan_chunks(together, prefix, layer, seen, lambda start: start < longest)

    def apart(x: Array) -> Array:
        return x.reshape(rows, kv_heads, slots, groups, -1).swapaxes(1, 2)

    return jax.tree.map(apart, state)


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
