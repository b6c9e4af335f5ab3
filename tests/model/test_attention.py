"""Attention in chunks, in one piece and with a cache against a plain numpy reference, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model import attention as module
from onethinker_jax.model.attention import attention, decode_attention

CASES = {
    "one example": ([1] * 24, None),
    "padding at both ends": ([0] * 3 + [1] * 15 + [0] * 6, None),
    "packed": ([1] * 7 + [2] * 12 + [3] * 1 + [0] * 4, None),
    "branches": (
        [1] * 16 + [2] * 6 + [0] * 2,
        [0] * 5 + [1] * 4 + [2] * 4 + [3] * 3 + [0] * 2 + [1] * 2 + [2] * 2 + [0] * 2,
    ),
}
HEADS = {"4 queries on 2 keys": (4, 2), "one key": (3, 1), "as many": (2, 2)}


def reference(query, key, value, segments, branches, causal):
    """One query at a time, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    segments, branches = np.asarray(segments), np.asarray(branches)
    out = np.zeros(query.shape)
    groups = query.shape[2] // key.shape[2]
    for row, at, head in np.ndindex(query.shape[:3]):
        sees = segments[row] == segments[row, at]
        sees &= (branches[row] == 0) | (branches[row] == branches[row, at])
        if causal:
            sees &= np.arange(len(sees)) <= at
        scores = key[row, sees, head // groups] @ query[row, at, head] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max())
        out[row, at, head] = weights / weights.sum() @ value[row, sees, head // groups]
    return out


def arrays(heads: tuple[int, int]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(rng.normal(size=(2, 24, count, 8)), jnp.float32)
        for count in (heads[0], heads[1], heads[1])
    ]


def masks(case: str) -> tuple[jax.Array, jax.Array]:
    """Row 0 as in the case, row 1 turned by five places."""
    segments, branches = CASES[case]
    branches = [0] * len(segments) if branches is None else branches
    return jnp.array([segments, np.roll(segments, 5)]), jnp.array([branches, np.roll(branches, 5)])


@pytest.fixture(params=[512, 8, 10], ids=["one piece", "chunks of 8", "chunks of 10, the last one short"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", request.param)
    return request.param


either = pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])


@either
@pytest.mark.parametrize("heads", HEADS)
def test_equals_the_reference(chunk, heads, causal):
    query, key, value = arrays(HEADS[heads])
    run = jax.jit(partial(attention, causal=causal))
    for case in CASES:
        segments, branches = masks(case)
        expected = reference(query, key, value, segments, branches, causal)
        np.testing.assert_allclose(
            run(query, key, value, segments, branches), expected, atol=2e-6, err_msg=case
        )
    loops = str(jax.make_jaxpr(partial(attention, causal=causal))(query, key, value, segments))
    assert ("scan" in loops) == (chunk < 24)


@either
def test_gradients_equal_those_of_plain_attention(chunk, causal):
    """The hand-written backward pass against JAX's own through the [T, T] form."""
    inputs = arrays((4, 2))
    direction = np.random.default_rng(1).normal(size=inputs[0].shape).astype(np.float32)

    def plain(query, key, value, segments, branches):
        key, value = (jnp.repeat(x, 2, axis=2) for x in (key, value))
        scores = jnp.einsum("bqnh,bknh->bnqk", query, key) * 8**-0.5
        sees = segments[:, :, None] == segments[:, None]
        sees &= (branches[:, None] == 0) | (branches[:, :, None] == branches[:, None])
        if causal:
            sees &= np.tri(24, dtype=bool)
        weights = jax.nn.softmax(jnp.where(sees[:, None], scores, -jnp.inf))
        return (jnp.einsum("bnqk,bknh->bqnh", weights, value) * direction).sum()

    def ours(query, key, value, segments, branches):
        return (attention(query, key, value, segments, branches, causal=causal) * direction).sum()

    plain_gradients, our_gradients = (jax.jit(jax.grad(loss, argnums=(0, 1, 2))) for loss in (plain, ours))
    for case in CASES:
        wanted, got = plain_gradients(*inputs, *masks(case)), our_gradients(*inputs, *masks(case))
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=5e-6, err_msg=case)


def test_all_padding_is_finite_with_finite_gradients(chunk):
    nothing = jnp.zeros((2, 24), jnp.int32)

    def total(query, key, value):
        return attention(query, key, value, nothing, causal=True).sum()

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run(*arrays((4, 2)))))


def test_what_is_not_seen_has_no_gradient():
    """Bit for bit: another example in the row, a later token, a sister branch."""
    query, key, value = arrays((4, 2))
    segments, branches = masks("branches")

    def one_query(key, value):
        return attention(query, key, value, segments, branches, causal=True)[0, 10].sum()

    for gradient in jax.jit(jax.grad(one_query, argnums=(0, 1)))(key, value):
        touched = np.abs(gradient[0]).sum((1, 2)) > 0
        assert np.flatnonzero(touched).tolist() == [0, 1, 2, 3, 4, 9, 10]
        assert not np.asarray(gradient[1]).any()


def test_bfloat16_keeps_softmax_in_float32():
    query, key, value = (x.astype(jnp.bfloat16) for x in arrays((4, 2)))
    segments, branches = masks("one example")
    got = attention(query, key, value, segments, branches, causal=True)
    assert got.dtype == jnp.bfloat16
    expected = reference(query, key, value, segments, branches, True)
    assert np.abs(np.asarray(got, np.float64) - expected).max() < 2e-2


@pytest.mark.parametrize("step", [0, 3, 5])
def test_decode_attention_equals_the_reference(step):
    """Prompts of 6 and 9 tokens in a cache of 10, three samples each, ``step`` tokens generated of 5."""
    rng = np.random.default_rng(2)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    rows, samples, room, suffix, lengths = 2, 3, 10, 5, [6, 9]
    prefix_key, prefix_value = normal(2, rows, room, 2, 8)
    suffix_key, suffix_value = normal(2, rows, samples, suffix, 2, 8)
    new_key, new_value = normal(2, rows, samples, 2, 8)
    query = normal(rows, samples, 4, 8)
    mask = jnp.array([[int(at < length) for at in range(room)] for length in lengths])
    got = decode_attention(
        query, prefix_key, prefix_value, suffix_key, suffix_value, new_key, new_value, mask, jnp.int32(step)
    )
    for row, column in np.ndindex(rows, samples):

        def joined(prefix, own, new, at=(row, column)):
            parts = (prefix[at[0], : lengths[at[0]]], own[at][:step], new[at][None])
            return np.concatenate(parts)[None]

        keys, values = joined(prefix_key, suffix_key, new_key), joined(prefix_value, suffix_value, new_value)
        count = keys.shape[1]
        ones, zeros = np.ones((1, count), int), np.zeros((1, count), int)
        one = np.broadcast_to(np.asarray(query[row, column], np.float64), (1, count, 4, 8))
        expected = reference(one, keys, values, ones, zeros, True)[0, -1]
        np.testing.assert_allclose(got[row, column], expected, atol=2e-6)
