"""Decode attention over one part of a KV cache for TPUs, in Pallas.

XLA keeps scores, weights and sums in HBM between the products of each chunk: for a prompt's keys, which all samples of
it share, nearly as many bytes as the keys and values themselves. It also reads a chunk for every sample as soon as one
sample needs it. Here a grid step meets one block of a row's columns, all its key heads, with the sums in the chip's own
memory, and only blocks that the row sees are read. The layer and what the rows see are known before the steps run
(scalar prefetch), so that blocks are fetched ahead. `qwen3_vl.py` has the legend of the axis letters; here B are rows
of a part of the cache (R prompts, or R x g samples) and Q the queries of a row and key head.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.flash_blocks import ONE_LAYER, decode_cost
from onethinker_jax.model.attention.kv_cache import KeyValues
from onethinker_jax.model.attention.online_softmax import NEGATIVE, OnlineSoftmax, update

LANES = 128
SUBLANES = 16  # queries of a block: whole tiles of 16-bit numbers
BLOCK_BYTES = 1 << 18  # of a block of keys: long enough to read for a grid step's own cost to hide behind
FEWEST = 256  # columns of a block, unless the cache has fewer


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
    columns = part.capacity
    step = _step(part)
    total = columns // step
    cost = decode_cost(query, part)
    query = jnp.pad(query, ((0, 0), (0, 0), (0, -queries % SUBLANES), (0, 0)))
    scales = [] if part.key_scale is None else [part.key_scale, part.value_scale]
    most = jnp.maximum(_visible_blocks(first, count, step, total).max(), 1)

    def block_of(row: Any, number: Any, first: Any, count: Any) -> Any:
        """Steps beyond a row's last block stay there, and fetch nothing."""
        last = jnp.maximum(_visible_blocks(first[row], count[row], step, total) - 1, 0)
        return (first[row] // step + jnp.minimum(number, last)) % total

    def of_cache(sides: tuple[int, ...], axis: int) -> pl.BlockSpec:
        def index(row: Any, number: Any, layer: Any, first: Any, count: Any) -> tuple[Any, ...]:
            at = [0] * len(sides)
            at[axis] = block_of(row, number, first, count)
            return (layer[0], row, 0, *at)

        return pl.BlockSpec((None, None, heads, *sides), index)

    def of_queries(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, heads, query.shape[2], width), lambda row, *_: (row, 0, 0, 0))

    def result(width: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*query.shape[:3], width), jnp.float32)

    state = pl.pallas_call(
        partial(_kernel, step=step, total=total),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(rows, most),
            in_specs=[
                of_queries(size),
                of_cache((size, step), 1),
                of_cache((step, size), 0),
                *(of_cache((step,), 0) for _ in scales),
            ],
            out_specs=[of_queries(LANES), of_queries(LANES), of_queries(size)],
        ),
        out_shape=[result(LANES), result(LANES), result(size)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=cost,
        interpret=interpret,
        name=f"decode_softmax{ONE_LAYER}",  # `train/cost/program_cost.py` knows it by its end
    )(layer[None], first, count, query, part.key, part.value, *scales)
    m, l, acc = (x[:, :, :queries] for x in state)
    return OnlineSoftmax(m[..., :1], l[..., :1], acc)


def _step(part: KeyValues) -> int:
    """Columns of a block: about BLOCK_BYTES of keys, and a whole number of blocks."""
    heads, size, columns = part.key.shape[-3:]
    step = FEWEST
    if columns % step:
        return columns  # a short cache
    while columns % (2 * step) == 0 and 2 * step * heads * size * part.key.dtype.itemsize <= BLOCK_BYTES:
        step *= 2
    return step


def _visible_blocks(first: Any, count: Any, step: int, total: int) -> Any:
    """How many blocks hold the `count` columns from `first` on."""
    return jnp.minimum((first % step + count + step - 1) // step, total)


def _kernel(layer, first, count, query, key, value, *rest, step: int, total: int) -> None:
    *scales, m, l, acc = rest
    row, number = pl.program_id(0), pl.program_id(1)
    first, count = first[row], count[row]

    @pl.when(number == 0)
    def _() -> None:
        m[...] = jnp.full_like(m, NEGATIVE)
        l[...] = jnp.zeros_like(l)
        acc[...] = jnp.zeros_like(acc)

    @pl.when((count > 0) & (number < _visible_blocks(first, count, step, total)))
    def _() -> None:
        start = (first // step + number) % total * step
        offset = start + jax.lax.broadcasted_iota(jnp.int32, (1, step), 1) - first
        seen = jnp.where(offset < 0, offset + step * total, offset) < count
        for head in range(query.shape[0]):
            queries = query[head]
            scores = _dot(queries, key[head].astype(queries.dtype)) * queries.shape[-1] ** -0.5
            if scales:
                scores *= scales[0][head : head + 1]
            scores = jnp.where(seen, scores, NEGATIVE)

            def mix(p: Array, head: int = head, dtype: Any = queries.dtype) -> Array:
                p = p * scales[1][head : head + 1] if scales else p
                return _dot(p.astype(dtype), value[head].astype(dtype))

            m[head], l[head], acc[head] = update(OnlineSoftmax(m[head], l[head], acc[head]), scores, mix)


def _dot(left: Array, right: Array) -> Array:
    return jnp.dot(left, right, preferred_element_type=jnp.float32)
