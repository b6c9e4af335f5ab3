"""A policy update of packed groups: what packing may not change, its gradient, and samples left out of it."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.inputs import patch_geometry
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Samples
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.policy_update import (
    PolicyBatch,
    policy_batches,
    rl_logprobs,
    rl_loss,
    rl_update,
)
from onethinker_jax.train.rl.rollouts import Group
from tests.model import tiny
from tests.train import making

SAMPLING = SamplingConfig(max_new_tokens=9, eos_ids=(1,), temperature=0.9, suppressed_ids=tiny.SUPPRESSED)
SETTINGS = replace(
    shapes().rl,
    rollout=SamplerSettings(max_new_tokens=9, group_size=8),
    batch=BatchSettings(rows=2, tokens=64, patches=48),
)
SHAPES = (BatchSettings(rows=1, tokens=44, patches=24), BatchSettings(rows=2, tokens=96, patches=48))
OBJECTIVES = {
    "sequences": PolicyLossSettings(
        kind="gspo",
        aggregation="sequence",
        clip_low=0.02,
        clip_high=0.03,
        kl_coefficient=0.2,
        kl_estimator="k2",
        entropy_coefficient=0.03,
        importance_sampling="sequence_truncate",
        tis_cap=1.1,
    ),
    "tokens": PolicyLossSettings(
        kind="cispo",
        aggregation="constant",
        kl_coefficient=0.1,
        kl_bias_correction=True,
        importance_sampling="token_mask",
        tis_cap=1.2,
        tis_floor=0.8,
    ),
}


def prompt(number: int, *parts: tuple[Any, ...]) -> Example:
    one = tiny.sample(number, *parts)
    empty = [np.zeros((0, *shape)) for shape in ((), (2,), (4,), (4,))]
    geometry = patch_geometry(one.grids, 2, making.CONFIG.vision.grid_side) if len(one.grids) else empty
    return Example(
        tokens=one.tokens,
        positions=one.positions,
        loss_mask=np.zeros(len(one.tokens), bool),
        visual_index=one.visual_index,
        patches=one.patches,
        grids=one.grids.astype(np.int32),
        **dict(zip(("frame_ids", "coords", "embed_index", "embed_weight"), geometry, strict=True)),
        next_position=one.next_position,
    )


def groups() -> list[Group]:
    """Three prompts, one with an image, three samples of 1 to 9 tokens each; the longest were cut off."""
    rng = np.random.default_rng(0)
    made = []
    for number, parts in enumerate(
        ([("text", 6)], [("text", 3), ("image", 4, 6), ("text", 4)], [("text", 11)])
    ):
        lengths = rng.permutation([9, int(rng.integers(2, 8)), 1 + number])
        tokens = [rng.integers(0, tiny.IMAGE, n).astype(np.int32) for n in lengths]
        logprobs = [-rng.exponential(4.0, n).astype(np.float32) for n in lengths]
        samples = Samples(tokens, logprobs, [n < 9 for n in lengths], [""] * 3)
        unused: Any = None
        made.append(Group(number, unused, prompt(number, *parts), samples, []))
    return made


ADVANTAGES = np.array([[1.5, -0.5, -1.0], [0.3, -0.8, 0.5], [2.0, -0.1, -1.9]], np.float32)


def with_old(batches: list[PolicyBatch], params: Any, graphdef: Any) -> list[PolicyBatch]:
    """As in a step's later updates: `old` is another policy's, near which the sampler's lies."""
    score = rl_logprobs(Policy(graphdef, make_mesh()), SAMPLING)
    olds = [score(params, batch) for batch in batches]
    return [
        replace(batch, old=old, sampled=np.asarray(old) + 0.2 * np.sin(np.asarray(batch.sampled)))
        for batch, old in zip(batches, olds, strict=True)
    ]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_packing_changes_nothing_and_the_gradient_is_right(objective: str) -> None:
    """Loss, sums and gradients of a Qwen3-VL in two packings; the slope along the gradient by differences.

    Tolerances are those of float32: relative 1e-5 of the loss, 1e-4 of the largest gradient of a parameter,
    1e-2 of the slope.
    """
    settings = replace(SETTINGS, loss=OBJECTIVES[objective])
    graphdef, params = making.policy()
    _, behind = making.policy(seed=1)
    behind = jax.tree.map(lambda now, other: now + 0.1 * (other - now), params, behind)
    loss = partial(rl_loss, graphdef, objective=settings.loss, max_length=9, sampling=SAMPLING)
    graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
    results = []
    for shape in SHAPES:
        batches = with_old(
            policy_batches(groups(), ADVANTAGES, replace(settings, batch=shape)), behind, graphdef
        )
        parts = [graded(params, behind, batch) for batch in batches]
        results.append((len(batches), jax.tree.map(lambda *arrays: sum(arrays), *parts)))
    (many, ((one, sums), gradient)), (few, ((other, others), same)) = results
    assert many > few
    np.testing.assert_allclose(other, one, rtol=1e-5)
    assert float(sums["count"]) == (9 if settings.loss.aggregation == "sequence" else 9 * 9)
    assert 0 < float(sums["importance_cut"]) < float(sums["tokens"])
    assert float(sums["clipped_low"]) + float(sums["clipped_high"]) > 0
    for name, value in sums.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4, err_msg=name)
    for name, value in making.named(gradient).items():
        largest = np.abs(value).max()
        np.testing.assert_allclose(making.named(same)[name], value, atol=1e-4 * largest + 1e-7, err_msg=name)

    if settings.loss.kind == "cispo":  # its weights are held fixed: a difference would move them
        return
    norm = float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))))
    step = 2e-3 / norm
    both = []
    for sign in (1, -1):
        moved = jax.tree.map(lambda leaf, slope, s=sign: leaf + s * step * slope, params, gradient)
        both.append(sum(float(graded(moved, behind, batch)[0][0]) for batch in batches))
    assert (both[0] - both[1]) / (2 * step) == pytest.approx(norm**2, rel=1e-2)


def test_the_answers_that_were_cut_off_are_left_out() -> None:
    whole = policy_batches(groups(), ADVANTAGES, SETTINGS)
    left = policy_batches(groups(), ADVANTAGES, replace(SETTINGS, loss=PolicyLossSettings(overlong="mask")))

    def tokens_of(batches: list[PolicyBatch]) -> dict[int, int]:
        numbers = np.concatenate(
            [np.asarray(batch.sample_index)[batch.batch.target_mask] for batch in batches]
        )
        return dict(zip(*np.unique(numbers, return_counts=True), strict=True))

    expected = {
        3 * number + i: len(ids)
        for number, group in enumerate(groups())
        for i, ids in enumerate(group.samples.tokens)
    }
    assert tokens_of(whole) == expected
    assert tokens_of(left) == {number: count for number, count in expected.items() if count < 9}
    for batch in left:
        numbers = np.asarray(batch.sample_index)
        wanted = np.where(numbers >= 0, ADVANTAGES.reshape(-1)[numbers], 0.0)
        np.testing.assert_array_equal(batch.advantages, wanted)
    cut = [replace(group, samples=replace(group.samples, ended=[False] * 3)) for group in groups()]
    assert policy_batches(cut, ADVANTAGES, replace(SETTINGS, loss=PolicyLossSettings(overlong="mask"))) == []


@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_a_truncated_distribution_is_not_trained_on(settings: dict[str, Any]) -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match="top_k, top_p and min_p must be off"):
        rl_update(nothing, nothing, SETTINGS, replace(SAMPLING, **settings))
