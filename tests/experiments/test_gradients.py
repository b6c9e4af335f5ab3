"""The cuts of the policy gradient, on a very small policy whose samples are scored by a rule."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import optax
import pytest
from flax import nnx

from experiments.arms import METHODS, settings_of
from experiments.gradients import BINS, bin_of, cut_gradient, flat, shares, warmed_moments
from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.sharding import make_mesh, shard_rows
from onethinker_jax.responses import Sampler
from onethinker_jax.tasks import MOMENTS, TASKS
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.dynamic_sampling import Rollouts
from onethinker_jax.train.rl.learner import advantage_config, group_advantages
from onethinker_jax.train.rl.policy_update import policy_batches, rl_update
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.state import Update
from tests.train.rl.small_run import SETTINGS, Rule

SCORER = cast(Any, Rule())


def of_method(arm: str) -> RLSettings:
    """The small run's settings with those of a method, every group kept."""
    kept = replace(SETTINGS, accuracy_low=-1.0, accuracy_high=2.0)
    return settings_of(replace(shapes(), rl=kept), arm, "mixed", TASKS, None).rl


@pytest.fixture(scope="module")
def steps(policy, records: list[Record], sampler: Sampler, tmp_path_factory) -> list[list[Group]]:
    settings = of_method("grpo")
    with (
        RunLog(tmp_path_factory.mktemp("run")) as log,
        Rollouts(RecordStream(records, seed=0), sampler, SCORER, settings, seed=0, log=log) as rollouts,
    ):
        log.stage("rl", 3)
        return [rollouts.take(step, policy[1]).groups for step in (1, 2, 3)]


@pytest.fixture(scope="module")
def update_of(policy: tuple[nnx.GraphDef, nnx.State], sampler: Sampler) -> Callable[[RLSettings], Update]:
    """What compiles an update, once a loss."""
    found: dict[PolicyLossSettings, Update] = {}

    def update(settings: RLSettings) -> Update:
        if settings.loss not in found:
            at = Policy(policy[0], make_mesh())
            found[settings.loss] = rl_update(at, optax.identity(), settings, sampler.config)
        return found[settings.loss]

    return update


@pytest.mark.parametrize("arm", METHODS)
def test_parts_add_up_to_the_update_s_own_gradient(
    arm: str,
    policy: tuple[nnx.GraphDef, nnx.State],
    update_of: Callable[[RLSettings], Update],
    steps: list[list[Group]],
) -> None:
    settings = of_method(arm)
    groups = [group for of_step in steps for group in of_step]
    scaling = advantage_config(settings, SCORER)
    moments = warmed_moments(steps, settings, SCORER)
    advantages, _ = group_advantages([group.stats for group in groups], moments, scaling, settings)
    at = Policy(policy[0], make_mesh())
    update = update_of(settings)
    cuts = cut_gradient(at, policy[1], update, groups, advantages, settings)

    gradients, count = update.zeros(policy[1]), 0.0
    for batch in policy_batches(groups, advantages, settings):
        gradients, sums = update.accumulate(policy[1], None, gradients, shard_rows(batch, at.mesh))
        count += float(sums["count"])
    whole = flat(gradients) / count
    assert np.linalg.norm(whole) > 1e-4 * len(whole) ** 0.5 * np.abs(whole).max()
    for parts in (cuts.tasks, cuts.bins):
        assert len(parts) > 1 and sum(part.groups for part in parts.values()) == len(groups)
        together = sum(part.gradient for part in parts.values())
        np.testing.assert_allclose(together, whole, atol=1e-5 * np.abs(whole).max())
        found = shares(parts, cuts.total)
        assert sum(one["share"] for one in found.values()) == pytest.approx(1)
        along = sum(one["cosine"] * one["norm"] for one in found.values())
        assert along == pytest.approx(np.linalg.norm(cuts.total))
        means = [one["advantage"] * one["groups"] for one in found.values()]
        assert sum(means) == pytest.approx(np.abs(advantages).mean() * len(groups), rel=1e-5)


def test_moments_go_through_the_steps_in_order(steps: list[list[Group]]) -> None:
    """Those of the first step alone are its own mean and spread; the others move them by 1 - decay each."""
    settings = of_method("ema_grpo_paper")
    first, two = (warmed_moments(steps[:count], settings, SCORER) for count in (1, 2))
    for number in np.flatnonzero(np.asarray(first.initialised)):
        in_step = [
            np.array([group.stats.rewards for group in groups if group.task.moments == MOMENTS[number]])
            for groups in steps[:2]
        ]
        assert first.m1[number] == pytest.approx(in_step[0].mean(), rel=1e-6)
        if in_step[1].size:
            expected = 0.99 * in_step[0].mean() + 0.01 * in_step[1].mean()
            assert two.m1[number] == pytest.approx(expected, rel=1e-6)


def test_bins() -> None:
    assert [bin_of(accuracy) for accuracy in (0.0, 0.19, 0.21, 0.5, 0.79, 0.81, 1.0)] == [
        *(BINS[0], BINS[0], BINS[1], BINS[2], BINS[3], BINS[4], BINS[4])
    ]
