"""Decode attention over one part of a KV cache for NVIDIA GPUs (Ampere and later), in Pallas through Triton.

XLA copies every chunk of a cache out of the stack of layers before it multiplies it, and keeps the scores in memory
between the two products. Here a program reads the keys and values of one cache row and key head where they lie, each
once for all queries that share them, and only those columns that a sample sees. The visible blocks of a row are dealt
out to several programs (FlashDecoding), whose softmaxes are merged afterwards. `qwen3_vl.py` has the legend of the axis
letters; here B are rows of a part of the cache (R prompts, or R x g samples) and Q the queries of a row and key head.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.flash_blocks import ONE_LAYER, decode_cost
from onethinker_jax.model.attention.kv_cache import KeyValues
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, begin, update

LOG2_E = math.log2(math.e)
SMALLEST = 16  # side of a matrix that the tensor cores take
QUERIES = 64  # of a block, at most
COLUMNS = 64  # of a block of 16-bit or 8-bit numbers
PROGRAMS = 512  # that keep every multiprocessor busy, and its memory reads in flight
WARPS, STAGES = 4, 3


def decode_softmax(
    query: Float[Array, "B K Q H"],
    part: KeyValues,
    layer: Int[Array, ""],
    first: Int[Array, " B"],
    count: Int[Array, " B"],
    *,
    interpret: bool,
) -> OnlineSoftmax:
    """The softmax of each row's queries over the `count` columns of a layer from column `first` on, as of a ring.

    `part` is [L, B, K, T, H]. A row that sees no column has m = NEGATIVE.
    """
    rows, heads, queries, size = query.shape
    layers, columns = part.key.shape[0], part.capacity
    block = min(max(pl.next_power_of_2(queries), SMALLEST), QUERIES)
    step = min(COLUMNS * 2 // max(part.key.dtype.itemsize, 2), max(pl.next_power_of_2(columns), SMALLEST))
    each = pl.cdiv(queries, block)  # blocks of queries that a row and head have
    padded = each * block
    cost = decode_cost(query, part)
    query = jnp.pad(query, ((0, 0), (0, 0), (0, padded - queries), (0, 0)))
    splits = max(min(PROGRAMS // (rows * each * heads), pl.cdiv(columns, step)), 1)
    scales = [] if part.key_scale is None else [part.key_scale, part.value_scale]
    width = _width(size)

    def of_cache(*sides: int) -> pl.BlockSpec:
        whole = (0,) * len(sides)
        return pl.BlockSpec((layers, None, None, *sides), lambda b, k, s: (0, b // each, k, *whole))

    def of_queries(*sides: int) -> pl.BlockSpec:
        whole = (0,) * (len(sides) - 1)
        return pl.BlockSpec((None, None, None, *sides), lambda b, k, s: (s, b // each, k, b % each, *whole))

    of_row = pl.BlockSpec((None,), lambda b, k, s: (b // each,))
    statistics = jax.ShapeDtypeStruct((splits, rows, heads, padded), jnp.float32)
    outputs = pl.pallas_call(
        partial(_kernel, size=size, columns=columns, step=step, splits=splits),
        grid=(rows * each, heads, splits),
        in_specs=[
            pl.BlockSpec((None,), lambda b, k, s: (0,)),
            of_row,
            of_row,
            pl.BlockSpec((None, None, block, width), lambda b, k, s: (b // each, k, b % each, 0)),
            of_cache(width, columns),
            of_cache(columns, width),
            *(of_cache(columns) for _ in scales),
        ],
        out_specs=[of_queries(block), of_queries(block), of_queries(block, width)],
        out_shape=[statistics, statistics, jax.ShapeDtypeStruct((*statistics.shape, size), jnp.float32)],
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        cost_estimate=cost,
        interpret=interpret,
        name=f"decode_softmax{ONE_LAYER}",  # `train/cost/program_cost.py` knows it by its end
    )(layer[None], first, count, query, part.key, part.value, *scales)
    m, l, acc = (x[:, :, :, :queries] for x in outputs)
    highest = m.max(0)
    alpha = jnp.exp2(m - highest)[..., None]
    return OnlineSoftmax((highest / LOG2_E)[..., None], (l[..., None] * alpha).sum(0), (acc * alpha).sum(0))


def _kernel(
    layer, first, count, query, key, value, *rest, size: int, columns: int, step: int, splits: int
) -> None:
    *scales, m_out, l_out, acc_out = rest
    layer, first, count = layer[...], first[...], count[...]
    queries = _load(query, size, axis=1)
    total = pl.cdiv(columns, step)
    visible = jax.lax.div(jax.lax.rem(first, step) + count + step - 1, step)
    # The last block of a ring may be shorter than the others: then all are looked at.
    blocks = jnp.where(count > 0, total, 0) if columns % step else jnp.minimum(visible, total)
    share = jax.lax.div(blocks + splits - 1, splits)
    begin_at = pl.program_id(2) * share

    def meet(number: Array, state: OnlineSoftmax) -> OnlineSoftmax:
        start = jax.lax.rem(jax.lax.div(first, step) + number, total) * step
        at = start + jnp.arange(step, dtype=jnp.int32)
        whole = None if columns % step == 0 else at < columns
        offset = at - first
        seen = jnp.where(offset < 0, offset + columns, offset) < count
        seen = seen if whole is None else seen & whole
        taken = pl.ds(start, step)
        keys = _load(key.at[layer, :, taken], size, axis=0, also=None if whole is None else whole[None])
        scores = _dot(queries, keys.astype(queries.dtype)) * (LOG2_E * size**-0.5)
        if scales:
            scores *= _scale(scales[0], layer, taken, whole)[None]
        scores = jnp.where(seen[None], scores, NEGATIVE)

        def mix(p: Array) -> Array:
            values = _load(
                value.at[layer, taken], size, axis=1, also=None if whole is None else whole[:, None]
            )
            p = p * _scale(scales[1], layer, taken, whole)[None] if scales else p
            return _dot(p.astype(queries.dtype), values.astype(queries.dtype))

        return update(state, scores, mix, jnp.exp2)

    nothing = begin((queries.shape[0],), _width(size), keepdims=False)
    m, l, acc = jax.lax.fori_loop(begin_at, jnp.minimum(begin_at + share, blocks), meet, nothing)
    m_out[...], l_out[...] = m, l
    plgpu.store(acc_out, acc, mask=_real(size, 1))


def _scale(scale: Any, layer: Array, taken: Any, whole: Array | None) -> Array:
    return plgpu.load(scale.at[layer, taken], mask=whole, other=None if whole is None else 0.0)


def _load(ref: Any, size: int, *, axis: int, also: Array | None = None) -> Array:
    """A block, zeros beyond the head size on `axis` and where `also` is false."""
    real = _real(size, axis)
    mask = also if real is None else real if also is None else real & also
    return plgpu.load(ref, mask=mask, other=None if mask is None else 0.0)


def _real(size: int, axis: int) -> Array | None:
    width = _width(size)
    return None if width == size else jnp.expand_dims(jnp.arange(width) < size, 1 - axis)


def _width(size: int) -> int:
    """Triton's arrays have sides that are powers of two."""
    return max(pl.next_power_of_2(size), SMALLEST)


def _dot(left: Array, right: Array) -> Array:
    return jnp.dot(left, right, preferred_element_type=jnp.float32)


def addressable(part: KeyValues) -> bool:
    """Whether Pallas can reach every number: it takes offsets for 32 bits wide, signed, up to 2^32 bytes."""
    sizes = [(x.size, x.size * x.dtype.itemsize) for x in jax.tree.leaves(part)]
    return all(count < 2**31 or size > 2**32 for count, size in sizes)
