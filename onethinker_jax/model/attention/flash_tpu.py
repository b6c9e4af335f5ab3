"""The flash kernels of `flash.py` for TPUs, in Pallas: only over blocks that can meet.

Departure from FlashAttention: the grid does not run over all pairs of query and key blocks but over a *work list*
of those that can meet, made on the device from the ids, whose length is a dynamic bound of the grid. A row of
many short segments (the frames of a video) or of branches (the samples of a prompt) thus costs what its own blocks
cost, and no step is spent on skipping the others.

Layout inside: query [B, N, T, H], key and value [B, K, T, H]; the head size is padded to whole lanes (128) and
T to whole blocks. Scores, softmax and sums are float32. `qwen3_vl.py` has the legend of the axis letters; O and I are
outer and inner blocks, W entries of a work list.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.attention.flash_blocks import (
    Part,
    block_meetings,
    kernel_cost,
    kernel_name,
    token_codes,
)
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, update
from onethinker_jax.model.attention.saved import name_saved

LANES = 128
BLOCK = 512  # queries, and keys, of one step
FIRST, LAST = 1, 2  # bits of `WorkList.edges`


class WorkList(NamedTuple):
    """Pairs of blocks that can meet, those of one accumulator behind one another; all but `count` are int32 [W]."""

    rows: Array
    outer: Array  # the block that accumulates: of queries, or for dk and dv of keys
    inner: Array
    edges: Array  # FIRST and LAST of an accumulator
    count: Array  # int32 [], how many of the W entries are in use


class Codes(NamedTuple):
    """`flash_blocks.token_codes` as the kernels read them."""

    queries_down: Array  # int32 [B, T, 2], own and shared, along sublanes
    queries_across: Array  # int32 [B, 2, T], the same along lanes
    keys_down: Array  # int32 [B, T, 1]
    keys_across: Array  # int32 [B, 1, T]


def block_sizes(part: Part, length: int, itemsize: int) -> tuple[int, int]:
    """Queries and keys of the blocks in which a kernel meets rows of `length` tokens."""
    block = _block(length)
    return block, block


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
    """Attention's result, and what `backward` needs: arrays in the kernels' layout."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    attended = _attend(query, key, value, segments, branches, causal=causal, interpret=interpret)
    out, logsumexp = name_saved(*attended)
    return out.swapaxes(1, 2), (query, key, value, segments, branches, out, logsumexp)


def backward(
    saved: tuple[Array, ...], gradient: Float[Array, "B T N H"], *, causal: bool, interpret: bool
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    """Gradients of query, key and value; `gradient` is that of `forward`'s first result."""
    query, key, value, segments, branches, out, logsumexp = saved
    gradient = gradient.swapaxes(1, 2)
    length, size = query.shape[2:]
    block = _block(length)
    delta = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
    query, key, value, gradient = (_pad(x, block) for x in (query, key, value, gradient))
    segments, branches = (_pad_ids(ids, block) for ids in (segments, branches))
    missing = ((0, 0), (0, 0), (0, query.shape[2] - length))
    logsumexp, delta = (jnp.pad(x, missing)[:, :, None] for x in (logsumexp, delta))
    meetings = block_meetings(segments, branches, query_block=block, key_block=block, causal=causal)
    codes = _codes(segments, branches)
    arrays = (query, key, value, gradient, logsumexp, delta)
    settings: dict[str, Any] = {"causal": causal, "tokens": (length, size), "interpret": interpret}
    dq = _query_gradient(_work_list(meetings), codes, arrays, block, **settings)
    dk, dv = _key_gradients(_work_list(meetings.swapaxes(1, 2)), codes, arrays, block, **settings)
    return tuple(x[:, :, :length, :size].swapaxes(1, 2) for x in (dq, dk, dv))  # pyright: ignore[reportReturnType]


def _attend(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    segments: Int[Array, "B T"],
    branches: Int[Array, "B T"],
    *,
    causal: bool,
    interpret: bool,
) -> tuple[Float[Array, "B N T H"], Float[Array, "B N T"]]:
    """Attention's result, and the log of each query's sum of exponentials (float32)."""
    length, size = query.shape[2:]
    block = _block(length)
    query, key, value = (_pad(x, block) for x in (query, key, value))
    segments, branches = (_pad_ids(ids, block) for ids in (segments, branches))
    rows, heads, padded, lanes = query.shape
    work = _work_list(block_meetings(segments, branches, query_block=block, key_block=block, causal=causal))
    codes = _codes(segments, branches)
    codes_specs, queries, keys, statistics = _specs(block, lanes, heads // key.shape[1])
    out, logsumexp = pl.pallas_call(
        partial(_forward_kernel, causal=causal, scale=size**-0.5),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(heads, work.count),
            in_specs=[*codes_specs, queries, keys, keys],
            out_specs=[queries, statistics],
            scratch_shapes=[
                *(pltpu.VMEM((block, LANES), jnp.float32) for _ in range(2)),
                pltpu.VMEM((block, lanes), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, value.dtype),
            jax.ShapeDtypeStruct((rows, heads, 1, padded), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(query, key, (length, size), products=2, causal=causal),
        interpret=interpret,
        name=kernel_name("forward", causal),
    )(*work[:4], codes.queries_down, codes.keys_across, query, key, value)
    return out[:, :, :length, :size], logsumexp[:, :, 0, :length]


def _query_gradient(
    work: WorkList,
    codes: Codes,
    arrays: tuple[Array, ...],
    block: int,
    *,
    causal: bool,
    tokens: tuple[int, int],
    interpret: bool,
) -> Array:
    query, key = arrays[:2]
    heads, lanes = query.shape[1], query.shape[3]
    codes_specs, queries, keys, statistics = _specs(block, lanes, heads // key.shape[1])
    return pl.pallas_call(
        partial(_query_gradient_kernel, causal=causal, scale=tokens[1] ** -0.5),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(heads, work.count),
            in_specs=[*codes_specs, queries, keys, keys, queries, statistics, statistics],
            out_specs=queries,
            scratch_shapes=[pltpu.VMEM((block, lanes), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(query, key, tokens, products=3, causal=causal),
        interpret=interpret,
        name=kernel_name("query_gradient", causal),
    )(*work[:4], codes.queries_down, codes.keys_across, *arrays)


def _key_gradients(
    work: WorkList,
    codes: Codes,
    arrays: tuple[Array, ...],
    block: int,
    *,
    causal: bool,
    tokens: tuple[int, int],
    interpret: bool,
) -> tuple[Array, Array]:
    """A key block accumulates, over its query blocks and over the heads that share the key."""
    query, key, value = arrays[:3]
    lanes = query.shape[3]
    shared = query.shape[1] // key.shape[1]
    keys = _spec(block, lanes, lambda k, w, r, rows, outer, inner, _: (rows[w], k, outer[w], 0))
    queries = _spec(
        block, lanes, lambda k, w, r, rows, outer, inner, _: (rows[w], k * shared + r, inner[w], 0)
    )
    statistics = pl.BlockSpec(
        (None, None, 1, block),
        lambda k, w, r, rows, outer, inner, _: (rows[w], k * shared + r, 0, inner[w]),
    )
    across = pl.BlockSpec((None, 2, block), lambda k, w, r, rows, outer, inner, _: (rows[w], 0, inner[w]))
    down = pl.BlockSpec((None, block, 1), lambda k, w, r, rows, outer, inner, _: (rows[w], outer[w], 0))
    return pl.pallas_call(
        partial(_key_gradients_kernel, causal=causal, scale=tokens[1] ** -0.5, shared=shared),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(key.shape[1], work.count, shared),
            in_specs=[across, down, queries, keys, keys, queries, statistics, statistics],
            out_specs=[keys, keys],
            scratch_shapes=[pltpu.VMEM((block, lanes), jnp.float32) for _ in range(2)],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (key, value)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        cost_estimate=_cost(query, key, tokens, products=4, causal=causal),
        interpret=interpret,
        name=kernel_name("key_gradients", causal),
    )(*work[:4], codes.queries_across, codes.keys_down, *arrays)


def _forward_kernel(
    rows, outer, inner, edges, query_codes, key_codes, query, key, value, out, logsumexp, m, l, acc,
    *, causal, scale,
):  # fmt: skip
    at = pl.program_id(1)

    @pl.when(edges[at] & FIRST != 0)
    def _() -> None:
        m[...] = jnp.full_like(m, NEGATIVE)
        l[...] = jnp.zeros_like(l)
        acc[...] = jnp.zeros_like(acc)

    seen = _seen(query_codes, key_codes, outer[at], inner[at], causal)
    scores = jnp.where(seen, _dot(query[...], key[...], 1, 1) * scale, NEGATIVE)
    state = OnlineSoftmax(m[...], l[...], acc[...])
    m[...], l[...], acc[...] = update(state, scores, lambda p: _dot(p.astype(value.dtype), value[...], 1, 0))

    @pl.when(edges[at] & LAST != 0)
    def _() -> None:
        # The sums over keys before a query's first seen key were multiplied by alpha = 0.
        sees = m[...] > NEGATIVE
        divisor = jnp.where(sees, l[...], 1.0)
        out[...] = (jnp.where(sees[:, :1], acc[...], 0.0) / divisor[:, :1]).astype(out.dtype)
        logsumexp[...] = (m[...] + jnp.log(divisor)).T[:1]


def _query_gradient_kernel(
    rows, outer, inner, edges, query_codes, key_codes, query, key, value, gradient, logsumexp, delta, out, sum_,
    *, causal, scale,
):  # fmt: skip
    at = pl.program_id(1)

    @pl.when(edges[at] & FIRST != 0)
    def _() -> None:
        sum_[...] = jnp.zeros_like(sum_)

    seen = _seen(query_codes, key_codes, outer[at], inner[at], causal)
    scores = _dot(query[...], key[...], 1, 1) * scale
    weights = jnp.where(seen, jnp.exp(scores - _column(logsumexp)), 0.0)
    slope = weights * (_dot(gradient[...], value[...], 1, 1) - _column(delta)) * scale
    sum_[...] += _dot(slope.astype(key.dtype), key[...], 1, 0)

    @pl.when(edges[at] & LAST != 0)
    def _() -> None:
        out[...] = sum_[...].astype(out.dtype)


def _key_gradients_kernel(
    rows, outer, inner, edges, query_codes, key_codes, query, key, value, gradient, logsumexp, delta,
    key_out, value_out, key_sum, value_sum,
    *, causal, scale, shared,
):  # fmt: skip
    """Scores are transposed, [keys, queries]: what belongs to a query then lies along the lanes."""
    at, head = pl.program_id(1), pl.program_id(2)

    @pl.when((edges[at] & FIRST != 0) & (head == 0))
    def _() -> None:
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    own, common, keys = query_codes[:1], query_codes[1:], key_codes[...]
    seen = (own == keys) | (common == keys)
    if causal:
        seen &= _positions(inner[at], seen.shape, 1) >= _positions(outer[at], seen.shape, 0)
    scores = _dot(key[...], query[...], 1, 1) * scale
    weights = jnp.where(seen, jnp.exp(scores - logsumexp[...]), 0.0)
    slope = weights * (_dot(value[...], gradient[...], 1, 1) - delta[...]) * scale
    value_sum[...] += _dot(weights.astype(gradient.dtype), gradient[...], 1, 0)
    key_sum[...] += _dot(slope.astype(query.dtype), query[...], 1, 0)

    @pl.when((edges[at] & LAST != 0) & (head == shared - 1))
    def _() -> None:
        key_out[...] = key_sum[...].astype(key_out.dtype)
        value_out[...] = value_sum[...].astype(value_out.dtype)


def _seen(query_codes, key_codes, query_block, key_block, causal: bool) -> Bool[Array, "Q S"]:
    own, common, keys = query_codes[:, :1], query_codes[:, 1:], key_codes[...]
    seen = (own == keys) | (common == keys)
    if causal:
        seen &= _positions(query_block, seen.shape, 0) >= _positions(key_block, seen.shape, 1)
    return seen


def _positions(number: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Positions in the row of a block's tokens, along `axis` of the scores."""
    return number * shape[axis] + jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _dot(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    return jax.lax.dot_general(
        left, right, (((left_axis,), (right_axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _column(statistics) -> Array:
    """[1, Q] along lanes -> [Q, 1] along sublanes."""
    return jnp.broadcast_to(statistics[...], (LANES, statistics.shape[-1])).T[:, :1]


def _work_list(meetings: Bool[Array, "B O I"]) -> WorkList:
    """The pairs in order of (row, outer, inner).

    An outer block that meets none gets one pair all the same, because its result must be written.
    """
    _, outers, inners = meetings.shape
    lonely = ~meetings.any(-1, keepdims=True)
    meetings |= lonely & (jnp.arange(inners) == 0)
    found = jnp.nonzero(meetings.reshape(-1), size=meetings.size, fill_value=0)[0].astype(jnp.int32)
    group = found // inners
    count = meetings.sum(dtype=jnp.int32)
    entry = jnp.arange(meetings.size, dtype=jnp.int32)
    first = (entry == 0) | (group != jnp.roll(group, 1))
    last = (entry == count - 1) | (group != jnp.roll(group, -1))
    edges = FIRST * first.astype(jnp.int32) + LAST * last.astype(jnp.int32)
    return WorkList(group // outers, group % outers, found % inners, edges, count)


def _codes(segments: Array, branches: Array) -> Codes:
    own, shared, keys = token_codes(segments, branches)
    queries = jnp.stack([own, shared], -1)
    return Codes(queries, queries.swapaxes(1, 2), keys[:, :, None], keys[:, None])


def _specs(
    block: int, lanes: int, shared: int
) -> tuple[list[pl.BlockSpec], pl.BlockSpec, pl.BlockSpec, pl.BlockSpec]:
    """Block specs of codes (queries down, keys across), queries, keys and statistics; query blocks accumulate."""
    queries_down = pl.BlockSpec((None, block, 2), lambda n, w, rows, outer, inner, _: (rows[w], outer[w], 0))
    keys_across = pl.BlockSpec((None, 1, block), lambda n, w, rows, outer, inner, _: (rows[w], 0, inner[w]))
    queries = _spec(block, lanes, lambda n, w, rows, outer, inner, _: (rows[w], n, outer[w], 0))
    keys = _spec(block, lanes, lambda n, w, rows, outer, inner, _: (rows[w], n // shared, inner[w], 0))
    statistics = pl.BlockSpec(
        (None, None, 1, block), lambda n, w, rows, outer, inner, _: (rows[w], n, 0, outer[w])
    )
    return [queries_down, keys_across], queries, keys, statistics


def _spec(block: int, lanes: int, index) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, block, lanes), index)


def _block(length: int) -> int:
    return min(BLOCK, length + -length % LANES)


def _pad(x: Array, block: int) -> Array:
    """T to whole blocks, the head to whole lanes: zeros change no score."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % block), (0, -x.shape[3] % LANES)))


def _pad_ids(ids: Array, block: int) -> Array:
    return jnp.pad(ids, ((0, 0), (0, -ids.shape[1] % block)))


def _cost(
    query: Array, key: Array, tokens: tuple[int, int], *, products: int, causal: bool
) -> pl.CostEstimate:
    rows = query.shape[0] * query.shape[1]
    return pl.CostEstimate(
        **kernel_cost(query, key, rows=rows, tokens=tokens, products=products, causal=causal)
    )
