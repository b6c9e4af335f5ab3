"""The experts of one layer of a stack and a few tokens, as in decoding, for TPUs, in Pallas.

A ragged product (`moe.py`) takes a layer's experts as arrays of their own: XLA copies them out of the stack of layers,
gate and up once more into another order of axes, and so moves 4.3 times the bytes that the products must read. Here a
grid step meets one expert, or a slice of its feed-forward axis, where it lies in the stack. It multiplies all tokens
with it, and adds what the router sends there to sums that stay in the chip's own memory: to a matrix unit a few tokens
are as long as one. Experts that no token chose are not read. `qwen3_vl.py` has the legend of the axis letters; here N
are tokens.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from onethinker_jax.model.attention.flash_blocks import ONE_LAYER
from onethinker_jax.model.int8_weights import Int8Weights
from onethinker_jax.model.layers import wide

MOST_TOKENS = 256  # more take longer to multiply with every expert than the experts take to read
MOST_NUMBERS = 1 << 19  # of tokens; they and their sums lie in the chip's own memory
SUBLANES = 16  # tokens come in whole tiles of 16-bit numbers
LANES = 128
BLOCK_BYTES = 4 << 20  # of a grid step's weights, twice of which lie in the chip's own memory


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerOfStack:
    """One layer of a stack of matrices, in a parameter in the place of the layer's own array."""

    stack: Array | Int8Weights
    layer: Array  # int32 []

    def __getitem__(self, index: Any) -> "LayerOfStack":
        assert index is Ellipsis
        return self


def mix_few(
    x: Float[Array, "N D"],
    weights: Float[Array, "N E"],
    chosen: Bool[Array, "N E"],
    gate_up: LayerOfStack,
    down: LayerOfStack,
    *,
    most: int,
    interpret: bool,
) -> Float[Array, "N D"]:
    """Float32 sums over experts: `weights`, where `chosen`, times down(silu(gate x) * up x).

    `gate_up` is a layer of [L, E, 2, D, F], `down` of [L, E, F, D]. A token has at most `most` experts.
    """
    tokens, width = x.shape
    count = weights.shape[1]
    kernels, scales = _as_read(gate_up, down)
    size = kernels[1].shape[2]
    part = _slice(size, width * kernels[1].dtype.itemsize)
    visits = min(count, tokens * most)
    hit = chosen.any(0)
    order = jnp.argsort(~hit)  # stable: the chosen experts first
    place = jnp.stack([gate_up.layer, hit.sum()]).astype(jnp.int32)
    rows = ((0, -tokens % SUBLANES), (0, 0))
    x, weights = jnp.pad(x, rows), jnp.pad(jnp.where(chosen, weights, 0.0), rows)

    def whole(*sides: int) -> pl.BlockSpec:
        return pl.BlockSpec(sides, lambda *_: (0, 0))

    of_experts = _blocks(size, part, width)[: len(kernels) + len(scales)]
    summed = pl.pallas_call(
        partial(_kernel, turned=_lies_turned(size)),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(visits, size // part),
            in_specs=[whole(*x.shape), whole(*weights.shape), *of_experts],
            out_specs=whole(*x.shape),
        ),
        out_shape=jax.ShapeDtypeStruct(x.shape, jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary")),
        cost_estimate=_cost(tokens, visits, kernels),
        interpret=interpret,
        name=kernel_name(most, visits),
    )(place, order.astype(jnp.int32), x, weights, *kernels, *scales)
    return summed[:tokens]


def kernel_name(most: int, visits: int) -> str:
    """`train/cost/program_cost.py` reads in it which share of the products a token's own experts have."""
    return f"experts_{most}_of_{visits}{ONE_LAYER}"


def _lies_turned(size: int) -> bool:
    """Whether a TPU lays [D, F] out with D innermost: where F = `size` would leave lanes empty."""
    return size % LANES > 0


def _as_read(gate_up: LayerOfStack, down: LayerOfStack) -> tuple[list[Array], list[Array]]:
    """The stacks [L, E, 2, D, F], or turned [L, E, 2, F, D], and [L, E, F, D]; of int8 their scales, too.

    The kernel wants axes in the order in which they lie, so that XLA copies nothing.
    """
    first, second, scales = gate_up.stack, down.stack, []
    if isinstance(first, Int8Weights):
        first, scales = first.values, [first.scale[:, :, :, 0]]
    if isinstance(second, Int8Weights):
        second, scales = second.values, [*scales, second.scale]
    return [first.swapaxes(-1, -2) if _lies_turned(first.shape[-1]) else first, second], scales


def _blocks(size: int, part: int, width: int) -> list[pl.BlockSpec]:
    """What a grid step meets of gate and up, of down, and of their scales: `part` of F = `size`."""

    def of_expert(*sides: int, axis: int | None) -> pl.BlockSpec:
        """Steps beyond the last chosen expert stay there, and fetch nothing."""

        def index(visit: Any, number: Any, place: Any, order: Any) -> tuple[Any, ...]:
            last = place[1] - 1
            at: list[Any] = [0] * len(sides)
            if axis is not None:
                at[axis] = jnp.where(visit > last, size // part - 1, number)
            return (place[0], order[jnp.minimum(visit, last)], *at)

        return pl.BlockSpec((None, None, *sides), index)

    gate_up = of_expert(2, part, width, axis=1) if _lies_turned(size) else of_expert(2, width, part, axis=2)
    scales = [of_expert(2, part, axis=1), of_expert(1, width, axis=None)]
    return [gate_up, of_expert(part, width, axis=0), *scales]


def _slice(size: int, row_bytes: int) -> int:
    """How much of the feed-forward axis a grid step takes: whole tiles, or all of it."""
    slices = [part for part in range(LANES, size, LANES) if size % part == 0]
    fitting = [part for part in (*slices, size) if 3 * part * row_bytes <= BLOCK_BYTES]
    return max(fitting, default=min(slices, default=size))


def _cost(tokens: int, visits: int, kernels: list[Array]) -> pl.CostEstimate:
    """Every expert that may be chosen, with all tokens."""
    numbers = sum(kernel.size // (kernel.shape[0] * kernel.shape[1]) for kernel in kernels)
    return pl.CostEstimate(
        flops=2 * tokens * visits * numbers,
        transcendentals=tokens * visits * kernels[1].shape[2],
        bytes_accessed=visits * numbers * kernels[0].dtype.itemsize,
    )


def _kernel(place, order, x, weights, gate_up, down, *rest, turned: bool) -> None:
    *scales, out = rest
    visit, number = pl.program_id(0), pl.program_id(1)

    @pl.when((visit == 0) & (number == 0))
    def _() -> None:
        out[...] = jnp.zeros_like(out)

    @pl.when(visit < place[1])
    def _() -> None:
        tokens = x[...]
        gate, up = (
            _product(
                *(tokens, gate_up[half], int(turned)),
                scales[0][half : half + 1] if scales else None,
                tokens.dtype,
            )
            for half in range(2)
        )
        hidden = wide(jax.nn.silu, gate) * up
        mixed = _product(hidden, down[...], 0, scales[1][...] if scales else None, jnp.float32)
        column = jax.lax.broadcasted_iota(jnp.int32, weights.shape, 1) == order[visit]
        weight = jnp.where(column, weights[...], 0.0).sum(1, keepdims=True)
        out[...] += jnp.where(weight > 0, weight * mixed, 0.0)


def _product(x: Array, kernel: Array, axis: int, scale: Array | None, dtype: Any) -> Array:
    """The product with `kernel`, summed over its `axis`, rounded to `dtype` before and after it is scaled."""
    dimensions = (((1,), (axis,)), ((), ()))
    product = jax.lax.dot_general(x, kernel.astype(x.dtype), dimensions, preferred_element_type=jnp.float32)
    product = product.astype(dtype)
    return product if scale is None else (product * scale).astype(dtype)
