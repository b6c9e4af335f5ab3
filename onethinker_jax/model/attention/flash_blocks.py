"""What both flash kernels share: which tokens, and which blocks of tokens, see each other; kernel names and costs."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Int

from onethinker_jax.model.attention.kv_cache import KeyValues

Part = Literal["forward", "gradients", "query_gradient", "key_gradients"]
"""A kernel of attention. A TPU has one for all gradients, a GPU two: of queries, and of keys and values. `gradients`
and `key_gradients` accumulate over blocks of keys, the others over blocks of queries."""
PARTS: tuple[Part, ...] = get_args(Part)
PRODUCTS: dict[Part, int] = {"forward": 2, "gradients": 5, "query_gradient": 3, "key_gradients": 4}
"""Matrix products over all pairs that a kernel makes; the backward ones make the scores anew."""

BRANCHES = 1 << 12  # more than a segment has; segment * BRANCHES + branch must fit in int32


class Codes(NamedTuple):
    """Codes of tokens, int32 [B, T]: a query sees a key whose code in `keys` is the query's `own` or `shared`."""

    own: Int[Array, "B T"]
    shared: Int[Array, "B T"]
    keys: Int[Array, "B T"]


def token_codes(segments: Int[Array, "B T"], branches: Int[Array, "B T"]) -> Codes:
    """`own` is segment * BRANCHES + branch, `shared` that of branch 0; padding's codes match no others.

    `segments` count from 0 (padding), `branches` from 0 to BRANCHES - 1.
    """
    shared = segments * BRANCHES
    own = shared + branches
    real = segments > 0
    return Codes(jnp.where(real, own, -1), jnp.where(real, shared, -1), jnp.where(real, own, -2))


def block_meetings(
    segments: Int[Any, "B T"],
    branches: Int[Any, "B T"],
    *,
    query_block: int,
    key_block: int,
    causal: bool,
) -> Bool[Any, "B Q S"]:
    """Which of Q query blocks can see which of S key blocks, judged by the range of ids in each block.

    Some of these pairs may see nothing after all; none that sees something is missing. T must be a multiple of
    both block sizes. Of NumPy's arrays the result is NumPy's: the host counts by the rule of the kernels.
    """
    xp = segments.__array_namespace__()
    length = segments.shape[1]
    most = xp.iinfo(xp.int32).max

    def span(ids: Any, block: int) -> tuple[Any, Any]:
        ids, real = (x.reshape(len(x), -1, block) for x in (ids, segments > 0))
        return xp.where(real, ids, most).min(-1), xp.where(real, ids, -1).max(-1)

    def overlap(ids: Any) -> Any:
        (low, high), (key_low, key_high) = span(ids, query_block), span(ids, key_block)
        return (low[:, :, None] <= key_high[:, None]) & (key_low[:, None] <= high[:, :, None])

    prefix = (span(branches, key_block)[0] == 0)[:, None]
    meet = overlap(segments) & (overlap(branches) | prefix)
    if causal:
        last_query = (xp.arange(length // query_block) + 1) * query_block - 1
        first_key = xp.arange(length // key_block) * key_block
        meet &= last_query[:, None] >= first_key
    return meet


ONE_LAYER = "_of_one_layer"
"""The end of the name of a kernel that reads one layer of the stacks that are its arguments from the fifth on."""


def kernel_name(part: Part, causal: bool) -> str:
    """The name of the kernel `part`; `train/cost/program_cost.py` knows the kernels by these names."""
    return f"attention_{part}_{'causal' if causal else 'full'}"


def pairs_of_one_segment(tokens: int, length: int, causal: bool) -> int:
    """Pairs of one of `tokens` queries and a key, as if every row were one segment of `length` tokens."""
    return tokens * length // (2 if causal else 1)


def kernel_cost(
    part: Part, query: Array, key: Array, *, rows: int, tokens: tuple[int, int], causal: bool
) -> dict[str, int]:
    """The fields of a `pallas.CostEstimate`, as if every row were one segment.

    `rows` counts those of all heads; `tokens` are how many a row has and the size of their heads, before `query` and
    `key` were padded.
    """
    length, size = tokens
    pairs = pairs_of_one_segment(rows * length, length, causal)
    return {
        "flops": 2 * PRODUCTS[part] * pairs * size,
        "transcendentals": pairs,
        "bytes_accessed": (query.size + key.size) * 2 * query.dtype.itemsize,
    }


def decode_cost(query: Array, part: KeyValues) -> pl.CostEstimate:
    """Of a kernel by which queries [B, K, Q, H] meet one layer of `part`: every column seen by every query."""
    pairs = math.prod(query.shape[:3]) * part.capacity
    held = sum(x.size * x.dtype.itemsize // x.shape[0] for x in jax.tree.leaves(part))
    return pl.CostEstimate(flops=4 * pairs * query.shape[-1], transcendentals=pairs, bytes_accessed=held)
