"""The KV cache of decoding: a prompt's keys and values once, and each of its samples' own beside them.

Each of the R rows is a prompt slot; it has g sample slots, one for each sample of its prompt that is decoded now. Heads
come before columns and keys are transposed, so that every product with the cache is a dense batched one of row-major
matrices (on a CPU two to three times faster than with columns first). The samples' own entries lie in a ring of U
columns that all sample slots write together: each step writes one column, by one in-place update, although samples
differ in length. The entries of a sample of n tokens are the newest n columns of its slot. `qwen3_vl.py` has the legend
of the axis letters.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from onethinker_jax.model.sharding import BATCH_AXES, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KeyValues:
    """Keys and values of every layer; the axes * are [R] or [B] for prompts, [R, g] for samples.

    Here T counts columns. An int8 key or value is multiplied by its scale; each token and head has one scale for its
    key and one for its value.
    """

    key: Array  # [L, *, K, H, T]
    value: Array  # [L, *, K, T, H]
    key_scale: Array | None = None  # float32 [L, *, K, T]
    value_scale: Array | None = None  # float32 [L, *, K, T]

    @property
    def capacity(self) -> int:
        """T, columns."""
        return self.key.shape[-1]

    def put(
        self, new: "KeyValues", start: Int[Array, ""], layer: Int[Array, ""] | None = None
    ) -> "KeyValues":
        """These with `new`, which has fewer columns, written over them from column `start` on.

        The update is in place where the compiler can. With `layer`, `new` holds that layer alone.
        """

        def update(old: Array | None, part: Array | None, axis: int) -> Any:
            if old is None or part is None:
                return None
            starts = [jnp.int32(0)] * old.ndim
            starts[0], starts[axis] = jnp.int32(0) if layer is None else layer, start
            return jax.lax.dynamic_update_slice(old, part, starts)

        return KeyValues(
            update(self.key, new.key, -1),
            update(self.value, new.value, -2),
            update(self.key_scale, new.key_scale, -1),
            update(self.value_scale, new.value_scale, -1),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """What the samples in R prompt slots of g sample slots are decoded from."""

    prefix: KeyValues  # [L, R, K, S, H], the prompts'
    suffix: KeyValues  # [L, R, g, K, U, H], the samples' own, a ring of U columns
    length: Array  # int32 [R], of the prompts
    next_position: Array  # int32 [R], M-RoPE position of the first new token
    last_hidden: Array  # [R, D], hidden state of the prompt's last token: the first new token's


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prefilled:
    """B prompts, computed or being computed, that wait for prompt slots; fields as in `KVCache`."""

    prefix: KeyValues  # [L, B, K, S', H], S' <= S; unquantised where it is computed chunk by chunk
    length: Array  # int32 [B]
    next_position: Array  # int32 [B]
    last_hidden: Array  # [B, D]


def to_cache(key: Float[Array, "L *R T K H"], value: Float[Array, "L *R T K H"], dtype: str) -> KeyValues:
    """Keys and values as a cache of `dtype` holds them; with int8, quantised symmetrically to [-127, 127]."""
    key, value = (jnp.moveaxis(part, -2, -3) for part in (key, value))
    return _converted(KeyValues(key.swapaxes(-1, -2), value), dtype)


def _converted(part: KeyValues, dtype: str) -> KeyValues:
    """Unquantised keys and values in a cache's dtype."""
    if dtype != "int8":
        return KeyValues(part.key.astype(dtype), part.value.astype(dtype))
    (key, key_scale), (value, value_scale) = _quantise(part.key.swapaxes(-1, -2)), _quantise(part.value)
    return KeyValues(key.swapaxes(-1, -2), value, key_scale, value_scale)


def _quantise(x: Float[Array, "... H"]) -> tuple[Int[Array, "... H"], Float[Array, "..."]]:
    """int8 in [-127, 127], symmetric: the largest number of a token and head is 127 times its scale."""
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(x).max(-1), 1e-12) / 127
    return jnp.round(x / scale[..., None]).astype(jnp.int8), scale


def zeros(shape: tuple[int, ...], dtype: str) -> KeyValues:
    """Keys and values [L, *, K, T, H] of zeros."""
    value = jnp.zeros(shape, dtype)
    scale = jnp.zeros(shape[:-1], jnp.float32) if dtype == "int8" else None
    return KeyValues(value.swapaxes(-1, -2), value, scale, scale)


def empty_cache(
    prefix: tuple[int, ...], suffix: tuple[int, ...], *, width: int, kv_dtype: str, compute_dtype: Any
) -> KVCache:
    """A cache of zeros.

    `prefix` is (L, R, K, S, H) and `suffix` (L, R, g, K, U, H), each in `kv_dtype`; `width` is D, of the hidden states
    in `compute_dtype`.
    """
    numbers = jnp.zeros((prefix[1],), jnp.int32)
    return shard_cache(
        KVCache(
            prefix=zeros(prefix, kv_dtype),
            suffix=zeros(suffix, kv_dtype),
            length=numbers,
            next_position=numbers,
            last_hidden=jnp.zeros((prefix[1], width), compute_dtype),
        )
    )


def shard_cache(cache: KVCache) -> KVCache:
    """The cache sharded over the mesh in context: rows over `data` and `fsdp`, heads over `tensor`."""
    return KVCache(
        _shard(cache.prefix, "tensor"),
        _shard(cache.suffix, None, "tensor"),
        *(constrain(x, BATCH_AXES) for x in (cache.length, cache.next_position, cache.last_hidden)),
    )


def shard_prompts(prompts: Prefilled) -> Prefilled:
    """Prompts sharded over the mesh in context as a cache is."""
    numbers = (prompts.length, prompts.next_position, prompts.last_hidden)
    return Prefilled(_shard(prompts.prefix, "tensor"), *(constrain(x, BATCH_AXES) for x in numbers))


def _shard(part: KeyValues, *axes: str | None) -> KeyValues:
    return jax.tree.map(lambda x: constrain(x, None, BATCH_AXES, *axes), part)


def insert(cache: KVCache, prompts: Prefilled, rows: Int[Array, " B"]) -> KVCache:
    """`cache` with each prompt in its row of `rows`, in the cache's dtype; a prompt whose row is R stays out."""
    old, new = cache.prefix, prompts.prefix
    if new.key.dtype != old.key.dtype:
        new = _converted(new, old.key.dtype.name)
    whole, tokens = slice(None), slice(new.capacity)

    def put(into: Array | None, part: Array | None, *index: Any) -> Any:
        return None if into is None or part is None else into.at[index].set(part, mode="drop")

    return shard_cache(
        KVCache(
            KeyValues(
                put(old.key, new.key, whole, rows, whole, whole, tokens),
                put(old.value, new.value, whole, rows, whole, tokens),
                put(old.key_scale, new.key_scale, whole, rows, whole, tokens),
                put(old.value_scale, new.value_scale, whole, rows, whole, tokens),
            ),
            cache.suffix,
            put(cache.length, prompts.length, rows),
            put(cache.next_position, prompts.next_position, rows),
            put(cache.last_hidden, prompts.last_hidden, rows),
        )
    )


def take_rows(cache: KVCache, rows: Int[Array, " r"]) -> KVCache:
    """A cache of some of the rows, in the given order."""
    prefix, suffix = jax.tree.map(lambda x: x[:, rows], (cache.prefix, cache.suffix))
    return shard_cache(
        KVCache(prefix, suffix, cache.length[rows], cache.next_position[rows], cache.last_hidden[rows])
    )
