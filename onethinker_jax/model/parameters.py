"""A tree of parameters as what is trained and what is frozen, apart and together again. No array is copied.

With LoRA the adapters are trained (`nnx.LoRAParam`) and the base is frozen; without adapters everything is trained.
"""

import jax
from flax import nnx


def split_adapters(params: nnx.State) -> tuple[nnx.State, nnx.State | None]:
    """The adapters and their base; without adapters all parameters and None."""
    adapters, base = nnx.split_state(params, nnx.LoRAParam, ...)
    return (adapters, base) if jax.tree.leaves(adapters) else (params, None)


def join_adapters(trained: nnx.State, base: nnx.State | None) -> nnx.State:
    """What `split_adapters` took apart."""
    return trained if base is None else nnx.merge_state(trained, base)
