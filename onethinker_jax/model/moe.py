"""A layer of experts: a router sends each token to k of E feed-forward networks, whose outputs are mixed.

Tokens are sorted by expert and multiplied in groups (`jax.lax.ragged_dot`): no token is dropped, none is
padded to a capacity, and a token's result does not depend on its neighbours. On the mesh in context every
device holds a slice of every expert's feed-forward axis (`tensor`) and works on its own rows (`data`,
`fsdp`); one sum over `tensor` ends the layer. Routing and mixing run in float32, the k weights of a token
add up to 1. For the few tokens of a decode step TPUs read the experts in place (`experts_tpu.py`). `qwen3_vl.py` has
the legend of the axis letters; BT is the axis of all tokens, BTk that of the pairs (token, expert).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.attention import platform_backend
from onethinker_jax.model.config import MoEConfig
from onethinker_jax.model.experts_tpu import MOST_NUMBERS, MOST_TOKENS, LayerOfStack, mix_few
from onethinker_jax.model.int8_weights import Int8Weights
from onethinker_jax.model.layers import Linear, wide
from onethinker_jax.model.sharding import context_mesh, data_shards


class ExpertKernel(nnx.Module):
    """One matrix an expert, or several, kernel [E, ..., in, out]; normal initialisation as in `Linear`."""

    def __init__(self, shape: tuple[int, ...], *, rngs: nnx.Rngs, dtype: jnp.dtype, gain: float = 1.0):
        init = jax.nn.initializers.truncated_normal(gain * shape[-2] ** -0.5)
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
        # gate and up on an axis of their own: a slice of F is a slice of both
        self.gate_up = ExpertKernel((count, 2, width, size), rngs=rngs, dtype=dtype)
        self.down = ExpertKernel((count, size, width), rngs=rngs, dtype=dtype, gain=gain)
        self.chosen = config.experts_per_token

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Each data shard mixes its own rows; where the rows do not divide, every shard computes all of them."""
        kernels = (self.router.kernel[...], self.gate_up.kernel[...], self.down.kernel[...])
        mesh = context_mesh()
        in_stack = isinstance(kernels[1], LayerOfStack)
        interpret = platform_backend().endswith("interpreted")
        mix: Any = partial(mix_in_stack, interpret=interpret) if in_stack else mix_experts
        if mesh is None or mesh.size == 1:
            return mix(x, *kernels, chosen=self.chosen)
        # Few rows, as in decoding one prompt, are worked on by every data shard alike.
        rows = PartitionSpec(("data", "fsdp") if x.shape[0] % data_shards(mesh) == 0 else None)
        local = partial(mix, chosen=self.chosen, sum_over="tensor")
        specs = (rows, PartitionSpec(), _split(kernels[1], -1), _split(kernels[2], -2))
        mixed = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=not in_stack)
        return mixed(x, *kernels)


def _split(kernel: Any, axis: int) -> Any:
    """Over `tensor` along `axis`, which is F; a scale that has size 1 there lies whole."""

    def spec(part: Array) -> PartitionSpec:
        names: list[str | None] = [None] * part.ndim
        if part.ndim and part.shape[axis] > 1:
            names[axis] = "tensor"
        return PartitionSpec(*names)

    return jax.tree.map(spec, kernel)


def mix_experts(
    x: Float[Array, "B T D"],
    router: Float[Array, "D E"],
    gate_up: Float[Array, "E 2 D F"] | Int8Weights,
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
    both = _grouped(tokens, jax.tree.map(_side_by_side, gate_up), sizes)
    size = both.shape[-1] // 2
    gate, up = both[:, :size], both[:, size:]
    out = _grouped(wide(jax.nn.silu, gate) * up, down, sizes, jnp.float32)
    out = _permute(out, inverse, order).reshape(len(flat), chosen, -1)
    mixed = jnp.einsum("nkd,nk->nd", out, weights)
    return _whole(mixed, x, sum_over)


def mix_in_stack(
    x: Float[Array, "B T D"],
    router: Float[Array, "D E"],
    gate_up: LayerOfStack,
    down: LayerOfStack,
    *,
    chosen: int,
    sum_over: str | None = None,
    interpret: bool,
) -> Float[Array, "B T D"]:
    """As `mix_experts`, of a few tokens with a layer of the stacks [L, E, 2, D, F] and [L, E, F, D]."""
    flat = x.reshape(-1, x.shape[-1])
    weights, experts = choose(flat, router, chosen)
    choices = jax.nn.one_hot(experts, router.shape[-1], dtype=jnp.float32)
    every = jnp.einsum("nke,nk->ne", choices, weights, precision="highest")
    mixed = mix_few(flat, every, choices.any(1), gate_up, down, most=chosen, interpret=interpret)
    return _whole(mixed, x, sum_over)


def _whole(
    mixed: Float[Array, "BT D"], x: Float[Array, "B T D"], sum_over: str | None
) -> Float[Array, "B T D"]:
    """What the devices of the axis `sum_over` have each summed over their part of F, in the shape and dtype of `x`."""
    if sum_over is not None:
        mixed = jax.lax.psum(mixed, sum_over)
    return mixed.astype(x.dtype).reshape(x.shape)


def split_stacks(layers: nnx.State, x: Float[Array, "R g D"]) -> tuple[nnx.State | None, nnx.State]:
    """The stacks of experts that the tokens `x` read in place, and the other parameters.

    None in place of the stacks where the layers have no experts, where the program is not compiled for a TPU, and where
    the tokens are too many for the kernel: then experts are read layer by layer.
    """
    mesh = context_mesh()
    shards = 1 if mesh is None else data_shards(mesh)
    tokens = x.shape[1] * (x.shape[0] // shards if x.shape[0] % shards == 0 else x.shape[0])
    few = tokens <= MOST_TOKENS and tokens * x.shape[2] <= MOST_NUMBERS
    if "experts" not in layers or not few or not platform_backend().startswith("flash_tpu"):
        return None, layers
    stacks, others = nnx.split_state(
        layers, lambda path, _: path[0] == "experts" and path[1] != "router", ...
    )
    return stacks, others


def join_stacks(stacks: nnx.State | None, layer: nnx.State, number: Int[Array, ""]) -> nnx.State:
    """The parameters of layer `number`, its experts left in the stacks."""
    if stacks is None:
        return layer
    experts = nnx.map_state(lambda _, variable: variable.replace(LayerOfStack(variable[...], number)), stacks)
    return nnx.merge_state(layer, experts)


def _side_by_side(part: Float[Array, "E 2 D F"]) -> Float[Array, "E D 2F"]:
    """Gate and up as one matrix an expert."""
    return jnp.moveaxis(part, 1, 2).reshape(part.shape[0], part.shape[2], -1)


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


def choose(
    flat: Float[Array, "BT D"], router: Float[Array, "D E"], chosen: int
) -> tuple[Float[Array, "BT k"], Int[Array, "BT k"]]:
    """The k = `chosen` experts that each token goes to, and their weights, float32 of sum 1."""
    logits = jnp.matmul(flat, router, preferred_element_type=jnp.float32)
    weights, experts = jax.lax.top_k(jax.nn.softmax(logits), chosen)
    return weights / weights.sum(-1, keepdims=True), experts


def route(
    flat: Float[Array, "BT D"], router: Float[Array, "D E"], chosen: int
) -> tuple[Float[Array, "BT k"], Int[Array, " BTk"], Int[Array, " BTk"], Int[Array, " E"]]:
    """Which k = `chosen` experts each token goes to, with which weights, and how the pairs are sorted by expert.

    Gives the weights of `choose`, the order that sorts the pairs (token, expert) by expert, the inverse of that order,
    and the number of pairs of each expert.
    """
    weights, experts = choose(flat, router, chosen)
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
