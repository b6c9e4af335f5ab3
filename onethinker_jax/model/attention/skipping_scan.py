"""A scan over chunks that leaves out those with nothing to do."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Bool


def skipping_scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    nothing: Any,
    parts: Any,
    needed: Bool[Array, " parts"],
) -> tuple[Any, Any]:
    """`jax.lax.scan(body, carry, parts)`; a part that is not needed leaves `carry` as it is, its result `nothing`."""

    def maybe(carry: Any, one: tuple[Any, Array]) -> tuple[Any, Any]:
        part, needed = one
        return jax.lax.cond(needed, body, lambda carry, _: (carry, nothing), carry, part)

    return jax.lax.scan(maybe, carry, (parts, needed))
