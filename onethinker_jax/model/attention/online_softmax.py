"""The online softmax that every attention and the chunked output head share: scores come block by block.

With scores s_j and values v_j of the keys seen so far, a query keeps (FlashAttention, arXiv 2205.14135)

    m = max_j s_j        l = sum_j exp(s_j - m)        acc = sum_j exp(s_j - m) v_j

and a further block of scores s and values v updates these to

    m' = max(m, max s)   alpha = exp(m - m')           p = exp(s - m')
    l' = alpha l + sum p                               acc' = alpha acc + p v

In the end acc / l is the softmax's average of the values, and m + log l the logarithm of the sum of exponentials.
All of it is float32. The GPU kernels take exponentials and logarithms to base 2 instead. `qwen3_vl.py` has the
legend of the axis letters.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

NEGATIVE = -1e30
"""The score of a key that is not seen; finite, so that m - m' is never infinity minus infinity."""
SAVED = "attention"
"""The name under which `layers.recompute` finds what attention keeps for its backward pass."""


class OnlineSoftmax(NamedTuple):
    """m, l and acc of Q queries, over the keys seen so far.

    m and l are [*B, Q], or [*B, Q, 1], or, where a TPU keeps them along its lanes, [Q, lanes] of equal numbers.
    """

    m: Array
    l: Array
    acc: Float[Array, "*B Q H"]


def begin(queries: tuple[int, ...], size: int, *, keepdims: bool = True) -> OnlineSoftmax:
    """The softmax of queries [*B, Q] over no key; values have `size` numbers. m and l are [*B, Q, 1] by default."""
    shape = (*queries, 1) if keepdims else queries
    m, l = jnp.full(shape, NEGATIVE, jnp.float32), jnp.zeros(shape, jnp.float32)
    return OnlineSoftmax(m, l, jnp.zeros((*queries, size), jnp.float32))


def advance(
    m: Array, l: Array, scores: Float[Array, "*B Q S"], exp: Callable[[Array], Array] = jnp.exp
) -> tuple[Array, Array, Array, Float[Array, "*B Q S"]]:  # fmt: skip
    """m', l', alpha and p of the equations above; m', l' and alpha have the shape of `m`."""
    highest = jnp.maximum(m, scores.max(-1, keepdims=m.ndim == scores.ndim))
    p = exp(scores - column(highest, scores))
    alpha = exp(m - highest)
    return highest, l * alpha + p.sum(-1, keepdims=m.ndim == scores.ndim), alpha, p


def update(
    state: OnlineSoftmax,
    scores: Float[Array, "*B Q S"],
    mix: Callable[[Float[Array, "*B Q S"]], Float[Array, "*B Q H"]],
    exp: Callable[[Array], Array] = jnp.exp,
) -> OnlineSoftmax:
    """`state` after a further block of keys; `mix` multiplies p by the block's values, in float32."""
    m, l, alpha, p = advance(state.m, state.l, scores, exp)
    return OnlineSoftmax(m, l, state.acc * column(alpha, state.acc) + mix(p))


def merge(parts: Sequence[OnlineSoftmax]) -> OnlineSoftmax:
    """The softmax over the keys of all `parts`; no key may be in two parts.

    m' = max_i m_i, l' = sum_i exp(m_i - m') l_i, and acc' likewise.
    """
    m = reduce(jnp.maximum, (part.m for part in parts))
    alphas = [jnp.exp(part.m - m) for part in parts]
    l = sum(part.l * alpha for part, alpha in zip(parts, alphas, strict=True))
    acc = sum(part.acc * column(alpha, part.acc) for part, alpha in zip(parts, alphas, strict=True))
    return OnlineSoftmax(m, jnp.asarray(l), jnp.asarray(acc))


def column(numbers: Array, like: Array) -> Array:
    """`numbers`, one a query, with a last axis of 1, to be broadcast along the last axis of `like`."""
    return numbers[..., None] if numbers.ndim < like.ndim else numbers[..., :1]


def name_saved(out: Array, logsumexp: Array) -> tuple[Array, Array]:
    """The output, and the logarithm of each query's sum of exponentials, named `SAVED`.

    A layer that keeps them and is otherwise computed anew computes its queries, keys and values, and not its attention.
    """
    return checkpoint_name(out, SAVED), checkpoint_name(logsumexp, SAVED)
