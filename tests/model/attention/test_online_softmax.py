"""Blocks of keys, in any order and number, give the softmax over all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.attention.online_softmax import (
    NEGATIVE,
    OnlineSoftmax,
    advance,
    begin,
    merge,
    update,
)

QUERIES, KEYS, SIZE = 5, 24, 8


@pytest.fixture
def arrays():
    """Scores [Q, S] far apart, the last query's first block unseen, and values [S, H]."""
    scores = 30 * jax.random.normal(jax.random.key(0), (QUERIES, KEYS))
    scores = scores.at[-1, :8].set(NEGATIVE)
    return scores, jax.random.normal(jax.random.key(1), (KEYS, SIZE))


def folded(scores, values, state, exp=jnp.exp):
    for start in range(0, scores.shape[-1], 8):
        block = values[start : start + 8]
        state = update(state, scores[:, start : start + 8], lambda p, block=block: p @ block, exp)
    return state


def lanes(queries):
    state = begin((queries,), SIZE)
    m, l = (jnp.broadcast_to(x, (queries, 4)) for x in (state.m, state.l))
    return OnlineSoftmax(m, l, state.acc)


@pytest.mark.parametrize("start", ["flat", "column", "lanes"])
def test_blocks_give_the_whole_softmax(arrays, start):
    scores, values = arrays
    states = {
        "flat": begin((QUERIES,), SIZE, keepdims=False),
        "column": begin((QUERIES,), SIZE),
        "lanes": lanes(QUERIES),
    }
    state = folded(scores, values, states[start])
    assert state.m.shape == state.l.shape == states[start].m.shape
    m, l = (np.asarray(x).reshape(QUERIES, -1) for x in (state.m, state.l))
    np.testing.assert_allclose(state.acc / l[:, :1], jax.nn.softmax(scores) @ values, rtol=2e-5, atol=1e-6)
    want = np.broadcast_to(jax.nn.logsumexp(scores, axis=-1, keepdims=True), m.shape)
    np.testing.assert_allclose(m + np.log(l), want, rtol=1e-6)


def test_exponentials_to_base_two(arrays):
    scores, values = arrays
    state = folded(scores / jnp.log(2), values, begin((QUERIES,), SIZE), jnp.exp2)
    np.testing.assert_allclose(
        state.acc / state.l, jax.nn.softmax(scores) @ values, rtol=1e-3, atol=1e-5
    )  # scores of 100 times 1.44 lose three digits more in their exponential


def test_merged_parts_give_the_whole_softmax(arrays):
    scores, values = arrays
    parts = [
        folded(scores[:, keys], values[keys], begin((QUERIES,), SIZE)) for keys in (slice(8), slice(8, None))
    ]
    whole = merge(parts)
    np.testing.assert_allclose(whole.acc / whole.l, jax.nn.softmax(scores) @ values, rtol=2e-5, atol=1e-6)


def test_a_query_that_saw_nothing_forgets_it_at_its_first_seen_key(arrays):
    """Where every score is NEGATIVE, p is 1; the next block's alpha is exactly 0."""
    m, l, _, p = advance(jnp.full(2, NEGATIVE), jnp.zeros(2), jnp.full((2, 3), NEGATIVE))
    assert (p == 1).all() and (l == 3).all() and (m == NEGATIVE).all()
    m, l, alpha, _ = advance(m, l, jnp.array([[0.5], [-7.0]]))
    assert (alpha == 0).all() and (l == 1).all() and m.tolist() == [0.5, -7.0]
