"""Every back end of attention and attention with a cache against a plain numpy reference, gradients included.

The TPU and GPU kernels run in Pallas' interpreter, which computes their blocks with XLA on the CPU. In float32
all back ends agree with the float64 reference to 2e-6 (values) and 5e-6 (gradients).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from onethinker_jax.model.attention import flash_gpu, flash_tpu
from onethinker_jax.model.attention import xla as attention_xla
from onethinker_jax.model.attention.attention import Backend, attention, check_heads, platform_backend
from onethinker_jax.model.attention.flash_blocks import block_meetings
from onethinker_jax.model.sharding import AXES, ShardingError, make_mesh

CASES = {
    "one example": ([1] * 24, None),
    "padding at both ends": ([0] * 3 + [1] * 15 + [0] * 6, None),
    "packed": ([1] * 7 + [2] * 12 + [3] * 1 + [0] * 4, None),
    "branches": (
        [1] * 16 + [2] * 6 + [0] * 2,
        [0] * 5 + [1] * 4 + [2] * 4 + [3] * 3 + [0] * 2 + [1] * 2 + [2] * 2 + [0] * 2,
    ),
}
FLASH: tuple[Backend, Backend] = ("flash_tpu_interpreted", "flash_gpu_interpreted")
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
    "flash for TPUs in one block": ("flash_tpu_interpreted", 512),
    "flash for TPUs in blocks of 10, the last one short": ("flash_tpu_interpreted", 10),
    "flash for GPUs in one block": ("flash_gpu_interpreted", 512),
    "flash for GPUs in blocks of 10 by 5, the last one short": ("flash_gpu_interpreted", 10),
}


@pytest.fixture(params=BACKENDS)
def attend(request, monkeypatch):
    """`attention` on one back end, its chunks or blocks as large as the case says."""
    backend, size = BACKENDS[request.param]
    monkeypatch.setattr(attention_xla, "CHUNK", size)
    monkeypatch.setattr(flash_tpu, "BLOCK", size)
    monkeypatch.setattr(flash_tpu, "QUERY_BYTES", 2 * size * 4 * flash_tpu.LANES)  # two blocks a kernel
    for kernel in ("FORWARD", "QUERY_GRADIENT", "KEY_GRADIENTS"):  # float32 takes half of a tile
        tiles = flash_gpu.Tiles(outer=2 * size, inner=size, warps=4, stages=2)
        monkeypatch.setattr(flash_gpu, kernel, tiles)
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


@pytest.mark.parametrize("sizes", [(4, 4), (8, 4), (4, 8)], ids=str)
def test_flash_visits_only_blocks_that_can_meet(sizes):
    """The kernels' lists hold every pair of blocks that has a visible pair of tokens, and few others."""
    shape = (2, 24 // sizes[0], sizes[0], 24 // sizes[1], sizes[1])
    for case in CASES:
        segments, branches = masks(case)
        for causal in (True, False):
            sees = (segments[:, :, None] == segments[:, None]) & (segments > 0)[:, None]
            sees &= (branches[:, None] == 0) | (branches[:, :, None] == branches[:, None])
            if causal:
                sees &= np.tri(24, dtype=bool)
            needed = np.asarray(sees).reshape(shape).any((2, 4))
            meetings = np.asarray(
                block_meetings(segments, branches, query_block=sizes[0], key_block=sizes[1], causal=causal)
            )
            assert not (needed & ~meetings).any(), case
            assert meetings.sum() <= needed.sum() + 4, case
            pairs = set(zip(*np.nonzero(meetings), strict=True))
            work = flash_tpu._work_list(jnp.asarray(meetings))
            count = int(work.count)
            listed = list(zip(*(np.asarray(part)[:count].tolist() for part in work[:3]), strict=True))
            assert len(set(listed)) == count
            assert pairs <= set(listed)
            assert {pair[:2] for pair in listed} == set(np.ndindex(shape[:2]))
            assert (
                count <= len(pairs) + 2 * shape[1]
            )  # a block that meets none gets one, to be written at all
            visits = flash_gpu._visits(jnp.asarray(meetings))
            visited = {
                (*at, int(block))
                for at in np.ndindex(shape[:2])
                for block in visits.blocks[at][: int(visits.counts[at])]
            }
            assert visited == pairs


@pytest.mark.parametrize("backend", FLASH)
@pytest.mark.parametrize("size", [64, 72, 80, 128])
def test_flash_with_the_head_sizes_of_the_released_models(backend, size):
    """72 and 80 are neither a power of two nor a whole number of lanes; 40 tokens no whole block."""
    rng = np.random.default_rng(3)
    query, key, value = (jnp.asarray(rng.normal(size=(1, 40, 2, size)), jnp.float32) for _ in range(3))
    frames = jnp.array([[1] * 12 + [2] * 12 + [3] * 12 + [0] * 4])

    def run(backend: Backend) -> tuple[jax.Array, ...]:
        def total(query, key, value):
            out = attention(query, key, value, frames, causal=False, backend=backend)[:, :36]
            return jnp.square(out).sum(), out

        (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(
            query, key, value
        )
        return out, *gradients

    for one, other in zip(run(backend), run("xla"), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6, rtol=2e-6)


H100 = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("size", [72, 128])
def test_flash_lowers_for_a_gpu(size, dtype):
    """To Triton's language, forward and backward, chosen by the platform of the mesh; no GPU is needed."""

    def total(query, key, value, ids):
        return attention(query, key, value, ids, ids, causal=True).astype(jnp.float32).sum()

    heads = [jax.ShapeDtypeStruct((1, 1000, count, size), dtype) for count in (4, 2, 2)]
    ids = jax.ShapeDtypeStruct((1, 1000), jnp.int32)
    mesh = jax.sharding.AbstractMesh(
        (1, 1, 1), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3, abstract_device=H100
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert platform_backend() == "flash_gpu"
        traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(*heads, ids)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    kernels = ("forward", "query_gradient", "key_gradients")
    assert all(text.count(f'name = "attention_{kernel}_causal"') == 1 for kernel in kernels)
    assert text.count("@__gpu$xla.gpu.triton") == len(kernels)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
@pytest.mark.parametrize("backend", [*FLASH, "xla"])
def test_a_mesh_equals_one_device(monkeypatch, backend):
    monkeypatch.setattr(attention_xla, "CHUNK", 8)

    def total(query, key, value, segments, branches):
        return jnp.square(
            attention(query, key, value, segments, branches, causal=True, backend=backend)
        ).sum()

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    inputs = *arrays((4, 2)), *masks("branches")
    wanted = run(*inputs)
    mesh = make_mesh(data=2, tensor=2)
    heads, ids = (NamedSharding(mesh, P(*axes)) for axes in (("data", None, "tensor"), ("data",)))
    with jax.set_mesh(mesh):
        got = run(*(jax.device_put(x, heads if x.ndim == 4 else ids) for x in inputs))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-6), got, wanted)


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices, virtual ones do")
@pytest.mark.parametrize("backend", FLASH)
def test_heads_that_a_mesh_does_not_divide(backend):
    query, key, value = arrays((4, 2))
    segments, branches = masks("branches")
    message = "2 key/value heads are not a multiple of mesh axis 'tensor' of size 4"
    with jax.set_mesh(make_mesh(tensor=4)), pytest.raises(ShardingError, match=message):
        attention(query, key, value, segments, branches, causal=True, backend=backend)


def test_the_platform_chooses():
    assert platform_backend() == "xla"
    check_heads(8, 4, 4)
    with pytest.raises(ShardingError, match="6 query heads"):
        check_heads(6, 4, 4)


@either
def test_chunks_that_nothing_is_seen_of_are_skipped(monkeypatch, causal):
    """NaN values would otherwise spoil their queries' sums, with a weight of 0."""
    monkeypatch.setattr(attention_xla, "CHUNK", 4)
    segments = jnp.array([[1] * 4 + [2] * 20] * 2)
    branches = jnp.array([[0] * 4 + [0] * 4 + [1] * 4 + [2] * 4 + [3] * 8] * 2)
    query, key, value = arrays((4, 2))
    ends = slice(12, 16)  # a branch of its own, after whose chunk others follow
    spoiled = value.at[:, :4].set(jnp.nan).at[:, 8:12].set(jnp.nan).at[:, 16:].set(jnp.nan)
    run = jax.jit(partial(attention, causal=causal, backend="xla"))
    whole, part = (run(query, key, x, segments, branches) for x in (value, spoiled))
    np.testing.assert_array_equal(part[:, ends], whole[:, ends])
    if causal:
        np.testing.assert_array_equal(part[:, 4:8], whole[:, 4:8])


def test_nothing_of_the_size_of_all_pairs_is_held():
    """Forward and backward pass over T tokens need less than a byte for each of T x T pairs."""
    length = 8192
    query = jax.ShapeDtypeStruct((1, length, 4, 32), jnp.float32)
    key = jax.ShapeDtypeStruct((1, length, 2, 32), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def total(query, key, value, segments, branches):
        return attention_xla.attention(query, key, value, segments, branches, causal=True).sum()

    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(query, key, key, ids, ids).compile()
    analysis: Any = compiled.memory_analysis()
    assert analysis.temp_size_in_bytes < length**2
