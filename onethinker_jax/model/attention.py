"""Segment-aware attention, for text (causal) and for vision (one segment a frame).

Scores are bounded in memory: queries run in chunks of ``chunk``, so no [T, T] matrix is ever made and a
chunk's scores are recomputed in the backward pass.  Softmax runs in float32.

Departure from Hugging Face: beside its segment every token has a *branch*.  Branch 0 is a prefix which all
branches of its segment see; a token of branch b > 0 sees branch 0 and its own branch only.  This lets the G
samples of one prompt share the prompt's tokens in one row, in training as in decoding.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NEGATIVE = -1e30  # finite, so that a fully masked (padding) query averages instead of giving NaN


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    segment_ids: Int[Array, "B T"],
    branch_ids: Int[Array, "B T"] | None = None,
    *,
    causal: bool,
    chunk: int = 512,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H)) v over the keys that share the query's segment (and branch).

    Query heads are grouped over key heads (GQA): head n reads key head n // (N / K).  With ``causal`` a key
    must not lie after its query in the row.  Segment 0 is padding: what it returns has no meaning.
    """
    rows, length, heads, size = query.shape
    groups = heads // key.shape[2]
    query = query.reshape(rows, length, key.shape[2], groups, size)
    positions = jnp.arange(length)

    def allowed(start: Array | int, count: int) -> Array:
        take = partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=count)
        mask = take(segment_ids, axis=1)[:, :, None] == segment_ids[:, None, :]
        if branch_ids is not None:
            mask &= (branch_ids[:, None, :] == 0) | (take(branch_ids, axis=1)[:, :, None] == branch_ids[:, None, :])
        if causal:
            mask &= (take(positions, axis=0)[:, None] >= positions[None, :])[None]
        return mask  # bool [B, count, T]

    def attend(start: Array | int, count: int) -> Array:
        part = jax.lax.dynamic_slice_in_dim(query, start, count, axis=1)
        scores = jnp.einsum("btkgh,bskh->bkgts", part, key, preferred_element_type=jnp.float32) * size**-0.5
        scores = jnp.where(allowed(start, count)[:, None, None], scores, NEGATIVE)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("bkgts,bskh->btkgh", weights, value)

    if length <= chunk:
        out = attend(0, length)
    else:
        if length % chunk:
            raise ValueError(f"sequence length {length} is not a multiple of the attention chunk {chunk}")
        starts = jnp.arange(0, length, chunk)
        parts = jax.lax.map(jax.checkpoint(lambda start: attend(start, chunk)), starts)
        out = jnp.moveaxis(parts, 0, 1).reshape(rows, length, key.shape[2], groups, size)
    return out.reshape(rows, length, heads, size)


def decode_attention(
    query: Float[Array, "B G N H"],
    prefix_key: Float[Array, "B S K H"],
    prefix_value: Float[Array, "B S K H"],
    suffix_key: Float[Array, "B G U K H"],
    suffix_value: Float[Array, "B G U K H"],
    new_key: Float[Array, "B G K H"],
    new_value: Float[Array, "B G K H"],
    prefix_mask: Int[Array, "B S"],
    step: Int[Array, ""],
) -> Float[Array, "B G N H"]:
    """One query of each of G samples over its prompt's keys (read once for all G), its own, and its newest.

    ``prefix_mask`` is nonzero at the prompt's true tokens; the first ``step`` entries of the suffix count.
    """
    rows, samples, heads, size = query.shape
    groups = heads // prefix_key.shape[2]
    query = query.reshape(rows, samples, prefix_key.shape[2], groups, size)
    einsum = partial(jnp.einsum, preferred_element_type=jnp.float32)
    prefix = einsum("bgkrh,bskh->bgkrs", query, prefix_key)
    prefix = jnp.where((prefix_mask != 0)[:, None, None, None, :], prefix, NEGATIVE)
    suffix = einsum("bgkrh,bgukh->bgkru", query, suffix_key)
    suffix = jnp.where(jnp.arange(suffix.shape[-1]) < step, suffix, NEGATIVE)
    newest = einsum("bgkrh,bgkh->bgkr", query, new_key)[..., None]
    scores = jnp.concatenate([prefix, suffix, newest], axis=-1) * size**-0.5
    weights = jax.nn.softmax(scores, axis=-1).astype(new_value.dtype)
    from_prefix, from_suffix, from_newest = jnp.split(
        weights, [prefix.shape[-1], prefix.shape[-1] + suffix.shape[-1]], axis=-1
    )
    out = jnp.einsum("bgkrs,bskh->bgkrh", from_prefix, prefix_value)
    out += jnp.einsum("bgkru,bgukh->bgkrh", from_suffix, suffix_value)
    out += from_newest * new_value[:, :, :, None, :]
    return out.reshape(rows, samples, heads, size)
