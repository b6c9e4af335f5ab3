"""What the device does at most: products of bfloat16 matrices, and bytes of its memory."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.gpu.cases import Scale
from benchmarks.gpu.programs import median_seconds
from benchmarks.gpu.table import CEILINGS, Row, Work

PRODUCTS = 20  # in one program, so that starting it does not count


def ceilings(scale: Scale) -> Iterator[Row]:
    """A row each: matrix products, memory read and written, memory read."""
    yield _matmul(scale)
    yield from _memory(scale)


def _matmul(scale: Scale) -> Row:
    side = scale.matmul
    left, right = (
        jax.random.normal(jax.random.key(seed), (side, side), jnp.bfloat16) * side**-0.5 for seed in (0, 1)
    )

    @jax.jit
    def products(x: jax.Array, matrix: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, PRODUCTS, lambda _, x: x @ matrix, x)

    seconds = median_seconds(lambda: products(left, right), scale.repeats + 2)
    flops = 2.0 * side**3 * PRODUCTS
    return Row(CEILINGS, f"bfloat16 matrices of {side:,}", seconds=seconds, work=(Work(flops, flops),))


def _memory(scale: Scale) -> Iterator[Row]:
    size = scale.copied
    numbers = jnp.ones(size // 4, jnp.float32)
    copied = jax.jit(lambda x: x + 1)
    seconds = median_seconds(lambda: copied(numbers), scale.repeats + 2)
    yield _row("memory, read and written", seconds, 2 * size)
    added = jax.jit(lambda x: x.reshape(1024, -1).sum(-1))
    yield _row("memory, read", median_seconds(lambda: added(numbers), scale.repeats + 2), size)


def _row(case: str, seconds: float, moved: float) -> Row:
    return Row(CEILINGS, case, seconds=seconds, work=(Work(0.0, 0.0, moved),))
