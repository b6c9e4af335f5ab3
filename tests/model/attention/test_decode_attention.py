"""Decode attention over a cache against plain attention over the same keys, whole and in chunks, float32 and int8."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.attention import decode_attention
from onethinker_jax.model.attention.decode_attention import Visible
from onethinker_jax.model.attention.kv_cache import KeyValues, KVCache, to_cache

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
@pytest.mark.parametrize(("chunk", "dtype"), [(256, "float32"), (8, "float32"), (8, "int8")])
def test_equals_attention_over_all_keys(monkeypatch, chunk: int, dtype: str, column: int) -> None:
    """The ring is written round: a slot's newest entry lies before `column`, its oldest behind the ring's end."""
    monkeypatch.setattr(decode_attention, "CHUNK", chunk)
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
        run = jax.jit(decode_attention.decode_attention)
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
