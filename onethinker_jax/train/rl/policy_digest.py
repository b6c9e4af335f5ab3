"""What tells a policy's parameters from any others, whatever mesh they lie on.

Of every parameter's bits two sums are made on the device, in which each element is mixed with its place. Sums of
integers do not depend on their order, so that the same parameters have the same digest on every layout.
"""

import hashlib
import json

import jax
import jax.numpy as jnp
from flax import nnx

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def policy_digest(params: nnx.State) -> str:
    """The digest of the parameters' names, shapes, dtypes and bits, as hexadecimal digits."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    sums = jax.device_get(_sums([leaf for _, leaf in leaves]))
    rows = [
        [jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype), of_leaf.tolist()]
        for (path, leaf), of_leaf in zip(leaves, sums, strict=True)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    """uint32 [2] of each leaf."""
    return [_sums_of(leaf) for leaf in leaves]


def _sums_of(leaf: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros(leaf.shape, jnp.uint32), 1
    for axis in reversed(range(leaf.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        place += along * jnp.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    mixed = bits ^ (place * jnp.uint32(0x9E3779B1))  # the finaliser of MurmurHash3, over bits and place
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    mixed ^= mixed >> 16
    return jnp.stack([jnp.sum(mixed, dtype=jnp.uint32), jnp.sum(mixed * (place | 1), dtype=jnp.uint32)])
