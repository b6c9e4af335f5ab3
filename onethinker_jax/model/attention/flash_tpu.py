"""The flash kernels of `flash.py` for TPUs, in Pallas: only over blocks that can meet.

Departure from FlashAttention: the grid does not run over all pairs of query and key blocks but over a *work list*
of those that can meet, made on the device from the ids, whose length is a dynamic bound of the grid. A row of
many short segments (the frames of a video) or of branches (the samples of a prompt) thus costs what its own blocks
cost, and no step is spent on skipping the others.

Layout inside: query [B, N, T, H], key and value [B, K, T, H]; the head size is padded to whole lanes (128) and
T to whole blocks. Scores, softmax and sums are float32. `qwen3_vl.py` has the legend of the axis letters; O and I are
outer and inner blocks, W entries of a work list.
"""

import math
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
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, name_saved, update

LANES = 128
BLOCK = 512  # queries, and keys, of one step
FIRST, LAST, ROW_FIRST, ROW_LAST = 1, 2, 4, 8  # bits of `WorkList.edges`
QUERY_BYTES = 2**25
"""Of a chip's vector memory (64 MiB and more from v5 on), for the gradient of a row's queries: 65,536 of them."""
OTHER_BYTES = 2**24
"""For the blocks that the kernel reads and writes."""


class WorkList(NamedTuple):
    """Pairs of blocks that can meet, those of one accumulator behind one another; all but `count` are int32 [W]."""

    rows: Array
    outer: Array  # the block that accumulates: of queries, or in the backward pass of keys
    inner: Array
    edges: Array  # FIRST and LAST of an accumulator, ROW_FIRST and ROW_LAST of a row
    count: Array  # int32 [], how many of the W entries are in use


class Codes(NamedTuple):
    """`flash_blocks.token_codes` as the kernels read them."""

    queries_down: Array  # int32 [B, T, 2], own and shared, along sublanes
    queries_across: Array  # int32 [B, 2, T], the same along lanes
    keys_down: Array  # int32 [B, T, 1]
    keys_across: Array  # int32 [B, 1, T]


PARTS: tuple[Part, ...] = ("forward", "gradients")


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
    heads, blocks, chunk = query.shape[1], query.shape[2] // block, most_queries(block) // block
    settings: dict[str, Any] = {"tokens": (length, size), "causal": causal, "interpret": interpret}
    parts = []
    for first in range(0, blocks, chunk):
        work = _work_list(meetings[:, first : first + chunk].swapaxes(1, 2), first)
        queries = block, first, min(chunk, blocks - first)
        parts.append(_gradients(work, codes, arrays, queries, **settings))
    dqs, dks, dvs = zip(*parts, strict=True)
    dq = jnp.concatenate(dqs, 2).astype(query.dtype)
    dk, dv = (
        jnp.stack(runs)
        .reshape(-1, *key.shape[:2], heads // key.shape[1], *key.shape[2:])
        .sum((0, 3))
        .astype(key.dtype)
        for runs in (dks, dvs)
    )
    return tuple(x[:, :, :length, :size].swapaxes(1, 2) for x in (dq, dk, dv))  # pyright: ignore[reportReturnType]


def most_queries(block: int) -> int:
    """The queries whose gradient a kernel holds, of heads of `LANES` numbers: whole blocks of them."""
    return max(1, QUERY_BYTES // (4 * LANES * block)) * block


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
        cost_estimate=_cost(query, key, (length, size), part="forward", causal=causal),
        interpret=interpret,
        name=kernel_name("forward", causal),
    )(*work[:4], codes.queries_down, codes.keys_across, query, key, value)
    return out[:, :, :length, :size], logsumexp[:, :, 0, :length]


def _gradients(
    work: WorkList,
    codes: Codes,
    arrays: tuple[Array, ...],
    queries: tuple[int, int, int],
    *,
    causal: bool,
    tokens: tuple[int, int],
    interpret: bool,
) -> tuple[Array, Array, Array]:
    """The gradient of `queries` (tokens of a block, the first block, how many), and theirs of keys and values.

    All are float32. Keys and values have one of each query head: heads that share a key run on cores of their own.
    """
    query, key = arrays[:2]
    rows, heads, _, lanes = query.shape
    shared = heads // key.shape[1]
    block, first, count = queries
    inner = _spec(block, lanes, lambda n, w, rows, outer, inner, _: (rows[w], n, inner[w], 0))
    keys = _spec(block, lanes, lambda n, w, rows, outer, inner, _: (rows[w], n // shared, outer[w], 0))
    of_keys = _spec(block, lanes, lambda n, w, rows, outer, inner, _: (rows[w], n, outer[w], 0))
    statistics = pl.BlockSpec(
        (None, None, 1, block), lambda n, w, rows, outer, inner, _: (rows[w], n, 0, inner[w])
    )
    across = pl.BlockSpec((None, 2, block), lambda n, w, rows, outer, inner, _: (rows[w], 0, inner[w]))
    down = pl.BlockSpec((None, block, 1), lambda n, w, rows, outer, inner, _: (rows[w], outer[w], 0))
    held = (count * block, lanes)
    return pl.pallas_call(
        partial(_gradients_kernel, causal=causal, scale=tokens[1] ** -0.5, first=first),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(heads, work.count),
            in_specs=[across, down, inner, keys, keys, inner, statistics, statistics],
            out_specs=[pl.BlockSpec(memory_space=pl.ANY), of_keys, of_keys],
            scratch_shapes=[
                pltpu.VMEM(shape, jnp.float32) for shape in (held, (block, lanes), (block, lanes))
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((rows, heads, *held), jnp.float32),
            *(jax.ShapeDtypeStruct((rows, heads, *key.shape[2:]), jnp.float32) for _ in range(2)),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=4 * math.prod(held) + OTHER_BYTES,
        ),
        cost_estimate=_cost(
            query, key, tokens, share=held[0] / query.shape[2], part="gradients", causal=causal
        ),
        interpret=interpret,
        name=kernel_name("gradients", causal),
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


def _gradients_kernel(
    rows, outer, inner, edges, query_codes, key_codes, query, key, value, gradient, logsumexp, delta,
    query_out, key_out, value_out, query_sum, key_sum, value_sum,
    *, causal, scale, first,
):  # fmt: skip
    """Scores are transposed, [keys, queries]: what belongs to a query then lies along the lanes."""
    head, at = pl.program_id(0), pl.program_id(1)

    @pl.when(edges[at] & ROW_FIRST != 0)
    def _() -> None:
        query_sum[...] = jnp.zeros_like(query_sum)

    @pl.when(edges[at] & FIRST != 0)
    def _() -> None:
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    own, common, keys = query_codes[:1], query_codes[1:], key_codes[...]
    seen = (own == keys) | (common == keys)
    if causal:
        seen &= _positions(inner[at], seen.shape, 1) >= _positions(outer[at], seen.shape, 0)
    scores = _dot(key[...], query[...], 1, 1) * scale
    weights = jnp.where(seen, jnp.exp(scores - logsumexp[...]), 0.0)
    slope = (weights * (_dot(value[...], gradient[...], 1, 1) - delta[...]) * scale).astype(query.dtype)
    value_sum[...] += _dot(weights.astype(gradient.dtype), gradient[...], 1, 0)
    key_sum[...] += _dot(slope, query[...], 1, 0)
    block = query.shape[0]
    mine = pl.ds(pl.multiple_of((inner[at] - first) * block, block), block)
    query_sum[mine, :] += _dot(slope, key[...], 0, 0)

    @pl.when(edges[at] & LAST != 0)
    def _() -> None:
        key_out[...] = key_sum[...]
        value_out[...] = value_sum[...]

    @pl.when(edges[at] & ROW_LAST != 0)
    def _() -> None:
        pltpu.sync_copy(query_sum, query_out.at[rows[at], head])


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


def _work_list(meetings: Bool[Array, "B O I"], first: int = 0) -> WorkList:
    """The pairs in order of (row, outer, inner); inner blocks count from `first`.

    An outer block that meets none gets one pair all the same, because its result must be written.
    """
    _, outers, inners = meetings.shape
    lonely = ~meetings.any(-1, keepdims=True)
    meetings |= lonely & (jnp.arange(inners) == 0)
    found = jnp.nonzero(meetings.reshape(-1), size=meetings.size, fill_value=0)[0].astype(jnp.int32)
    group = found // inners
    rows = group // outers
    count = meetings.sum(dtype=jnp.int32)
    entry = jnp.arange(meetings.size, dtype=jnp.int32)

    def edges_of(numbers: Array, begin_bit: int, end_bit: int) -> Array:
        begins = (entry == 0) | (numbers != jnp.roll(numbers, 1))
        ends = (entry == count - 1) | (numbers != jnp.roll(numbers, -1))
        return begin_bit * begins.astype(jnp.int32) + end_bit * ends.astype(jnp.int32)

    edges = edges_of(group, FIRST, LAST) + edges_of(rows, ROW_FIRST, ROW_LAST)
    return WorkList(rows, group % outers, first + found % inners, edges, count)


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
    query: Array, key: Array, tokens: tuple[int, int], *, part: Part, causal: bool, share: float = 1.0
) -> pl.CostEstimate:
    """Of a kernel that computes this `share` of all pairs."""
    rows = query.shape[0] * query.shape[1]
    cost = kernel_cost(part, query, key, rows=rows, tokens=tokens, causal=causal)
    return pl.CostEstimate(**{name: int(share * count) for name, count in cost.items()})
