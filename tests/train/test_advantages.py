"""Advantages against the released code's numbers, against numpy in float64, and their invariances."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from onethinker_jax.train.advantages import (
    TaskMoments,
    compute_advantages,
    init_moments,
    overlong_penalty,
)
from onethinker_jax.train.config.objective import AdvantageConfig
from tests.places import GOLDEN

RELEASED = json.loads((GOLDEN / "advantages_released.json").read_text())
METHODS = ("ema_grpo", "grpo", "dr_grpo", "rloo")
SIZE = 80  # of every batch of the golden streams: one compilation


def task_key(problem_type: str, data_type: str) -> str:
    return f"{problem_type}/{data_type}" if problem_type == "segmentation" else problem_type


def padded(step: dict, tasks: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys = [task_key(*pair) for pair in zip(step["problem_type"], step["data_type"], strict=True)]
    rest = SIZE - len(keys)
    return (
        np.array(step["reward"] + [7.0] * rest, np.float32),
        np.array(step["group"] + [-1] * rest, np.int32),
        np.array([tasks.index(key) for key in keys] + [0] * rest, np.int32),
    )


@pytest.mark.parametrize("run", RELEASED, ids=[f"stream{i}" for i in range(len(RELEASED))])
def test_released_streams(run: dict) -> None:
    tasks = sorted({key for step in run["steps"] for key in step["moments_after"]})
    ema = AdvantageConfig(
        variant="released",
        decay=run["decay"],
        clip=run["guard_abs_max"],
        min_std=run["min_std"],
        eps=run["eps"],
    )
    grpo = dataclasses.replace(ema, method="grpo")
    moments = init_moments(len(tasks))
    for step in run["steps"]:
        batch, n = padded(step, tasks), len(step["reward"])
        plain, _ = compute_advantages(*batch, moments, grpo)
        advantages, moments = compute_advantages(*batch, moments, ema)
        np.testing.assert_allclose(advantages[:n], step["released_ema_grpo"], atol=2e-5)
        np.testing.assert_allclose(plain[:n], step["released_grpo"], atol=2e-5)
        assert not np.any(advantages[n:])
        for key, (m1, m2) in step["moments_after"].items():
            index = tasks.index(key)
            assert moments.initialised[index]
            assert float(moments.m1[index]) == pytest.approx(m1, abs=1e-7)
            assert float(moments.m2[index]) == pytest.approx(m2, abs=1e-7)
        assert int(moments.initialised.sum()) == len(step["moments_after"])


def reference(
    rewards: np.ndarray, groups: np.ndarray, tasks: np.ndarray, state: dict, config: AdvantageConfig
) -> np.ndarray:
    """The same in float64, one sample after the other; `state` maps a task to (m1, m2)."""
    rewards = rewards.astype(np.float64)
    for task in np.unique(tasks):
        own = rewards[tasks == task]
        new = np.array([own.mean(), (own**2).mean()])
        state[task] = new if task not in state else config.decay * state[task] + (1 - config.decay) * new
    result = np.zeros_like(rewards)
    for i, (reward, group, task) in enumerate(zip(rewards, groups, tasks, strict=True)):
        members = rewards[groups == group]
        centred = reward - members.mean()
        sigma = max(np.sqrt(max(state[task][1] - state[task][0] ** 2, 0.0)), config.min_std)
        if config.method == "grpo":
            result[i] = centred / (members.std(ddof=1) + config.eps) if len(members) > 1 else 0.0
        elif config.method == "dr_grpo":
            result[i] = centred
        elif config.method == "rloo":
            others = (members.sum() - reward) / max(len(members) - 1, 1)
            result[i] = reward - others if len(members) > 1 else 0.0
        elif config.variant == "paper":
            result[i] = np.clip(centred / sigma, -config.clip, config.clip)
        elif np.abs(members - members.mean()).max() / (sigma + config.eps) > config.clip:
            result[i] = centred / (members.std() + config.eps)
        else:
            result[i] = centred / (sigma + config.eps)
    return result


def random_batch(seed: int, prompts: int = 12, samples: int = 4, tasks: int = 3):
    rng = np.random.default_rng(seed)
    groups = np.repeat(rng.permutation(1000)[:prompts], samples).astype(np.int32)
    task_ids = np.repeat(rng.integers(0, tasks, prompts), samples).astype(np.int32)
    rewards = (rng.random(prompts * samples) * (1 + task_ids)).astype(np.float32)
    rewards[rng.random(prompts * samples) < 0.3] = 0.6
    order = rng.permutation(prompts * samples)  # members of a group need not be neighbours
    return rewards[order], groups[order], task_ids[order]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_float64(method: str, variant: str) -> None:
    config = AdvantageConfig(method=method, variant=variant, decay=0.8, clip=1.5)  # pyright: ignore[reportArgumentType]
    moments, state = init_moments(3), {}
    for seed in range(6):
        batch = random_batch(seed)
        advantages, moments = compute_advantages(*batch, moments, config)
        np.testing.assert_allclose(advantages, reference(*batch, state, config), atol=2e-5)
    for task, (m1, m2) in state.items():
        np.testing.assert_allclose([moments.m1[task], moments.m2[task]], [m1, m2], rtol=1e-6)
        np.testing.assert_allclose(moments.sigma()[task], np.sqrt(m2 - m1**2), rtol=1e-5)


def test_sigma_keeps_its_digits_over_many_steps() -> None:
    """Rewards near 1.4 with a spread of 0.003: m2 - m1^2 cancels all that float32 has."""
    rng = np.random.default_rng(0)
    moments, state = init_moments(1), {}
    config = AdvantageConfig(decay=0.95)
    for _ in range(60):
        rewards = (1.4 + 0.003 * rng.standard_normal(16)).astype(np.float32)
        groups = np.repeat(np.arange(4, dtype=np.int32), 4)
        tasks = np.zeros(16, np.int32)
        advantages, moments = compute_advantages(rewards, groups, tasks, moments, config)
        np.testing.assert_allclose(advantages, reference(rewards, groups, tasks, state, config), atol=2e-4)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), variant=st.sampled_from(["paper", "released"]))
def test_padding_and_naming_of_groups_change_nothing(seed: int, variant: str) -> None:
    config = AdvantageConfig(variant=variant)  # pyright: ignore[reportArgumentType]
    rewards, groups, tasks = random_batch(seed)
    expected, expected_moments = compute_advantages(rewards, groups, tasks, init_moments(3), config)

    keep = np.sort(np.random.default_rng(seed).permutation(64)[: len(rewards)])
    wide = [np.full(64, 1e3, np.float32), np.full(64, -1, np.int32), np.full(64, 1, np.int32)]
    for array, values in zip(wide, (rewards, groups * 7 + 3, tasks), strict=True):
        array[keep] = values
    advantages, moments = compute_advantages(*wide, init_moments(3), config)
    np.testing.assert_allclose(advantages[keep], expected, atol=1e-5)
    assert not np.any(np.delete(np.asarray(advantages), keep))
    for new, old in zip(jax.tree.leaves(moments), jax.tree.leaves(expected_moments), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("method", [*METHODS, "gdpo"])
def test_eight_devices_equal_one(method: str, variant: str) -> None:
    weights = GDPO.weights if method == "gdpo" else ()
    config = AdvantageConfig(method=method, variant=variant, weights=weights)  # pyright: ignore[reportArgumentType]
    batch, components = random_batch(3), random_components(3)
    moments = init_moments(3)
    one = compute_advantages(*batch, moments, config, components)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    *sharded, parts = jax.device_put((*batch, components), NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(moments, NamedSharding(mesh, PartitionSpec()))
    eight = compute_advantages(*sharded, everywhere, config, parts)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("method", METHODS)
def test_equal_rewards_and_lone_samples_pull_nowhere(method: str, variant: str) -> None:
    rewards = np.full(48, 0.6, np.float32)
    groups = np.zeros(48, np.int32)
    rewards[40:], groups[40:] = np.linspace(0.1, 1.3, 8), np.arange(1, 9)
    tasks = np.minimum(groups, 1)
    config = AdvantageConfig(method=method, variant=variant, decay=0.8, clip=1.5)  # pyright: ignore[reportArgumentType]
    advantages, _ = compute_advantages(rewards, groups, tasks, init_moments(3), config)
    assert not np.any(advantages)


def test_a_task_not_in_the_batch_keeps_its_moments() -> None:
    config = AdvantageConfig()
    batch = random_batch(1)
    _, before = compute_advantages(*batch, init_moments(4), config)
    only = np.where(batch[2] == 0, batch[1], -1).astype(np.int32)
    _, after = compute_advantages(batch[0] + np.float32(1), only, batch[2], before, config)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(new[1:], old[1:])
    assert after.m1[0] > before.m1[0]
    assert not after.initialised[3]


def test_moments_without_the_low_parts_are_taken_as_they_are() -> None:
    batch = random_batch(2)
    m1, m2 = jnp.full(3, 0.5), jnp.full(3, 0.5)
    short = TaskMoments(m1, m2, jnp.ones(3, bool))
    full = TaskMoments(m1, m2, jnp.ones(3, bool), jnp.zeros(3), jnp.zeros(3))
    for config in (AdvantageConfig(), AdvantageConfig(variant="released")):
        for a, b in zip(
            jax.tree.leaves(compute_advantages(*batch, short, config)),
            jax.tree.leaves(compute_advantages(*batch, full, config)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_an_unknown_task_shows_itself() -> None:
    advantages, _ = compute_advantages(
        np.array([0.0, 1.0], np.float32),
        np.array([0, 0], np.int32),
        np.array([5, 5], np.int32),
        init_moments(3),
        AdvantageConfig(),
    )
    assert np.isnan(advantages).all()


GDPO = AdvantageConfig(method="gdpo", weights=(0.9, 0.1, 1.0))


def random_components(seed: int, n: int = 48) -> np.ndarray:
    """float32 [n, 3] like accuracy, format and structure: one dense, two of few values."""
    rng = np.random.default_rng(seed)
    parts = [rng.random(n), rng.integers(0, 2, n), rng.integers(0, 3, n) / 4]
    return np.stack(parts, 1).astype(np.float32)


def gdpo_reference(components: np.ndarray, groups: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """GDPO in float64, one sample and one component after the other."""
    components, totals = components.astype(np.float64), np.zeros(len(groups))
    for i, group in enumerate(groups):
        for weight, column in zip(config.weights, components.T, strict=True):
            own = column[groups == group]
            if len(own) > 1:
                totals[i] += weight * (column[i] - own.mean()) / (own.std(ddof=1) + config.eps)
    return (totals - totals.mean()) / (totals.std(ddof=1) + config.eps)


def test_gdpo_equals_float64_and_moves_the_moments_as_every_method() -> None:
    for seed in range(4):
        batch, components = random_batch(seed), random_components(seed)
        advantages, moments = compute_advantages(*batch, init_moments(3), GDPO, components)
        np.testing.assert_allclose(advantages, gdpo_reference(components, batch[1], GDPO), atol=2e-5)
        _, plain = compute_advantages(*batch, init_moments(3), AdvantageConfig())
        for ours, theirs in zip(jax.tree.leaves(moments), jax.tree.leaves(plain), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_gdpo_tells_apart_what_a_sum_does_not() -> None:
    """Two binary rewards: groups of totals (0, 1) and (0, 2) are alike to GRPO, not to GDPO."""
    components = np.array([[0, 0], [1, 0], [0, 0], [1, 1]], np.float32)
    groups, tasks = np.array([0, 0, 1, 1], np.int32), np.zeros(4, np.int32)
    batch = (components.sum(1), groups, tasks, init_moments(1))
    grpo, _ = compute_advantages(*batch, AdvantageConfig(method="grpo"))
    np.testing.assert_allclose(grpo, np.tile([-(0.5**0.5), 0.5**0.5], 2), rtol=1e-5)
    config = AdvantageConfig(method="gdpo", weights=(1.0, 1.0))
    gdpo, _ = compute_advantages(*batch, config, components)
    np.testing.assert_allclose(gdpo, np.array([-1, 1, -2, 2]) / np.sqrt(10 / 3), rtol=1e-5)
    # a component's scale and place do not matter
    moved, _ = compute_advantages(
        *batch, config, components * np.array([8, 1], np.float32) + np.array([0, 5], np.float32)
    )
    np.testing.assert_allclose(moved, gdpo, rtol=1e-5)


def test_gdpo_with_padding_and_without_differences() -> None:
    batch, components = random_batch(4), random_components(4)
    expected, _ = compute_advantages(*batch, init_moments(3), GDPO, components)
    wide = [
        np.concatenate([array, np.full((16, *array.shape[1:]), fill, array.dtype)])
        for array, fill in zip((*batch, components), (9.0, -1, 0, 1e3), strict=True)
    ]
    wide[3][-8:] = np.nan
    advantages, _ = compute_advantages(*wide[:3], init_moments(3), GDPO, wide[3])
    np.testing.assert_allclose(advantages[:48], expected, atol=1e-5)
    assert not np.any(advantages[48:])

    equal, _ = compute_advantages(*batch, init_moments(3), GDPO, np.full((48, 3), 0.6, np.float32))
    assert not np.any(equal)


def test_gdpo_says_what_it_needs() -> None:
    batch = random_batch(0)
    with pytest.raises(ValueError, match=r"gdpo needs components of shape \(48, 3\).* given none"):
        compute_advantages(*batch, init_moments(3), GDPO)
    with pytest.raises(ValueError, match=r"given \(48, 2\)"):
        compute_advantages(*batch, init_moments(3), GDPO, np.zeros((48, 2), np.float32))
    with pytest.raises(ValueError, match=r"gdpo needs components of shape \(48, 0\).* given \(48, 3\)"):
        config = AdvantageConfig(method="gdpo")
        compute_advantages(*batch, init_moments(3), config, np.zeros((48, 3), np.float32))


def test_overlong_penalty() -> None:
    lengths = np.array([[1, 16_384, 16_385], [18_432, 20_480, 20_481]])
    penalty = overlong_penalty(lengths, limit=20_480, buffer=4096)  # DAPO's own numbers
    assert penalty.dtype == np.float32
    np.testing.assert_array_equal(penalty, [[0, 0, -1 / 4096], [-0.5, -1, -1]])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "ppo"),
        ("variant", "draft"),
        ("decay", 1.0),
        ("clip", 0.0),
        ("min_std", -1.0),
        ("eps", 0.0),
        ("weights", (1.0, -0.5)),
        ("weights", (float("nan"),)),
        ("weights", (0.0, 0.0)),
    ],
)
def test_config_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(AdvantageConfig(), **{field: value})
