"""The flash kernels of `flash.py` for NVIDIA GPUs (Ampere and later), in Pallas through Triton.

A program holds one *outer* block (of queries; for dk and dv of keys) and loops over the *inner* blocks that it can
meet, by a list made on the device from the ids (`Visits`). A row of many short segments (the frames of a video)
or of branches (the samples of a prompt) thus costs what its own blocks cost. `qwen3_vl.py` has the legend of the axis
letters; O and I are outer and inner blocks.

Arrays stay as the model has them, [B, T, heads, H]: a key head is read where it lies by all of its query heads.
T is padded to whole blocks where it must; the head size is padded to a power of two in the chip only. Scores,
softmax and sums are float32. Exponentials are to base 2, the scores being scaled by log2(e) / sqrt(H). Products of
float32 follow `jax_default_matmul_precision`, as XLA's do: TF32 unless it says "highest".
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.attention.flash_blocks import (
    Part,
    block_meetings,
    kernel_cost,
    kernel_name,
    token_codes,
)
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, begin, name_saved, update

LOG2_E = math.log2(math.e)
SMALLEST = 16  # side of a matrix that the tensor cores take


class Tiles(NamedTuple):
    """Tokens of an outer and of an inner block of 16-bit numbers, and how a program runs on a multiprocessor."""

    outer: int
    inner: int
    warps: int
    stages: int  # of Triton's pipeline: inner blocks in shared memory or on their way there


FORWARD = Tiles(outer=128, inner=64, warps=8, stages=3)
QUERY_GRADIENT = Tiles(outer=128, inner=64, warps=8, stages=2)
KEY_GRADIENTS = Tiles(outer=128, inner=64, warps=8, stages=2)


class Visits(NamedTuple):
    """The numbers of the inner blocks that each outer block meets, and how many these are."""

    blocks: Int[Array, "B O I"]  # along the last axis the first `counts` are in use
    counts: Int[Array, "B O"]


PARTS: tuple[Part, ...] = ("forward", "query_gradient", "key_gradients")


def block_sizes(part: Part, length: int, itemsize: int) -> tuple[int, int]:
    """Queries and keys of the blocks in which a kernel meets rows of `length` tokens of `itemsize` bytes a number."""
    tiles = {"forward": FORWARD, "query_gradient": QUERY_GRADIENT, "key_gradients": KEY_GRADIENTS}[part]
    tiles = _fit(tiles, length, itemsize)
    return (tiles.inner, tiles.outer) if part == "key_gradients" else (tiles.outer, tiles.inner)


def forward(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    branches: Int[Array, "B T"],
    *,
    causal: bool,
    interpret: bool,
) -> tuple[Float[Array, "B T N H"], tuple[Array, ...]]:
    """Attention's result, and what `backward` needs: the arguments, and log2 of each query's sum of exponentials."""
    tiles = _fit(FORWARD, query.shape[1], query.dtype.itemsize)
    length, size = query.shape[1], query.shape[3]
    arrays = [_pad(x, tiles, axis=1) for x in (query, key, value)]
    ids = [_pad(x, tiles, axis=1) for x in (segments, branches)]
    rows, padded, heads, _ = arrays[0].shape
    outer_ids, inner_ids, queries, keys, statistics = _query_specs(tiles, arrays[0], key)
    out, logsumexp = pl.pallas_call(
        partial(_forward_kernel, tiles=tiles, causal=causal, size=size),
        grid=(padded // tiles.outer, heads, rows),
        in_specs=[*_visit_specs(tiles, padded), outer_ids, outer_ids, inner_ids, queries, keys, keys],
        out_specs=[queries, statistics],
        out_shape=[
            jax.ShapeDtypeStruct(arrays[0].shape, value.dtype),
            jax.ShapeDtypeStruct((rows, heads, padded), jnp.float32),
        ],
        **_settings("forward", tiles, query, key, causal=causal, interpret=interpret),
    )(
        *_visits(block_meetings(*ids, query_block=tiles.outer, key_block=tiles.inner, causal=causal)),
        *token_codes(*ids),
        *arrays,
    )
    out = out[:, :length]
    out, logsumexp = name_saved(out, logsumexp[:, :, :length])
    return out, (query, key, value, segments, branches, out, logsumexp)


def backward(
    saved: tuple[Array, ...], gradient: Float[Array, "B T N H"], *, causal: bool, interpret: bool
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    """Gradients of query, key and value; `gradient` is that of `forward`'s first result."""
    query, key, value, segments, branches, out, logsumexp = saved
    delta = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1).swapaxes(1, 2)
    statistics = (logsumexp, delta)
    arrays, ids = (query, key, value, gradient), (segments, branches)
    dq = _query_gradient(arrays, statistics, ids, causal=causal, interpret=interpret)
    dk, dv = _key_gradients(arrays, statistics, ids, causal=causal, interpret=interpret)
    return tuple(x[:, : query.shape[1]] for x in (dq, dk, dv))  # pyright: ignore[reportReturnType]


def _query_gradient(
    arrays: tuple[Array, ...],
    statistics: tuple[Array, ...],
    ids: tuple[Array, ...],
    *,
    causal: bool,
    interpret: bool,
) -> Array:
    query, key = arrays[:2]
    tiles = _fit(QUERY_GRADIENT, query.shape[1], query.dtype.itemsize)
    settings = _settings("query_gradient", tiles, query, key, causal=causal, interpret=interpret)
    arrays, statistics, ids = _pad_all(tiles, arrays, statistics, ids)
    rows, padded, heads, size = arrays[0].shape
    outer_ids, inner_ids, queries, keys, outer_statistics = _query_specs(tiles, arrays[0], key)
    return pl.pallas_call(
        partial(_query_gradient_kernel, tiles=tiles, causal=causal, size=size),
        grid=(padded // tiles.outer, heads, rows),
        in_specs=[
            *_visit_specs(tiles, padded),
            *(outer_ids, outer_ids, inner_ids),
            *(queries, keys, keys, queries, outer_statistics, outer_statistics),
        ],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct(arrays[0].shape, query.dtype),
        **settings,
    )(
        *_visits(block_meetings(*ids, query_block=tiles.outer, key_block=tiles.inner, causal=causal)),
        *token_codes(*ids),
        *arrays,
        *statistics,
    )


def _key_gradients(
    arrays: tuple[Array, ...],
    statistics: tuple[Array, ...],
    ids: tuple[Array, ...],
    *,
    causal: bool,
    interpret: bool,
) -> tuple[Array, Array]:
    """A program holds a key block, and loops over its query blocks and over the heads that share the key."""
    query, key = arrays[:2]
    tiles = _fit(KEY_GRADIENTS, query.shape[1], query.dtype.itemsize)
    settings = _settings("key_gradients", tiles, query, key, causal=causal, interpret=interpret)
    arrays, statistics, ids = _pad_all(tiles, arrays, statistics, ids)
    rows, padded, kv_heads, size = arrays[1].shape
    shared = query.shape[2] // kv_heads
    inner_ids = pl.BlockSpec((None, padded), lambda o, k, b: (b, 0))
    outer_ids = pl.BlockSpec((None, tiles.outer), lambda o, k, b: (b, o))
    queries = pl.BlockSpec((None, padded, shared, _columns(size)), lambda o, k, b: (b, 0, k, 0))
    keys = pl.BlockSpec((None, tiles.outer, None, _columns(size)), lambda o, k, b: (b, o, k, 0))
    inner_statistics = pl.BlockSpec((None, shared, padded), lambda o, k, b: (b, k, 0))
    meetings = block_meetings(*ids, query_block=tiles.inner, key_block=tiles.outer, causal=causal)
    return pl.pallas_call(
        partial(_key_gradients_kernel, tiles=tiles, causal=causal, size=size, shared=shared),
        grid=(padded // tiles.outer, kv_heads, rows),
        in_specs=[
            *_visit_specs(tiles, padded),
            *(inner_ids, inner_ids, outer_ids),
            *(queries, keys, keys, queries, inner_statistics, inner_statistics),
        ],
        out_specs=[keys, keys],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[1:3]],
        **settings,
    )(*_visits(meetings.swapaxes(1, 2)), *token_codes(*ids), *arrays, *statistics)


def _forward_kernel(
    blocks, count, own, common, codes, query, key, value, out, logsumexp, *, tiles, causal, size
):  # fmt: skip
    first = pl.program_id(0) * tiles.outer
    queries, own, common = _load(query, size), own[...][:, None], common[...][:, None]

    def meet(step: Array, state: OnlineSoftmax) -> OnlineSoftmax:
        start = blocks[step] * tiles.inner
        tokens = pl.ds(start, tiles.inner)
        keys = codes[tokens][None]
        seen = (own == keys) | (common == keys)
        if causal:
            seen &= _positions(first, tiles.outer)[:, None] >= _positions(start, tiles.inner)[None]
        scores = _dot(queries, _load(key.at[tokens], size), 1, 1) * (LOG2_E * size**-0.5)
        scores = jnp.where(seen, scores, NEGATIVE)

        def mix(p: Array) -> Array:
            values = _load(value.at[tokens], size)
            return _dot(p.astype(values.dtype), values, 1, 0)

        return update(state, scores, mix, jnp.exp2)

    nothing = begin((tiles.outer,), _columns(size), keepdims=False)
    m, l, acc = jax.lax.fori_loop(0, count[...], meet, nothing)
    # The sums over keys before a query's first seen key have been multiplied by alpha = 0.
    sees = m > NEGATIVE
    divisor = jnp.where(sees, l, 1.0)
    _store(out, jnp.where(sees[:, None], acc, 0.0) / divisor[:, None], size)
    logsumexp[...] = jnp.where(sees, m, 0.0) + jnp.log2(divisor)


def _query_gradient_kernel(
    blocks, count, own, common, codes, query, key, value, gradient, logsumexp, delta, out,
    *, tiles, causal, size,
):  # fmt: skip
    first = pl.program_id(0) * tiles.outer
    queries, gradients = _load(query, size), _load(gradient, size)
    own, common = own[...][:, None], common[...][:, None]
    logsumexp, delta = logsumexp[...][:, None], delta[...][:, None]

    def meet(step: Array, total: Array) -> Array:
        start = blocks[step] * tiles.inner
        tokens = pl.ds(start, tiles.inner)
        held, keys = _load(key.at[tokens], size), codes[tokens][None]
        seen = (own == keys) | (common == keys)
        if causal:
            seen &= _positions(first, tiles.outer)[:, None] >= _positions(start, tiles.inner)[None]
        scores = jnp.where(seen, _dot(queries, held, 1, 1) * (LOG2_E * size**-0.5), NEGATIVE)
        weights = jnp.exp2(scores - logsumexp)
        slope = weights * (_dot(gradients, _load(value.at[tokens], size), 1, 1) - delta)
        return total + _dot(slope.astype(held.dtype), held, 1, 0)

    nothing = jnp.zeros((tiles.outer, _columns(size)), jnp.float32)
    _store(out, jax.lax.fori_loop(0, count[...], meet, nothing) * size**-0.5, size)


def _key_gradients_kernel(
    blocks, count, own, common, codes, query, key, value, gradient, logsumexp, delta, key_out, value_out,
    *, tiles, causal, size, shared,
):  # fmt: skip
    """Scores are transposed, [keys, queries]."""
    first = pl.program_id(0) * tiles.outer
    keys, values, codes = _load(key, size), _load(value, size), codes[...][:, None]

    def meet(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        key_sum, value_sum = sums
        start, head = blocks[jax.lax.div(step, shared)] * tiles.inner, jax.lax.rem(step, shared)
        tokens = pl.ds(start, tiles.inner)
        queries, gradients = _load(query.at[tokens, head], size), _load(gradient.at[tokens, head], size)
        seen = (own[tokens][None] == codes) | (common[tokens][None] == codes)
        if causal:
            seen &= _positions(start, tiles.inner)[None] >= _positions(first, tiles.outer)[:, None]
        scores = jnp.where(seen, _dot(keys, queries, 1, 1) * (LOG2_E * size**-0.5), NEGATIVE)
        weights = jnp.exp2(scores - logsumexp[head, tokens][None])
        slope = weights * (_dot(values, gradients, 1, 1) - delta[head, tokens][None])
        value_sum += _dot(weights.astype(gradients.dtype), gradients, 1, 0)
        key_sum += _dot(slope.astype(queries.dtype), queries, 1, 0)
        return key_sum, value_sum

    nothing = jnp.zeros((tiles.outer, _columns(size)), jnp.float32)
    key_sum, value_sum = jax.lax.fori_loop(0, count[...] * shared, meet, (nothing, nothing))
    _store(key_out, key_sum * size**-0.5, size)
    _store(value_out, value_sum, size)


def _positions(start: Array, count: int) -> Array:
    """Positions in the row of a block's tokens."""
    return start + jnp.arange(count, dtype=jnp.int32)


def _dot(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    return jax.lax.dot_general(
        left, right, (((left_axis,), (right_axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _load(ref: Any, size: int) -> Array:
    """[tokens, columns], zeros beyond the head size."""
    real = _real_columns(size)
    return plgpu.load(ref, mask=real, other=None if real is None else 0.0)


def _store(ref: Any, block: Array, size: int) -> None:
    plgpu.store(ref, block.astype(ref.dtype), mask=_real_columns(size))


def _real_columns(size: int) -> Array | None:
    columns = _columns(size)
    return None if columns == size else (jnp.arange(columns) < size)[None]


def _columns(size: int) -> int:
    """Triton's arrays have sides that are powers of two."""
    return max(pl.next_power_of_2(size), SMALLEST)


def _fit(tiles: Tiles, length: int, itemsize: int) -> Tiles:
    """Blocks no longer than the row, and half as long where numbers are twice as wide."""
    halve = itemsize // 2
    outer = min(tiles.outer // halve, max(pl.next_power_of_2(length), SMALLEST))
    return tiles._replace(outer=outer, inner=min(tiles.inner // halve, outer))


def _pad(x: Array, tiles: Tiles, *, axis: int) -> Array:
    """T to whole blocks: ids of 0 are padding."""
    missing = -x.shape[axis] % tiles.outer
    return jnp.pad(x, [(0, missing if at == axis else 0) for at in range(x.ndim)])


def _pad_all(
    tiles: Tiles, arrays: tuple[Array, ...], statistics: tuple[Array, ...], ids: tuple[Array, ...]
) -> tuple[tuple[Array, ...], ...]:
    return (
        tuple(_pad(x, tiles, axis=1) for x in arrays),
        tuple(_pad(x, tiles, axis=2) for x in statistics),
        tuple(_pad(x, tiles, axis=1) for x in ids),
    )


def _visits(meetings: Bool[Array, "B O I"]) -> Visits:
    inners = meetings.shape[-1]
    blocks = jnp.sort(jnp.where(meetings, jnp.arange(inners, dtype=jnp.int32), inners))
    return Visits(blocks, meetings.sum(-1, dtype=jnp.int32))


def _visit_specs(tiles: Tiles, padded: int) -> list[pl.BlockSpec]:
    blocks = pl.BlockSpec((None, None, padded // tiles.inner), lambda o, n, b: (b, o, 0))
    return [blocks, pl.BlockSpec((None, None), lambda o, n, b: (b, o))]


def _query_specs(tiles: Tiles, query: Array, key: Array) -> tuple[pl.BlockSpec, ...]:
    """Block specs of outer and inner ids, queries, keys and statistics, of programs that hold a query block."""
    _, padded, heads, size = query.shape
    shared = heads // key.shape[2]
    return (
        pl.BlockSpec((None, tiles.outer), lambda o, n, b: (b, o)),
        pl.BlockSpec((None, padded), lambda o, n, b: (b, 0)),
        pl.BlockSpec((None, tiles.outer, None, _columns(size)), lambda o, n, b: (b, o, n, 0)),
        pl.BlockSpec((None, padded, None, _columns(size)), lambda o, n, b: (b, 0, n // shared, 0)),
        pl.BlockSpec((None, None, tiles.outer), lambda o, n, b: (b, n, o)),
    )


def _settings(
    part: Part, tiles: Tiles, query: Array, key: Array, *, causal: bool, interpret: bool
) -> dict[str, Any]:
    """The arguments that every `pallas_call` here takes."""
    return {
        "compiler_params": plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        "cost_estimate": pl.CostEstimate(
            **kernel_cost(
                part,
                query,
                key,
                rows=query.shape[0] * query.shape[2],
                tokens=(query.shape[1], query.shape[3]),
                causal=causal,
            )
        ),
        "interpret": interpret,
        "name": kernel_name(part, causal),
    }
