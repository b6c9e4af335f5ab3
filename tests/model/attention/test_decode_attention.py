"""Decode attention over a cache against plain attention over the same keys, whole and in chunks, float32 and int8."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.attention import decode_attention, decode_gpu, decode_tpu
from onethinker_jax.model.attention.attention import Backend
from onethinker_jax.model.attention.decode_attention import Visible
from onethinker_jax.model.attention.kv_cache import KeyValues, KVCache, to_cache
from onethinker_jax.model.sharding import make_mesh

LAYERS, ROWS, SLOTS, HEADS, KV_HEADS, SIZE = 2, 2, 3, 4, 2, 8
PREFIX, SUFFIX = 24, 16
LENGTHS = np.array([9, 20])
OWN = np.array([[0, 3, 15], [7, 1, 0]])  # tokens that each slot has in the ring


def softmax_attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """query [N, H], keys and values [T, K, H], in float64."""
    out = np.zeros(query.shape)
    for head in range(HEADS):
        key_head = head // (HEADS // KV_HEADS)
        weights = np.exp(keys[:, key_head] @ query[head] / np.sqrt(SIZE))
        out[head] = weights @ values[:, key_head] / weights.sum()
    return out


@pytest.mark.parametrize("column", [0, 5, 15])
@pytest.mark.parametrize(
    ("backend", "chunk", "dtype"),
    [
        ("xla", 256, "float32"),
        ("xla", 8, "float32"),
        ("xla", 8, "int8"),
        ("flash_gpu_interpreted", 256, "float32"),
        ("flash_gpu_interpreted", 8, "int8"),
        ("flash_tpu_interpreted", 256, "float32"),
        ("flash_tpu_interpreted", 8, "int8"),
    ],
)
def test_equals_attention_over_all_keys(
    monkeypatch, backend: Backend, chunk: int, dtype: str, column: int
) -> None:
    """The ring is written round: a slot's newest entry lies before `column`, its oldest behind the ring's end."""
    monkeypatch.setattr(decode_attention, "CHUNK", chunk)
    monkeypatch.setattr(decode_tpu, "FEWEST", chunk)
    monkeypatch.setattr(decode_tpu, "BLOCK_BYTES", 0)
    rng = np.random.default_rng(column)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    prefix = normal(2, LAYERS, ROWS, PREFIX, KV_HEADS, SIZE)
    suffix = normal(2, LAYERS, ROWS, SLOTS, SUFFIX, KV_HEADS, SIZE)
    query, new = normal(ROWS, SLOTS, HEADS, SIZE), normal(2, ROWS, SLOTS, KV_HEADS, SIZE)
    nothing: Any = jnp.zeros(ROWS)

    def stored(pair: np.ndarray) -> KeyValues:
        return to_cache(jnp.asarray(pair[0]), jnp.asarray(pair[1]), dtype)

    cache = KVCache(stored(prefix), stored(suffix), nothing, nothing, nothing)
    visible = Visible(jnp.array(LENGTHS), jnp.array(OWN), jnp.int32(column))
    for layer in range(LAYERS):
        run = jax.jit(partial(decode_attention.decode_attention, backend=backend))
        got = run(query, *new, cache, jnp.int32(layer), visible)
        for row, slot in np.ndindex(ROWS, SLOTS):
            own = [(column - 1 - age) % SUFFIX for age in range(OWN[row, slot])]
            keys, values = (
                np.concatenate(
                    [prefix[i, layer, row, : LENGTHS[row]], suffix[i, layer, row, slot][own], [one]]
                )
                for i, one in enumerate(new[:, row, slot])
            )
            expected = softmax_attention(query[row, slot].astype(np.float64), keys, values)
            np.testing.assert_allclose(got[row, slot], expected, atol=2e-6 if dtype == "float32" else 0.03)


@pytest.mark.parametrize("backend", ["flash_gpu_interpreted", "flash_tpu_interpreted"])
@pytest.mark.parametrize(
    ("slots", "columns", "dtype", "programs"),
    [
        (3, 48, "float32", 512),  # of the ring three blocks of 16, each of its own program
        (3, 40, "float32", 512),  # the last block is short
        (2, 64, "int8", 24),
        (24, 32, "float32", 512),  # more queries than a block holds
    ],
)
def test_the_kernel_equals_xla(
    monkeypatch, slots: int, columns: int, dtype: str, programs: int, backend: Backend
) -> None:
    """Parts m, l and acc of both softmaxes, where something is seen; elsewhere m is NEGATIVE."""
    monkeypatch.setattr(decode_gpu, "COLUMNS", 16 if dtype == "int8" else 32)
    monkeypatch.setattr(decode_gpu, "QUERIES", 16)
    monkeypatch.setattr(decode_gpu, "PROGRAMS", programs)
    monkeypatch.setattr(decode_tpu, "FEWEST", 8)
    monkeypatch.setattr(decode_tpu, "BLOCK_BYTES", 16 * KV_HEADS * SIZE * (1 if dtype == "int8" else 4))
    rng = np.random.default_rng(columns)

    def part(*axes: int) -> KeyValues:
        pair = rng.normal(size=(2, LAYERS, *axes, columns, KV_HEADS, SIZE))
        return to_cache(jnp.asarray(pair[0], jnp.float32), jnp.asarray(pair[1], jnp.float32), dtype)

    query = jnp.asarray(rng.normal(size=(ROWS, slots, KV_HEADS, 2, SIZE)), jnp.float32)
    nothing: Any = jnp.zeros(ROWS)
    cache = KVCache(part(ROWS), part(ROWS, slots), nothing, nothing, nothing)
    own = rng.integers(0, columns + 1, (ROWS, slots))
    own[0, 0], own[1, 1] = 0, columns
    seen = np.broadcast_to(np.array([0, 1])[:, None], own.shape), own
    by_kernel = jax.jit(partial(decode_attention._by_kernel, backend=backend))
    by_xla = jax.jit(decode_attention._by_xla)
    for column in (0, 1, 17, 31):
        visible = Visible(jnp.array([0, columns - 3]), jnp.asarray(own), jnp.int32(column))
        kernel = by_kernel(query, cache, jnp.int32(1), visible)
        xla = by_xla(query, cache.prefix, cache.suffix, jnp.int32(1), visible)
        for ours, theirs, sees in zip(kernel, xla, [numbers > 0 for numbers in seen], strict=True):
            assert sees.any() and not sees.all()
            assert (np.asarray(ours.m)[~sees] <= -1e29).all()
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(
                    np.asarray(one)[sees], np.asarray(other)[sees], atol=2e-5, rtol=2e-5
                )


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
@pytest.mark.parametrize("backend", ["flash_gpu_interpreted", "flash_tpu_interpreted"])
def test_the_kernel_on_a_mesh(backend: Backend) -> None:
    """Rows over `fsdp`, heads over `tensor`; every device works on its own."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    rows = 4
    prefix, suffix = (
        to_cache(normal(*shape), normal(*shape), "float32")
        for shape in ((LAYERS, rows, 16, KV_HEADS, SIZE), (LAYERS, rows, SLOTS, 16, KV_HEADS, SIZE))
    )
    nothing: Any = jnp.zeros(rows)
    cache = KVCache(prefix, suffix, nothing, nothing, nothing)
    query, key, value = (normal(rows, SLOTS, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    own = jnp.asarray(rng.integers(0, 16, (rows, SLOTS)))
    visible = Visible(jnp.array([1, 5, 16, 9]), own, jnp.int32(3))
    arguments: Any = (query, key, value, cache, jnp.int32(1), visible)
    attend = decode_attention.decode_attention
    plain = attend(*arguments, backend="xla")
    with jax.set_mesh(make_mesh(1, 4, 2)):
        sharded = jax.jit(partial(attend, backend=backend))(*arguments)
    np.testing.assert_allclose(sharded, plain, atol=2e-6)


def test_arrays_beyond_what_the_kernel_reaches() -> None:
    """Pallas takes 32 bits for the offsets of up to 2^32 bytes, one of them for the sign."""

    def stack(columns: int, dtype: Any) -> KeyValues:
        return KeyValues(*(jax.ShapeDtypeStruct((1, columns), dtype) for _ in range(2)))  # pyright: ignore

    assert decode_gpu.addressable(stack(2**31 - 1, jnp.bfloat16))
    assert decode_gpu.addressable(stack(2**33, jnp.int8))
    assert not decode_gpu.addressable(stack(2**31, jnp.int8))


def test_int8_is_within_half_a_step() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 8)).astype(np.float32)
    x[0, 0, 0] = 0
    cache = to_cache(jnp.asarray(x), jnp.asarray(x), "int8")
    assert cache.key.dtype == cache.value.dtype == jnp.int8
    assert cache.value_scale is not None
    back = np.moveaxis(np.asarray(cache.value * cache.value_scale[..., None]), 1, 2)
    step = np.abs(x).max(-1, keepdims=True) / 127
    assert (np.abs(back - x) <= 0.501 * step + 1e-12).all()
    np.testing.assert_array_equal(cache.key, np.swapaxes(cache.value, -1, -2))
