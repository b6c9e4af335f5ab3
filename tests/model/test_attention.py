"""Every back end of attention and attention with a cache against a plain numpy reference, gradients included.

The TPU kernel runs in Pallas' interpreter, which computes its blocks with XLA on the CPU.  In float32 all back
ends agree with the float64 reference to 2e-6 (values) and 5e-6 (gradients).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model import attention_xla, flash_tpu
from onethinker_jax.model.attention import Backend, attention, check_heads, decode_attention, platform_backend
from onethinker_jax.model.sharding import ShardingError, make_mesh

CASES = {
    "one example": ([1] * 24, None),
    "padding at both ends": ([0] * 3 + [1] * 15 + [0] * 6, None),
    "packed": ([1] * 7 + [2] * 12 + [3] * 1 + [0] * 4, None),
    "branches": (
        [1] * 16 + [2] * 6 + [0] * 2,
        [0] * 5 + [1] * 4 + [2] * 4 + [3] * 3 + [0] * 2 + [1] * 2 + [2] * 2 + [0] * 2,
    ),
}
BOTH: tuple[Backend, Backend] = ("flash_tpu_interpreted", "xla")
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


BACKENDS: dict[str, tuple[Backend, int]] = {
    "xla in one piece": ("xla", 512),
    "xla in chunks of 8": ("xla", 8),
    "xla in chunks of 10, the last one short": ("xla", 10),
    "flash in one block": ("flash_tpu_interpreted", 512),
    "flash in blocks of 10, the last one short": ("flash_tpu_interpreted", 10),
}


@pytest.fixture(params=BACKENDS)
def attend(request, monkeypatch):
    """``attention`` on one back end, its chunks or blocks as large as the case says."""
    backend, size = BACKENDS[request.param]
    monkeypatch.setattr(attention_xla, "CHUNK", size)
    monkeypatch.setattr(flash_tpu, "BLOCK", size)
    return partial(attention, backend=backend)


either = pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])


@either
@pytest.mark.parametrize("heads", HEADS)
def test_equals_the_reference(attend, heads, causal):
    query, key, value = arrays(HEADS[heads])
    run = jax.jit(partial(attend, causal=causal))
    for case in CASES:
        segments, branches = masks(case)
        expected = reference(query, key, value, segments, branches, causal)
        got, real = run(query, key, value, segments, branches), np.asarray(segments) > 0
        np.testing.assert_allclose(got[real], expected[real], atol=2e-6, err_msg=case)


@either
def test_gradients_equal_those_of_plain_attention(attend, causal):
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
        real = (segments > 0)[..., None, None]
        return (jnp.einsum("bnqk,bknh->bqnh", weights, value) * direction * real).sum()

    def ours(query, key, value, segments, branches):
        real = (segments > 0)[..., None, None]
        return (attend(query, key, value, segments, branches, causal=causal) * direction * real).sum()

    plain_gradients, our_gradients = (jax.jit(jax.grad(loss, argnums=(0, 1, 2))) for loss in (plain, ours))
    for case in CASES:
        wanted, got = plain_gradients(*inputs, *masks(case)), our_gradients(*inputs, *masks(case))
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=5e-6, err_msg=case)


def test_all_padding_is_finite_with_finite_gradients(attend):
    nothing = jnp.zeros((2, 24), jnp.int32)

    def total(query, key, value):
        return attend(query, key, value, nothing, causal=True).sum()

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run(*arrays((4, 2)))))


def test_what_is_not_seen_has_no_gradient(attend):
    """Bit for bit: another example in the row, a later token, a sister branch."""
    query, key, value = arrays((4, 2))
    segments, branches = masks("branches")

    def one_query(key, value):
        return attend(query, key, value, segments, branches, causal=True)[0, 10].sum()

    for gradient in jax.jit(jax.grad(one_query, argnums=(0, 1)))(key, value):
        touched = np.abs(gradient[0]).sum((1, 2)) > 0
        assert np.flatnonzero(touched).tolist() == [0, 1, 2, 3, 4, 9, 10]
        assert not np.asarray(gradient[1]).any()


def test_bfloat16_keeps_softmax_in_float32(attend):
    query, key, value = (x.astype(jnp.bfloat16) for x in arrays((4, 2)))
    segments, branches = masks("one example")
    got = attend(query, key, value, segments, branches, causal=True)
    assert got.dtype == jnp.bfloat16
    expected = reference(query, key, value, segments, branches, True)
    assert np.abs(np.asarray(got, np.float64) - expected).max() < 2e-2


def test_flash_visits_only_blocks_that_can_meet(monkeypatch):
    """The work list holds every pair of blocks that has a visible pair of tokens, and few others."""
    size = 4
    for case in CASES:
        segments, branches = masks(case)
        for causal in (True, False):
            sees = (segments[:, :, None] == segments[:, None]) & (segments > 0)[:, None]
            sees &= (branches[:, None] == 0) | (branches[:, :, None] == branches[:, None])
            if causal:
                sees &= np.tri(24, dtype=bool)
            needed = np.asarray(sees).reshape(2, 6, size, 6, size).any((2, 4))
            meetings = flash_tpu._meetings(segments, branches, size, causal)
            assert not (needed & ~np.asarray(meetings)).any(), case
            assert np.asarray(meetings).sum() <= needed.sum() + 4, case
            work = flash_tpu._work_list(meetings)
            count = int(work.count)
            assert count <= meetings.sum() + 4  # rows of padding get one pair to be written at all
            listed = set(zip(*(np.asarray(part)[:count].tolist() for part in work[:3]), strict=True))
            assert len(listed) == count
            assert set(zip(*np.nonzero(needed), strict=True)) <= listed
            assert {pair[:2] for pair in listed} == set(np.ndindex(2, 6))


def test_flash_with_the_head_size_of_the_vision_tower():
    """72 is not a whole number of lanes."""
    rng = np.random.default_rng(3)
    query, key, value = (jnp.asarray(rng.normal(size=(1, 40, 2, 72)), jnp.float32) for _ in range(3))
    frames = jnp.array([[1] * 12 + [2] * 12 + [3] * 12 + [0] * 4])
    got, wanted = (attention(query, key, value, frames, causal=False, backend=b) for b in BOTH)
    np.testing.assert_allclose(got[:, :36], wanted[:, :36], atol=2e-6)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
def test_flash_on_a_mesh_equals_one_device():
    query, key, value = arrays((4, 2))
    segments, branches = masks("branches")

    def total(query, key, value, backend):
        return jnp.square(
            attention(query, key, value, segments, branches, causal=True, backend=backend)
        ).sum()

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)), static_argnums=3)
    wanted = run(query, key, value, "flash_tpu_interpreted")
    with jax.set_mesh(make_mesh(data=2, tensor=2)):
        got = run(query, key, value, "flash_tpu_interpreted")
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-6), got, wanted)
    with (
        jax.set_mesh(make_mesh(tensor=4)),
        pytest.raises(
            ShardingError, match="2 key/value heads are not a multiple of mesh axis 'tensor' of size 4"
        ),
    ):
        run(query, key, value, "flash_tpu_interpreted")


def test_the_platform_chooses():
    assert platform_backend() == "xla"
    check_heads(8, 4, 4)
    with pytest.raises(ShardingError, match="6 query heads"):
        check_heads(6, 4, 4)


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
