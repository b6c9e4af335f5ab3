"""What both towers are made of: linear maps, norms, and the stacking of equal layers for a scan.

`qwen3_vl.py` has the legend of the axis letters; beside those a linear map has `in` numbers in and `out` numbers out.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model.attention.online_softmax import SAVED
from onethinker_jax.model.int8_weights import matmul


class LoRA(nnx.Module):
    """alpha / rank (x @ a) @ b beside a kernel [..., in, out], a [..., in, rank] and b [..., rank, out].

    As in PEFT, `a` begins uniform within 1 / sqrt(in) and `b` as zeros: nothing is added at first.
    """

    def __init__(self, kernel: tuple[int, ...], settings: LoRASettings, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        *layers, inputs, outputs = kernel
        bound = inputs**-0.5
        shape = (*layers, inputs, settings.rank)
        self.a = nnx.LoRAParam(jax.random.uniform(rngs.params(), shape, dtype, -bound, bound))
        self.b = nnx.LoRAParam(jnp.zeros((*layers, settings.rank, outputs), dtype))
        self.scale = settings.scale

    def __call__(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """What is added to the kernel's product."""
        return matmul(matmul(x, self.a[...]), self.b[...]) * self.scale


class Linear(nnx.Module):
    """x @ kernel + bias, kernel [in, out]; normal initialisation with the standard deviation gain / sqrt(in).

    `lora` adds to it where `lora.add_adapters` has set it.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs, dtype: jnp.dtype, gain: float = 1.0
    ):
        init = jax.nn.initializers.variance_scaling(gain**2, "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), dtype))
        self.bias = nnx.data(nnx.Param(jnp.zeros((outputs,), dtype)) if bias else None)
        self.lora: LoRA | None = nnx.data(None)

    def __call__(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """Maps the last axis; the others may be any."""
        y = matmul(x, self.kernel[...])
        if self.lora is not None:
            y = y + self.lora(x)
        return y if self.bias is None else y + self.bias[...]


class LayerNorm(nnx.Module):
    """scale (x - mean x) / sqrt(var x + 1e-6) + bias, in float32 (eps is fixed in Qwen3-VL)."""

    def __init__(self, size: int, *, dtype: jnp.dtype):
        self.scale = nnx.Param(jnp.ones((size,), dtype))
        self.bias = nnx.Param(jnp.zeros((size,), dtype))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises each vector along the last axis; the result has the dtype of `x`."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
        return (normal * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)).astype(
            x.dtype
        )


class RMSNorm(nnx.Module):
    """scale x / sqrt(mean(x^2) + eps); the quotient in float32, cast back before it is scaled (as in HF)."""

    def __init__(self, size: int, *, eps: float, dtype: jnp.dtype):
        self.scale = nnx.Param(jnp.ones((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises each vector along the last axis."""
        wide = x.astype(jnp.float32)
        normal = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return self.scale[...] * normal.astype(x.dtype)


def wide(function: Callable[[Array], Array], x: Array) -> Array:
    """An activation function computed in float32, rounded once to the dtype of x as PyTorch does it."""
    return function(x.astype(jnp.float32)).astype(x.dtype)


def stack_layers(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """`count` layers made with their own keys, their parameters stacked on a new first axis [L, ...]."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build(rngs: nnx.Rngs) -> nnx.Module:
        return make(rngs)

    return build(rngs)


Remat = Literal["none", "dots", "full"]


def recompute(body: Callable, remat: Remat) -> Callable:
    """A scan body which keeps, of each layer, what `remat` says for the backward pass; the rest is made anew there.

    `none` keeps everything, `dots` the results of matrix products and of attention, `full` the layer's input alone.
    """
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    dots = policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(SAVED)
    )
    return jax.checkpoint(body, policy=dots if remat == "dots" else None)
