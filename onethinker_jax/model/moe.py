"""A layer of experts: a router sends each token to k of E feed-forward networks, whose outputs are mixed.

Tokens are sorted by expert and multiplied in groups (`jax.lax.ragged_dot`): no token is dropped, none is
padded to a capacity, and a token's result does not depend on its neighbours. On the mesh in context every
device holds a slice of every expert's feed-forward axis (`tensor`) and works on its own rows (`data`,
`fsdp`); one sum over `tensor` ends the layer. Routing and mixing run in float32, the k weights of a token
add up to 1. `qwen3_vl.py` has the legend of the axis letters; BT is the axis of all tokens, BTk that of the pairs
(token, expert).
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from onethinker_jax.model.config import MoEConfig
from onethinker_jax.model.int8_weights import Int8Weights
from onethinker_jax.model.layers import Linear, wide
from onethinker_jax.model.sharding import context_mesh


class ExpertKernel(nnx.Module):
    """One matrix an expert, kernel [E, in, ...]; normal initialisation as in `Linear`."""

    def __init__(self, shape: tuple[int, ...], *, rngs: nnx.Rngs, dtype: jnp.dtype, gain: float = 1.0):
        init = jax.nn.initializers.truncated_normal(gain * shape[1] ** -0.5)
        self.kernel = nnx.Param(init(rngs.params(), shape, dtype))


class Experts(nnx.Module):
    """sum_k w_k down_k(silu(gate_k x) * up_k x) over the k likeliest experts, w their renormalised softmax."""

    def __init__(
        self,
        width: int,
        config: MoEConfig,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
        gain: float,
    ):
        count, size = config.num_experts, config.intermediate_size
        self.router = Linear(width, count, bias=False, rngs=rngs, dtype=dtype)
        # gate and up lie side by side on an axis of their own, so that a slice of F is a slice of both
        self.gate_up = ExpertKernel((count, width, 2, size), rngs=rngs, dtype=dtype)
        self.down = ExpertKernel((count, size, width), rngs=rngs, dtype=dtype, gain=gain)
        self.chosen = config.experts_per_token

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Each data shard mixes its own rows; where the rows do not divide, every shard computes all of them."""
        kernels = (self.router.kernel[...], self.gate_up.kernel[...], self.down.kernel[...])
        mesh = context_mesh()
        if mesh is None or mesh.size == 1:
            return mix_experts(x, *kernels, chosen=self.chosen)
        shards = mesh.shape["data"] * mesh.shape["fsdp"]
        # Few rows, as in decoding one prompt, are worked on by every data shard alike.
        rows = PartitionSpec(("data", "fsdp") if x.shape[0] % shards == 0 else None)
        local = partial(mix_experts, chosen=self.chosen, sum_over="tensor")
        down: Any = PartitionSpec(None, "tensor", None)
        if isinstance(kernels[2], Int8Weights):  # its scale has no axis F
            down = replace(kernels[2], values=down, scale=PartitionSpec())
        specs = (rows, PartitionSpec(), PartitionSpec(None, None, None, "tensor"), down)
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows)(x, *kernels)


def mix_experts(
    x: Float[Array, "B T D"],
    router: Float[Array, "D E"],
    gate_up: Float[Array, "E D 2 F"] | Int8Weights,
    down: Float[Array, "E F D"] | Int8Weights,
    *,
    chosen: int,
    sum_over: str | None = None,
) -> Float[Array, "B T D"]:
    """Each token's mixture of its k = `chosen` experts.

    Inside a shard_map that splits F over mesh axis `sum_over`, the parts are summed over that axis.
    """
    flat = x.reshape(-1, x.shape[-1])
    weights, order, inverse, sizes = route(flat, router, chosen)
    tokens = _permute(jnp.repeat(flat, chosen, axis=0), order, inverse)  # expert by expert
    both = _grouped(tokens, jax.tree.map(lambda part: part.reshape(*part.shape[:2], -1), gate_up), sizes)
    size = both.shape[-1] // 2
    gate, up = both[:, :size], both[:, size:]
    out = _grouped(wide(jax.nn.silu, gate) * up, down, sizes, jnp.float32)
    out = _permute(out, inverse, order).reshape(len(flat), chosen, -1)
    mixed = jnp.einsum("nkd,nk->nd", out, weights)
    if sum_over is not None:
        mixed = jax.lax.psum(mixed, sum_over)
    return mixed.astype(x.dtype).reshape(x.shape)


def _grouped(
    x: Float[Array, "BTk in"], kernels: Array | Int8Weights, sizes: Int[Array, " E"], dtype: Any = None
) -> Float[Array, "BTk out"]:
    """Rows of x, sorted by expert, times their expert's kernel of [E, in, out]."""
    if not isinstance(kernels, Int8Weights):
        return jax.lax.ragged_dot(x, kernels, sizes, preferred_element_type=dtype)
    values, scale = kernels.values.astype(x.dtype), kernels.scale[:, 0]
    product = jax.lax.ragged_dot(x, values, sizes, preferred_element_type=dtype)
    expert = jnp.repeat(jnp.arange(len(scale)), sizes, total_repeat_length=len(x))
    return (product * scale[expert]).astype(product.dtype)


def route(
    flat: Float[Array, "BT D"], router: Float[Array, "D E"], chosen: int
) -> tuple[Float[Array, "BT k"], Int[Array, " BTk"], Int[Array, " BTk"], Int[Array, " E"]]:
    """Which k = `chosen` experts each token goes to, with which weights, and how the pairs are sorted by expert.

    Gives the weights of a token's experts (float32, of sum 1), the order that sorts the pairs (token, expert) by
    expert, the inverse of that order, and the number of pairs of each expert.
    """
    logits = jnp.matmul(flat, router, preferred_element_type=jnp.float32)
    weights, experts = jax.lax.top_k(jax.nn.softmax(logits), chosen)
    weights = weights / weights.sum(-1, keepdims=True)
    experts = experts.reshape(-1)
    order = jnp.argsort(experts)
    inverse = jnp.argsort(order)
    return weights, order, inverse, jnp.bincount(experts, length=router.shape[-1]).astype(jnp.int32)


@jax.custom_vjp
def _permute(x: Float[Array, "BTk D"], order: Int[Array, " BTk"], inverse: Int[Array, " BTk"]) -> Array:
    """Rows of x in `order`; its gradient gathers as well, where that of indexing would scatter."""
    return x[order]


def _permute_forward(x: Array, order: Array, inverse: Array) -> tuple[Array, Array]:
    return x[order], inverse


def _permute_backward(inverse: Array, gradient: Array) -> tuple[Array, None, None]:
    return gradient[inverse], None, None


_permute.defvjp(_permute_forward, _permute_backward)
