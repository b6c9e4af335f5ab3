"""Counts of attention's pairs against masks written out, and against what the kernels are seen to compute."""

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.attention import flash_gpu, flash_tpu
from onethinker_jax.model.attention.flash import module_of
from onethinker_jax.model.attention.flash_blocks import kernel_name, pairs_of_one_segment
from onethinker_jax.model.attention.pair_count import computed_pairs, seen_pairs
from onethinker_jax.train.cost.program_cost import count_flops
from tests.model.attention.test_attention import CASES, masks

BLOCK = 8
either = pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])


def mask(segments: np.ndarray, branches: np.ndarray, causal: bool) -> np.ndarray:
    """Bool [B, T, T]: which query sees which key."""
    sees = (segments[:, :, None] == segments[:, None]) & (segments > 0)[:, None]
    sees &= (branches[:, None] == 0) | (branches[:, :, None] == branches[:, None])
    return sees & np.tri(segments.shape[1], dtype=bool) if causal else sees


@either
def test_seen_pairs_are_those_of_the_mask(causal: bool) -> None:
    """Also of ids in any order, as no packer lays them out."""
    rng = np.random.default_rng(0)
    layouts = [tuple(np.asarray(x) for x in masks(case)) for case in CASES]
    layouts += [(rng.integers(0, 4, (3, 40)), rng.integers(0, 3, (3, 40))) for _ in range(20)]
    layouts += [(np.zeros((2, 5), int), np.zeros((2, 5), int)), (np.ones((1, 1), int), np.zeros((1, 1), int))]
    for segments, branches in layouts:
        assert seen_pairs(segments, branches, causal=causal) == mask(segments, branches, causal).sum()


def test_a_row_with_a_whole_group_by_hand() -> None:
    """5 tokens of a prompt, two samples of 3 and 2: 15 pairs, 3 x 5 + 6 and 2 x 5 + 3."""
    segments = np.array([[1] * 10 + [0] * 2])
    branches = np.array([[0] * 5 + [1] * 3 + [2] * 2 + [0] * 2])
    assert seen_pairs(segments, branches, causal=True) == 15 + 21 + 13
    assert seen_pairs(segments, branches, causal=False) == 25 + 9 + 4 + 5 * 5


def computed(module: ModuleType, segments: np.ndarray, branches: np.ndarray, causal: bool) -> dict[str, int]:
    """Pairs of blocks that each kernel computes of one row, seen from outside.

    A block of values, keys or gradients that are no numbers spoils what meets it, masked or not: zero times NaN is NaN.
    """
    length = segments.shape[1]
    count = -(-length // BLOCK)
    copies = np.arange(count)[:, None] == np.arange(length) // BLOCK  # [block, T]: row n has block n spoilt
    poison = jnp.asarray(np.where(copies, np.nan, 0.0), jnp.float32)[..., None, None]
    ids = [jnp.asarray(np.repeat(x, 2 * count, axis=0), jnp.int32) for x in (segments, branches)]
    query, key, value, gradient = jnp.asarray(
        np.random.default_rng(1).normal(size=(4, 2 * count, length, 1, 16)), jnp.float32
    )
    settings: dict[str, Any] = {"causal": causal, "interpret": True}
    out, saved = module.forward(query, key, value.at[:count].add(poison), *ids, **settings)
    # Rows of the first half show the forward pass; the backward pass begins from a clean one.
    _, saved = module.forward(query, key, value, *ids, **settings)
    spoilt = key.at[:count].add(poison)
    saved = (saved[0], spoilt.swapaxes(1, 2) if module is flash_tpu else spoilt, *saved[2:])
    dq, _, dv = module.backward(saved, gradient.at[count:].add(poison), **settings)

    def blocks(x: Any) -> int:
        """(block, spoilt block) pairs with a NaN."""
        bad: np.ndarray = np.isnan(np.asarray(x)).any((2, 3))  # pyright: ignore[reportAssignmentType]
        return sum(bool(row[start : start + BLOCK].any()) for row in bad for start in range(0, length, BLOCK))

    return {
        "forward": blocks(out[:count]),
        "gradients": blocks(dv[count:]),
        "query_gradient": blocks(dq[:count]),
        "key_gradients": blocks(dv[count:]),
    }


@either
@pytest.mark.parametrize("module", [flash_tpu, flash_gpu], ids=["tpu", "gpu"])
def test_the_kernels_compute_what_is_counted(monkeypatch, module: ModuleType, causal: bool) -> None:
    monkeypatch.setattr(flash_tpu, "BLOCK", BLOCK)
    for kernel in ("FORWARD", "QUERY_GRADIENT", "KEY_GRADIENTS"):  # float32 takes half of a tile
        tiles = flash_gpu.Tiles(outer=2 * BLOCK, inner=2 * BLOCK, warps=4, stages=2)
        monkeypatch.setattr(flash_gpu, kernel, tiles)
    kernels = "tpu" if module is flash_tpu else "gpu"
    for case in ("branches", "short segments"):
        segments, branches = LAYOUTS[case]
        found = computed(module, segments, branches, causal)
        for part in module.PARTS:
            counted = computed_pairs(kernels, part, segments, branches, causal=causal, itemsize=4)
            # Of a block of padding the TPU's kernels compute one pair; the forward pass then writes zeros.
            hidden = kernels == "tpu" and part == "forward" and case == "short segments"
            assert counted == (found[part] + hidden) * BLOCK**2, (case, part)
            assert counted < (len(segments[0]) / BLOCK) ** 2 * BLOCK**2


LAYOUTS = {
    "branches": (np.ones((1, 40), int), np.array([[0] * 10 + [1] * 9 + [2] * 9 + [3] * 12])),
    "short segments": (np.array([[1] * 6 + [2] * 12 + [3] * 3 + [4] * 9 + [0] * 10]), np.zeros((1, 40), int)),
}


@pytest.mark.parametrize("kernels", ["tpu", "gpu"])
def test_blocks_of_the_released_kernels_hold_what_is_seen(kernels: Any) -> None:
    """No fewer pairs than are seen; a group in a row costs far less than one segment of that length."""
    prompt, sample, group = 2000, 700, 8
    branches = np.concatenate([np.zeros(prompt, int), np.repeat(np.arange(1, group + 1), sample)])[None]
    segments = np.ones_like(branches)
    seen = seen_pairs(segments, branches, causal=True)
    whole = pairs_of_one_segment(segments.size, segments.size, True)
    for part in module_of(kernels).PARTS:
        counted = computed_pairs(kernels, part, segments, branches, causal=True)
        assert seen < counted < 1.35 * seen < 0.75 * whole, part


def test_the_estimate_of_a_kernel_is_that_of_one_segment() -> None:
    """Which the counts are shares of."""
    import jax

    from onethinker_jax.model.attention.attention import attention

    def out(query: jax.Array) -> jax.Array:
        return attention(query, query, query, jnp.ones((3, 256), jnp.int32), causal=True, backend="flash_tpu")

    traced = jax.jit(out).trace(jax.ShapeDtypeStruct((3, 256, 2, 64), jnp.float32))
    products, heads, size = 2, 2, 64
    assert count_flops(traced.jaxpr.jaxpr) == {
        kernel_name("forward", True): 2 * products * heads * size * pairs_of_one_segment(3 * 256, 256, True)
    }
