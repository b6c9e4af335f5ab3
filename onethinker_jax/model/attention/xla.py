"""Attention in plain XLA with bounded memory, for every platform; segments and branches as in `attention.py`.

As in FlashAttention (arXiv 2205.14135) queries meet keys chunk by chunk, so no [T, T] scores are ever held, and
the backward pass computes scores a second time. A pair of chunks is skipped where no query of the one sees a key of
the other in any row: later tokens, other segments, other branches. Softmax runs in float32. `qwen3_vl.py` has the
legend of the axis letters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, begin, name_saved, update
from onethinker_jax.model.attention.skipping_scan import skipping_scan

# Segment int32 [B, T], branch int32 [B, T] and position in the row int32 [1, T] of tokens.
Ids = tuple[Array, Array, Array]

CHUNK = 128  # most queries, and keys, whose scores are held at once


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    branch_ids: Int[Array, "B T"],
    *,
    causal: bool,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H)) v over the keys that a query sees, as `attention.attention` defines it."""
    rows, length, heads, size = query.shape
    kv_heads = key.shape[2]
    if missing := -length % _chunk(length):  # whole chunks; segment -1 sees and is seen by nothing else
        query, key, value = (jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (query, key, value))
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, missing)), constant_values=-1)
        branch_ids = jnp.pad(branch_ids, ((0, 0), (0, missing)))
    query = query.reshape(rows, length + missing, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    out: Array = _grouped(query, key, value, segment_ids, branch_ids, causal)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, length + missing, heads, size)[:, :length]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _grouped(
    query: Float[Array, "B K J T H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    segments: Int[Array, "B T"],
    branches: Int[Array, "B T"],
    causal: bool,
) -> Float[Array, "B K J T H"]:
    """Attention with J query heads to a key head."""
    return _forward(query, key, value, segments, branches, causal)[0]


def _forward(
    query: Array, key: Array, value: Array, segments: Array, branches: Array, causal: bool
) -> tuple[Array, tuple[Array, ...]]:
    ids = _ids(segments, branches)
    needed = _needed(ids, causal)
    count = len(needed)

    def chunk(mine: Array) -> tuple[Array, Array]:
        part, my_ids = _part(query, mine, count), _ids_part(ids, mine, count)

        def block(state: OnlineSoftmax, other: Array) -> tuple[OnlineSoftmax, None]:
            seen = _seen(my_ids, _ids_part(ids, other, count), causal)
            scores, values = _scores(part, _part(key, other, count), seen), _part(value, other, count)
            return update(state, scores, lambda p: _matmul(p.astype(value.dtype), values)), None

        state, _ = _scan(block, begin(part.shape[:-1], part.shape[-1]), None, needed[mine])
        return (state.acc / state.l).astype(value.dtype), (state.m + jnp.log(state.l))[..., 0]

    parts = jax.lax.map(chunk, jnp.arange(count))
    out, logsumexp = name_saved(*jax.tree.map(partial(_join, axis=3), parts))
    return out, (query, key, value, segments, branches, out, logsumexp, needed)


def _backward(causal: bool, saved: tuple[Array, ...], gradient: Array) -> tuple[Array | None, ...]:
    query, key, value, segments, branches, out, logsumexp, needed = saved
    scale, count, ids = query.shape[-1] ** -0.5, len(needed), _ids(segments, branches)
    delta = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)

    def chunk(carry: tuple[Array, Array], mine: Array) -> tuple[tuple[Array, Array], Array]:
        part, outer, normal, mean = (
            _part(x, mine, count) for x in (query, gradient, logsumexp[..., None], delta[..., None])
        )
        my_ids = _ids_part(ids, mine, count)

        def block(query_gradient: Array, other: Array) -> tuple[Array, tuple[Array, Array]]:
            keys, values = _part(key, other, count), _part(value, other, count)
            scores = _scores(part, keys, _seen(my_ids, _ids_part(ids, other, count), causal))
            weights = jnp.exp(scores - normal)
            inner = _matmul(outer, values.swapaxes(-1, -2)) - mean
            slope = (weights * inner * scale).astype(key.dtype)
            key_gradients = _outer(slope, part), _outer(weights.astype(value.dtype), outer)
            return query_gradient + _matmul(slope, keys), key_gradients

        nothing = (jnp.zeros(_part(key, mine, count).shape, jnp.float32),) * 2
        query_gradient, parts = _scan(block, jnp.zeros(part.shape, jnp.float32), nothing, needed[mine])
        keys_added, values_added = (_join(x, axis=2) for x in parts)
        return (carry[0] + keys_added, carry[1] + values_added), query_gradient.astype(query.dtype)

    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    (key_gradient, value_gradient), parts = jax.lax.scan(chunk, zeros, jnp.arange(count))
    gradients = _join(parts, axis=3), key_gradient.astype(key.dtype), value_gradient.astype(value.dtype)
    return *gradients, None, None


_grouped.defvjp(_forward, _backward)


def _chunk(length: int) -> int:
    """Tokens in one chunk: as few equal chunks as may be, so that little is filled up."""
    return -(-length // -(-length // CHUNK))


def _ids(segments: Int[Array, "B T"], branches: Int[Array, "B T"]) -> Ids:
    return segments, branches, jnp.arange(segments.shape[1])[None]


def _ids_part(ids: Ids, number: Array, count: int) -> Ids:
    """The ids of chunk `number` of `count`."""
    segment, branch, at = (_part(x[..., None], number, count)[..., 0] for x in ids)
    return segment, branch, at


def _seen(mine: Ids, others: Ids, causal: bool) -> Bool[Array, "B Q S"]:
    """Which of S keys Q queries see."""
    segment, branch, at = (x[:, :, None] for x in mine)
    other_segment, other_branch, other_at = (x[:, None] for x in others)
    seen = (segment == other_segment) & ((other_branch == 0) | (branch == other_branch))
    return seen & (at >= other_at) if causal else seen


def _needed(ids: Ids, causal: bool) -> Bool[Array, "chunks chunks"]:
    """Whether a chunk of queries sees anything of a chunk of keys, in any row; each sees itself."""
    rows, length = ids[0].shape
    count = length // _chunk(length)

    def sees(mine: Array) -> Bool[Array, "B chunks"]:
        seen = _seen(_ids_part(ids, mine, count), ids, causal)
        return seen.reshape(rows, -1, count, length // count).any((1, 3))

    # A chunk of queries at a time, or the whole mask would be held; rows, which devices share, are joined at the end.
    return jax.lax.map(sees, jnp.arange(count)).any(1) | jnp.eye(count, dtype=bool)


def _scan(block: Callable[..., Any], carry: Any, nothing: Any, needed: Bool[Array, " chunks"]) -> Any:
    """A scan over the numbers of the chunks that are needed; where there is one chunk in all, no loop."""
    if len(needed) == 1:
        carry, given = block(carry, jnp.int32(0))
        return carry, jax.tree.map(lambda x: x[None], given)
    return skipping_scan(block, carry, nothing, jnp.arange(len(needed)), needed)


def _part(x: Array, number: Array, count: int) -> Array:
    """Chunk `number` of `count` along T, the last axis but one."""
    size = x.shape[-2] // count
    return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis=x.ndim - 2)


def _join(parts: Array, axis: int) -> Array:
    """Chunks stacked on a first axis, joined along `axis` to one T axis."""
    whole = jnp.moveaxis(parts, 0, axis)
    return whole.reshape(*whole.shape[:axis], -1, *whole.shape[axis + 2 :])


def _scores(
    part: Float[Array, "B K J Q H"], keys: Float[Array, "B K S H"], seen: Bool[Array, "B Q S"]
) -> Float[Array, "B K J Q S"]:
    """Float32, NEGATIVE where a key must not be seen."""
    scores = _matmul(part, keys.swapaxes(-1, -2)) * part.shape[-1] ** -0.5
    return jnp.where(seen[:, None, None], scores, NEGATIVE)


def _matmul(heads: Float[Array, "B K J Q X"], shared: Float[Array, "B K X Y"]) -> Float[Array, "B K J Q Y"]:
    """All J * Q rows of a key head times one matrix, in float32: a layout that every back end is fast at."""
    rows, kv_heads, groups, count, inner = heads.shape
    flat = heads.reshape(rows, kv_heads, groups * count, inner)
    out = jnp.matmul(flat, shared, preferred_element_type=jnp.float32)
    return out.reshape(rows, kv_heads, groups, count, -1)


def _outer(left: Float[Array, "B K J Q X"], right: Float[Array, "B K J Q Y"]) -> Float[Array, "B K X Y"]:
    """left^T right, summed over the J * Q rows of a key head, in float32."""
    flat = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (left, right))
    return jnp.einsum("bkrx,bkry->bkxy", *flat, preferred_element_type=jnp.float32)
