"""The sampler's matrices in int8: which ones, how they are quantised, and products with them.

Symmetric and weight-only: a matrix is whole numbers in [-127, 127], rounded to nearest, times one float32 scale an
output channel. A product converts the numbers where it reads them, computes in the dtype of its other factor, and its
result is multiplied by the scales: of a matrix one byte a weight is read. Quantised are the projections of attention
and feed-forward, the experts, the output head, and the embedding table where it is the head; norms, biases, the router,
LoRA's adapters and the vision tower stay as they are. `sharding.decoding_layout` makes the copy.
"""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

MOST = 127  # the size of a quantised weight, at most

# Name of a parameter -> the axis that products sum over, counted from the last one.
_SUMMED = (
    (r"embed", -1),  # as the head, transposed
    (r"lm_head\.kernel", -2),
    (r"decoder\.layers\.[^.]+_proj\.kernel", -2),
    (r"decoder\.layers\.experts\.(gate_up|down)\.kernel", -2),
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8Weights:
    """A matrix, or a stack of them, that stands in a parameter in the place of an array: `values` times `scale`.

    It is indexed as an array is: `[...]` gives itself, anything else rows in `dtype`.
    """

    values: Array  # int8, of the parameter's shape
    scale: Array  # float32, the same with size 1 along the axis that products sum over
    dtype: str = field(metadata={"static": True})  # what the model computes in

    def __getitem__(self, index: Any) -> Any:
        if index is Ellipsis:
            return self
        return (self.values[index] * self.scale[index]).astype(self.dtype)

    @property
    def T(self) -> "Int8Weights":
        """Of one matrix, its transpose."""
        return Int8Weights(self.values.T, self.scale.T, self.dtype)


def matmul(x: Float[Array, "... in"], weights: Array | Int8Weights, dtype: Any = None) -> Array:
    """The product x @ weights with one matrix [in, out]; the result in `dtype`, by default that of x.

    The leading axes are one axis in the product: the gradient of `weights` then sums over a single axis. Over two, XLA
    copies its operand transposed on a CPU, and multiplies at six tenths of the speed.
    """
    if not isinstance(weights, Int8Weights):
        flat = jnp.matmul(x.reshape(-1, x.shape[-1]), weights, preferred_element_type=dtype)
        return flat.reshape(*x.shape[:-1], -1)
    product = jnp.matmul(x, weights.values.astype(x.dtype), preferred_element_type=dtype)
    return (product * weights.scale[0]).astype(product.dtype)


def summed_axis(name: str) -> int | None:
    """The axis of the parameter `name` (dotted path) that products sum over; None: it is not quantised."""
    return next((axis for pattern, axis in _SUMMED if re.fullmatch(pattern, name)), None)


def split_kernels(params: nnx.State) -> tuple[nnx.State, nnx.State]:
    """The parameters that are quantised, and the others. An embedding table beside a head of its own is not."""
    own_head = "lm_head" in params

    def chosen(path: tuple[Any, ...], _: Any) -> bool:
        name = ".".join(map(str, path))
        return summed_axis(name) is not None and not (own_head and name == "embed")

    kernels, others = nnx.split_state(params, chosen, ...)
    return kernels, others


def are_quantised(kernels: nnx.State) -> bool:
    """Whether the first part of `split_kernels` is in int8 already."""
    return any(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(kernels))


def quantised(kernels: nnx.State, dtype: str) -> nnx.State:
    """The first part of `split_kernels` in int8, for a model that computes in `dtype`."""

    def quantise(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        axis = summed_axis(".".join(map(str, path)))
        assert axis is not None
        return variable.replace(quantise_matrix(variable[...], axis, dtype))

    return nnx.map_state(quantise, kernels)


@partial(jax.jit, static_argnums=(1, 2))
def quantise_matrix(weights: Array, axis: int, dtype: str) -> Int8Weights:
    """The largest weight of an output channel is 127 times its scale; zeros keep a scale that is not 0."""
    weights = weights.astype(jnp.float32)
    most = jnp.abs(weights).max(axis, keepdims=True)
    scale = jnp.maximum(most, jnp.finfo(jnp.float32).tiny * MOST) / MOST
    return Int8Weights(jnp.round(weights / scale).astype(jnp.int8), scale, dtype)


def in_decoding_dtypes(params: nnx.State, dtype: str, weights_dtype: str | None) -> nnx.State:
    """What the sampler holds: `params` in `dtype`, their matrices in int8 where `weights_dtype` says so."""
    if weights_dtype is None:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    kernels, others = split_kernels(params)
    return nnx.merge_state(quantised(kernels, dtype), jax.tree.map(lambda leaf: leaf.astype(dtype), others))
