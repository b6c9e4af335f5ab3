"""Attention in plain XLA with bounded memory, for every platform; segments and branches as in ``attention.py``.

Queries run in chunks, so no [T, T] matrix is ever made, and a chunk's scores are made anew in the backward pass
(as in FlashAttention, arXiv 2205.14135).  Softmax runs in float32.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NEGATIVE = -1e30  # finite, so that a fully masked (padding) query averages instead of giving NaN
CHUNK = 512  # most queries whose scores are held at once


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    branch_ids: Int[Array, "B T"],
    *,
    causal: bool,
) -> Float[Array, "B T N H"]:
    """As ``attention.attention``."""
    rows, length, heads, size = query.shape
    kv_heads = key.shape[2]
    if missing := -length % _chunk(length):  # whole chunks, filled up with a segment of nobody's
        query, key, value = (jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (query, key, value))
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, missing)), constant_values=-1)
        branch_ids = jnp.pad(branch_ids, ((0, 0), (0, missing)))
    query = query.reshape(rows, length + missing, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    out: Array = _grouped(query, key, value, segment_ids, branch_ids, causal)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, length + missing, heads, size)[:, :length]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _grouped(
    query: Float[Array, "B K R T H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    segments: Int[Array, "B T"],
    branches: Int[Array, "B T"],
    causal: bool,
) -> Float[Array, "B K R T H"]:
    """Attention with R query heads to a key head; a chunk's scores are made anew in the backward pass."""
    return _forward(query, key, value, segments, branches, causal)[0]


def _forward(
    query: Array, key: Array, value: Array, segments: Array, branches: Array, causal: bool
) -> tuple[Array, tuple[Array, ...]]:
    def chunk(start: Array) -> tuple[Array, Array]:
        scores = _scores(_part(query, start), key, segments, branches, start, causal)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        mixed = _matmul(weights.astype(value.dtype), value) / total
        return mixed.astype(value.dtype), (top + jnp.log(total))[..., 0]

    out, logsumexp = _map_chunks(chunk, query.shape[3])
    return out, (query, key, value, segments, branches, out, logsumexp)


def _backward(causal: bool, saved: tuple[Array, ...], gradient: Array) -> tuple[Array | None, ...]:
    query, key, value, segments, branches, out, logsumexp = saved
    scale = query.shape[-1] ** -0.5
    delta = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)

    def chunk(carry: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], Array]:
        key_gradient, value_gradient = carry
        part, outer = _part(query, start), _part(gradient, start)
        scores = _scores(part, key, segments, branches, start, causal)
        weights = jnp.exp(scores - _part(logsumexp[..., None], start))
        inner = _matmul(outer, value.swapaxes(-1, -2)) - _part(delta[..., None], start)
        slope = (weights * inner * scale).astype(key.dtype)
        key_gradient += _outer(slope, part)
        value_gradient += _outer(weights.astype(value.dtype), outer)
        return (key_gradient, value_gradient), _matmul(slope, key).astype(query.dtype)

    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    starts = _starts(query.shape[3])
    if len(starts) == 1:
        (key_gradient, value_gradient), query_gradient = chunk(zeros, starts[0])
    else:
        (key_gradient, value_gradient), parts = jax.lax.scan(chunk, zeros, starts)
        query_gradient = _join(parts)
    return query_gradient, key_gradient.astype(key.dtype), value_gradient.astype(value.dtype), None, None


_grouped.defvjp(_forward, _backward)


def _chunk(length: int) -> int:
    """Queries in one chunk: as few equal chunks as may be, so that little is filled up."""
    return -(-length // -(-length // CHUNK))


def _starts(length: int) -> Array:
    return jnp.arange(0, length, _chunk(length))


def _part(x: Array, start: Array) -> Array:
    """The chunk of T that begins at ``start``, T on axis 3."""
    return jax.lax.dynamic_slice_in_dim(x, start, _chunk(x.shape[3]), axis=3)


def _map_chunks(chunk: Callable[[Array], tuple[Array, Array]], length: int) -> tuple[Array, Array]:
    starts = _starts(length)
    return chunk(starts[0]) if len(starts) == 1 else jax.tree.map(_join, jax.lax.map(chunk, starts))


def _join(parts: Array) -> Array:
    """Chunks stacked on a first axis, back to one T axis (axis 3)."""
    whole = jnp.moveaxis(parts, 0, 3)
    return whole.reshape(*whole.shape[:3], -1, *whole.shape[5:])


def _scores(part: Array, key: Array, segments: Array, branches: Array, start: Array, causal: bool) -> Array:
    """Float32 [B, K, R, C, T], NEGATIVE where a key must not be seen."""
    count, length = part.shape[3], key.shape[2]
    at = start + jnp.arange(count)
    my_segment, my_branch = (jnp.take(ids, at, axis=1)[:, :, None] for ids in (segments, branches))
    allowed = (my_segment == segments[:, None, :]) & (
        (branches[:, None, :] == 0) | (my_branch == branches[:, None, :])
    )
    if causal:
        allowed &= (at[:, None] >= jnp.arange(length)[None, :])[None]
    scores = _matmul(part, key.swapaxes(-1, -2)) * part.shape[-1] ** -0.5
    return jnp.where(allowed[:, None, None], scores, NEGATIVE)


def _matmul(heads: Float[Array, "B K R C X"], shared: Float[Array, "B K X Y"]) -> Float[Array, "B K R C Y"]:
    """All R * C rows of a key head against one matrix, in float32: a layout every back end is fast at."""
    rows, kv_heads, groups, count, inner = heads.shape
    flat = heads.reshape(rows, kv_heads, groups * count, inner)
    out = jnp.matmul(flat, shared, preferred_element_type=jnp.float32)
    return out.reshape(rows, kv_heads, groups, count, -1)


def _outer(left: Float[Array, "B K R C X"], right: Float[Array, "B K R C Y"]) -> Float[Array, "B K X Y"]:
    """left^T right, summed over the R * C rows of a key head, in float32."""
    flat = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (left, right))
    return jnp.einsum("bkrx,bkry->bkxy", *flat, preferred_element_type=jnp.float32)
