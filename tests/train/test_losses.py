"""Losses against plain NumPy loops in float64, and their gradients against finite differences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.train import losses
from onethinker_jax.train.losses import PolicyLossConfig

cross_entropy: Any = losses.cross_entropy  # NumPy arrays will do
policy_loss: Any = losses.policy_loss
token_logprobs: Any = losses.token_logprobs


def states(rows: int, length: int, width: int, vocab: int) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(7)
    hidden = draw.normal(size=(rows, length, width)).astype(np.float32)
    head = (draw.normal(size=(width, vocab)) * 0.7).astype(np.float32)
    return hidden, head, draw.integers(0, vocab - 3, (rows, length)).astype(np.int32)


def plain_logprobs(
    hidden: Any, head: Any, targets: Any, temperature: float, forbidden: tuple[int, ...]
) -> tuple[Any, Any]:
    logprobs, entropy = np.zeros(targets.shape), np.zeros(targets.shape)
    allowed = [token for token in range(head.shape[1]) if token not in forbidden]
    for place in np.ndindex(*targets.shape):
        logits = hidden[place].astype(np.float64) @ head.astype(np.float64) / temperature
        normal = math.log(sum(math.exp(logits[token]) for token in allowed))
        logprobs[place] = logits[targets[place]] - normal
        entropy[place] = -sum(
            math.exp(logits[token] - normal) * (logits[token] - normal) for token in allowed
        )
    return logprobs, entropy


@pytest.mark.parametrize(("temperature", "forbidden"), [(1.0, ()), (0.6, ()), (1.7, (10, 12)), (1.0, (11,))])
def test_logprobs_and_entropy(temperature: float, forbidden: tuple[int, ...]) -> None:
    hidden, head, targets = states(2, 5, 6, 13)
    ours = token_logprobs(hidden, head, targets, temperature=temperature, forbidden_ids=forbidden)
    plain = plain_logprobs(hidden, head, targets, temperature, forbidden)
    for mine, true in zip(ours, plain, strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-5)


def test_entropy_of_certainty_is_zero() -> None:
    head = np.diag(np.full(4, 200.0, np.float32))
    logprobs, entropy = token_logprobs(np.eye(4, dtype=np.float32)[None], head, np.arange(4)[None])
    np.testing.assert_array_equal(entropy, 0.0)
    np.testing.assert_array_equal(logprobs, 0.0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, targets = states(2, 12, 6, 13)

    def value_and_gradient(chunk: int) -> tuple[Any, Any]:
        monkeypatch.setattr(losses, "CHUNK", chunk)

        def total(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, Any]:
            parts = token_logprobs(hidden, head, targets, temperature=0.8, forbidden_ids=(12,))
            return jnp.sum(parts[0] * jnp.cos(jnp.arange(12.0))) + jnp.sum(parts[1]), parts

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(hidden, head)

    chunked, whole = value_and_gradient(4), value_and_gradient(12)
    for mine, true in zip(jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-5)
    undivided = value_and_gradient(5)  # 12 is no multiple of 5: one chunk of all
    for mine, true in zip(jax.tree.leaves(undivided), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(mine, true)


def test_cross_entropy_sums_the_targets_only() -> None:
    logprobs = np.array([[-1.0, -2.0, -np.inf], [-0.5, np.nan, -4.0]], np.float32)
    mask = np.array([[True, True, False], [False, False, True]])
    assert float(cross_entropy(logprobs, mask)) == 7.0
    assert float(cross_entropy(logprobs, np.zeros((2, 3), bool))) == 0.0


def plain_policy_loss(
    logprobs: Any,
    sampled: Any,
    advantages: Any,
    mask: Any,
    reference: Any,
    config: PolicyLossConfig,
) -> float:
    total = 0.0
    for place in np.ndindex(*mask.shape):
        if not mask[place]:
            continue
        gap = float(logprobs[place]) - float(sampled[place])
        gap = max(-config.max_log_ratio, min(config.max_log_ratio, gap))
        ratio, advantage = math.exp(gap), float(advantages[place])
        clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        objective = min(ratio * advantage, clipped * advantage)
        if advantage < 0:
            objective = max(objective, config.dual_clip * advantage)
        total -= objective
        if reference is not None:
            gap = float(reference[place]) - float(logprobs[place])
            gap = max(-config.max_log_ratio, min(config.max_log_ratio, gap))
            total += config.kl_coefficient * (math.exp(gap) - gap - 1)
    return total


# log-ratio, advantage -> loss of that one token, with clip_low 0.2, clip_high 0.3, dual clip 3
BY_HAND = [
    (0.0, 2.0, -2.0),
    (0.0, -2.0, 2.0),
    (math.log(1.2), 1.0, -1.2),  # inside: as it is
    (math.log(1.5), 1.0, -1.3),  # a gain is clipped above
    (math.log(0.5), 1.0, -0.5),  # a loss of probability is not
    (math.log(0.5), -1.0, 0.8),  # a gain is clipped below
    (math.log(2.0), -1.0, 2.0),
    (math.log(5.0), -1.0, 3.0),  # dual clip
    (50.0, 1.0, -1.3),
    (50.0, -1.0, 3.0),
    (-50.0, 1.0, -math.exp(-20)),  # the log-ratio is clamped
]


@pytest.mark.parametrize(("log_ratio", "advantage", "loss"), BY_HAND)
def test_policy_loss_of_one_token(log_ratio: float, advantage: float, loss: float) -> None:
    arrays = [np.array([[value]], np.float32) for value in (-1.0 + log_ratio, -1.0, advantage)]
    ours, _ = policy_loss(*arrays, np.array([[True]]), None, PolicyLossConfig())
    np.testing.assert_allclose(ours, loss, rtol=1e-5)


def policy_case(reference: bool) -> tuple[Any, ...]:
    draw = np.random.default_rng(3)
    shape = (4, 50)
    sampled = -draw.exponential(2.0, shape)
    logprobs = sampled + draw.normal(scale=0.8, size=shape)
    logprobs[0, :4] = sampled[0, :4] + [30, -30, 25, -25]
    advantages = draw.normal(scale=2.0, size=shape)
    mask = draw.random(shape) < 0.8
    logprobs[~mask] = np.nan  # what lies outside the mask must not count, whatever it is
    anchor = sampled + draw.normal(scale=0.5, size=shape) if reference else None
    if anchor is not None:
        anchor[1, :2] = sampled[1, :2] + [40, -40]
    arrays = (logprobs, sampled, advantages, mask, anchor)
    return tuple(a.astype(np.float32) if a is not None and a.dtype == np.float64 else a for a in arrays)


@pytest.mark.parametrize(
    "config",
    [
        PolicyLossConfig(),
        PolicyLossConfig(clip_low=0.1, clip_high=0.5, dual_clip=1.5, max_log_ratio=1.0),
        PolicyLossConfig(kl_coefficient=0.3, max_log_ratio=3.0),
    ],
)
def test_policy_loss_is_that_of_plain_loops(config: PolicyLossConfig) -> None:
    logprobs, sampled, advantages, mask, reference = policy_case(config.kl_coefficient > 0)
    ours, sums = policy_loss(logprobs, sampled, advantages, mask, reference, config)
    plain = plain_policy_loss(logprobs, sampled, advantages, mask, reference, config)
    np.testing.assert_allclose(ours, plain, rtol=1e-5)

    gaps = np.clip((logprobs - sampled)[mask].astype(np.float64), -config.max_log_ratio, config.max_log_ratio)
    signs, ratios = advantages[mask], np.exp(gaps)
    assert float(sums["clipped_low"]) == ((ratios < 1 - config.clip_low) & (signs < 0)).sum()
    assert float(sums["clipped_high"]) == ((ratios > 1 + config.clip_high) & (signs > 0)).sum()
    np.testing.assert_allclose(sums["kl_sampled"], (ratios - gaps - 1).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["mismatch"], np.abs(gaps).sum(), rtol=1e-5)
    assert ("kl_reference" in sums) == (reference is not None)


def test_gradient_of_the_policy_loss() -> None:
    """Against central differences of the plain loops; ratios lie away from the corners of the objective."""
    config = PolicyLossConfig(kl_coefficient=0.2)
    draw = np.random.default_rng(5)
    ratios = np.array([[0.5, 0.9, 1.1, 1.25, 1.5, 2.5, 4.0, 0.7] * 2])
    advantages = np.array([[1.5] * 8 + [-0.7] * 8], np.float32)
    sampled = -draw.exponential(1.0, ratios.shape)
    reference = (sampled + draw.normal(scale=0.3, size=ratios.shape)).astype(np.float32)
    logprobs, sampled = (sampled + np.log(ratios)).astype(np.float32), sampled.astype(np.float32)
    mask = np.ones(ratios.shape, bool)
    mask[0, 3] = False

    def ours(values: jax.Array) -> jax.Array:
        return policy_loss(values, sampled, advantages, mask, reference, config)[0]

    gradient = np.asarray(jax.grad(ours)(jnp.asarray(logprobs)))
    for place in np.ndindex(*mask.shape):
        step = np.zeros(mask.shape)
        step[place] = 1e-4
        both = [
            plain_policy_loss(logprobs + sign * step, sampled, advantages, mask, reference, config)
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(gradient[place], (both[0] - both[1]) / 2e-4, rtol=1e-3, atol=1e-5)


def test_gradient_through_head_and_temperature() -> None:
    """The whole chain hidden -> log-probability -> loss, against central differences."""
    hidden, head, targets = states(1, 4, 5, 9)
    advantages = np.array([[1.0, -1.0, 0.5, -2.0]], np.float32)
    mask = np.array([[True, True, False, True]])
    sampled = plain_logprobs(hidden, head, targets, 0.7, (8,))[0] + [[0.1, -0.1, 0.0, 0.05]]

    def ours(hidden: jax.Array) -> jax.Array:
        logprobs, _ = token_logprobs(hidden, head, targets, temperature=0.7, forbidden_ids=(8,))
        return policy_loss(logprobs, jnp.asarray(sampled), advantages, mask, None, PolicyLossConfig())[0]

    gradient = np.asarray(jax.grad(ours)(jnp.asarray(hidden)))
    for place in np.ndindex(*hidden.shape):
        both = []
        for sign in (1, -1):
            moved = hidden.astype(np.float64)
            moved[place] += sign * 1e-5
            logprobs, _ = plain_logprobs(moved, head, targets, 0.7, (8,))
            both.append(plain_policy_loss(logprobs, sampled, advantages, mask, None, PolicyLossConfig()))
        np.testing.assert_allclose(gradient[place], (both[0] - both[1]) / 2e-5, rtol=2e-3, atol=2e-4)
