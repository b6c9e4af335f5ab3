"""LoRA on Qwen3-VL: small trained matrices beside frozen kernels, made, and merged into these again.

Adapters are parameters of a kind of their own (`nnx.LoRAParam`) in the modules whose kernels they add to. By that kind
`parameters.split_adapters` tells what is trained from its base; nothing else of the program asks for names.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from onethinker_jax.lora_settings import ATTENTION, LoRAError, LoRASettings
from onethinker_jax.model.layers import Linear, LoRA
from onethinker_jax.model.qwen3_vl import Qwen3VL


def adapted_maps(model: Qwen3VL, settings: LoRASettings) -> Iterator[tuple[str, Linear]]:
    """The linear maps that have adapters, by their dotted names in the tree of parameters.

    Raises LoRAError naming targets that the model has no such map for.
    """
    layers = model.decoder.layers
    missing = [target for target in settings.targets if not hasattr(layers, target)]
    if missing:
        raise LoRAError(
            f"model.lora.targets {' '.join(missing)}: this model's layers have experts in their place, which take no "
            f"adapters; name some of {' '.join(ATTENTION)}"
        )
    for target in settings.targets:
        yield f"decoder.layers.{target}", getattr(layers, target)
    if not settings.vision:
        return
    tower = model.visual
    mergers: dict[str, Any] = {"merger": tower.merger} | (
        {} if tower.deepstack_mergers is None else {"deepstack_mergers": tower.deepstack_mergers}
    )
    for target in ("qkv", "proj", "fc1", "fc2"):
        yield f"visual.blocks.{target}", getattr(tower.blocks, target)
    for name, merger in mergers.items():
        yield f"visual.{name}.fc1", merger.fc1
        yield f"visual.{name}.fc2", merger.fc2


def add_adapters(model: Qwen3VL, settings: LoRASettings, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
    """Gives the model fresh adapters of `dtype`, which leave what it computes as it is.

    Raises as `adapted_maps` does.
    """
    for _, linear in adapted_maps(model, settings):
        linear.lora = LoRA(linear.kernel.shape, settings, rngs=rngs, dtype=dtype)
    model.lora = settings


def merge_adapters(model: Qwen3VL) -> Qwen3VL:
    """A model without adapters that computes the same: W + alpha / rank A B, in float32, rounded to the dtype of W.

    What has no adapters it shares with the given one. A model without adapters is returned as it is.
    """
    if model.lora is None:
        return model
    merged: Qwen3VL = nnx.merge(*nnx.split(model))  # modules of its own around the same arrays
    for _, linear in adapted_maps(merged, model.lora):
        assert linear.lora is not None
        a, b = linear.lora.a[...], linear.lora.b[...]
        linear.kernel = nnx.Param(merged_kernel(linear.kernel[...], a, b, model.lora.scale))
        linear.lora = nnx.data(None)
    merged.lora = None
    return merged


@jax.jit
def merged_kernel(kernel: Array, a: Array, b: Array, scale: float) -> Array:
    """W + scale A B of a kernel [..., in, out] and its adapters [..., in, rank] and [..., rank, out]."""
    added = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return (kernel.astype(jnp.float32) + scale * added).astype(kernel.dtype)
