"""The door of the flash kernels for TPUs (`flash_tpu.py`) and GPUs (`flash_gpu.py`): one function with a gradient.

Written after FlashAttention (arXiv 2205.14135, 2307.08691): the forward pass keeps each query's logarithm of the
sum of exponentials. With it the backward pass computes the scores a second time, on a TPU in one kernel for all
gradients, on a GPU in one for those of queries and in one for those of keys and values. `qwen3_vl.py` has the legend
of the axis letters.
"""

from functools import partial
from types import ModuleType
from typing import Literal

import jax
from jaxtyping import Array, Float, Int

Kernels = Literal["tpu", "gpu"]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def flash_attention(
    kernels: Kernels,
    causal: bool,
    interpret: bool,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    branches: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """As `attention.attention`, by the kernels of one platform; `interpret` runs them on any other.

    A query that sees nothing (padding) gets zeros.
    """
    return _forward(kernels, causal, interpret, query, key, value, segments, branches)[0]


def _forward(
    kernels: Kernels, causal: bool, interpret: bool, *arrays: Array
) -> tuple[Array, tuple[Array, ...]]:
    return module_of(kernels).forward(*arrays, causal=causal, interpret=interpret)


def _backward(
    kernels: Kernels, causal: bool, interpret: bool, saved: tuple[Array, ...], gradient: Array
) -> tuple[Array | None, ...]:
    gradients = module_of(kernels).backward(saved, gradient, causal=causal, interpret=interpret)
    return *gradients, None, None


flash_attention.defvjp(_forward, _backward)


def module_of(kernels: Kernels) -> ModuleType:
    """The platform's kernels, imported when first used: Pallas takes half a second."""
    if kernels == "tpu":
        from onethinker_jax.model.attention import flash_tpu as module
    else:
        from onethinker_jax.model.attention import flash_gpu as module
    return module
