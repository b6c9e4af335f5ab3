"""Segment-aware attention, for text (causal) and for vision (one segment a frame), by platform.

Softmax runs in float32, and no [T, T] matrix is ever made: on TPUs and GPUs a Pallas flash kernel (`flash.py`),
elsewhere XLA in chunks of queries (`xla.py`). The platform is that of the mesh in context
(`jax.set_mesh`), so that a program can be compiled for a TPU on a machine without one; without a mesh it is
JAX's default back end.

Departure from Hugging Face: beside its segment every token has a *branch*. Branch 0 is a prefix which all
branches of its segment see; a token of branch b > 0 sees branch 0 and its own branch only. This lets the G
samples of one prompt share the prompt's tokens in one row, in training as in decoding. `qwen3_vl.py` has the legend of
the axis letters.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention import xla as attention_xla
from onethinker_jax.model.attention.flash import flash_attention
from onethinker_jax.model.sharding import BATCH_AXES, ShardingError, context_mesh

Backend = Literal["flash_tpu", "flash_gpu", "xla", "flash_tpu_interpreted", "flash_gpu_interpreted"]


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    branch_ids: Int[Array, "B T"] | None = None,
    *,
    causal: bool,
    backend: Backend | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H)) v over the keys that share the query's segment (and branch).

    Query heads are grouped over key heads (GQA): head n reads key head n // (N / K). With `causal` a key
    must not lie after its query in the row. Segment 0 is padding, whose result has no meaning.
    `backend` None takes the platform's. Raises ShardingError when the mesh in context does not divide the heads.
    """
    backend = platform_backend() if backend is None else backend
    if branch_ids is None:
        branch_ids = jnp.zeros_like(segment_ids)
    if backend == "xla":
        return attention_xla.attention(query, key, value, segment_ids, branch_ids, causal=causal)
    kernels = "tpu" if backend.startswith("flash_tpu") else "gpu"
    flash = partial(flash_attention, kernels, causal, backend.endswith("interpreted"))
    mesh = context_mesh()
    if mesh is not None:
        check_heads(query.shape[2], key.shape[2], mesh.shape["tensor"])
        heads, ids = PartitionSpec(BATCH_AXES, None, "tensor"), PartitionSpec(BATCH_AXES)
        flash = jax.shard_map(
            flash, mesh=mesh, in_specs=(heads, heads, heads, ids, ids), out_specs=heads, check_vma=False
        )
    return flash(query, key, value, segment_ids, branch_ids)


def platform_backend() -> Backend:
    """The back end of the platform that is being compiled for."""
    mesh = context_mesh()
    device = None if mesh is None else mesh.abstract_device
    platform = jax.default_backend() if device is None else device.platform
    if platform == "tpu":
        return "flash_tpu"
    return "flash_gpu" if platform in ("gpu", "cuda") and _is_ampere_or_later() else "xla"


def _is_ampere_or_later() -> bool:
    """Older NVIDIA chips, which Triton does not compile for, and AMD's (`gfx90a`) are served by XLA."""
    # Without a GPU here the program is compiled for one elsewhere, which is taken to be Ampere or later.
    capability = getattr(jax.devices()[0], "compute_capability", "8.0")
    return capability.replace(".", "").isdigit() and float(capability) >= 8.0


def check_heads(heads: int, kv_heads: int, shards: int) -> None:
    """Raises ShardingError naming the heads that `shards` devices along mesh axis 'tensor' do not divide."""
    for name, count in (("query heads", heads), ("key/value heads", kv_heads)):
        if count % shards:
            raise ShardingError(f"{count} {name} are not a multiple of mesh axis 'tensor' of size {shards}")
