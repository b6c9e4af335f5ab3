"""Log-probabilities, entropies and cross entropy against plain NumPy loops; gradients against differences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.train import losses

cross_entropy: Any = losses.cross_entropy  # NumPy arrays will do
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


def test_gradients_through_the_head() -> None:
    """Of log-probabilities and entropies at once, against central differences of the plain loops."""
    hidden, head, targets = states(1, 4, 5, 9)
    weights = np.random.default_rng(11).normal(size=(2, *targets.shape))

    def plain(hidden: Any, head: Any) -> float:
        logprobs, entropy = plain_logprobs(hidden, head, targets, 0.7, (8,))
        return float(np.sum(weights[0] * logprobs + weights[1] * entropy))

    def ours(hidden: jax.Array, head: jax.Array) -> jax.Array:
        logprobs, entropy = token_logprobs(hidden, head, targets, temperature=0.7, forbidden_ids=(8,))
        return jnp.sum(weights[0] * logprobs + weights[1] * entropy)

    arrays = [hidden.astype(np.float64), head.astype(np.float64)]
    gradients = jax.grad(ours, argnums=(0, 1))(jnp.asarray(hidden), jnp.asarray(head))
    for number, gradient in enumerate(gradients):
        for place in np.ndindex(*gradient.shape):
            both = []
            for sign in (1, -1):
                moved = [array.copy() for array in arrays]
                moved[number][place] += sign * 1e-5
                both.append(plain(*moved))
            slope = (both[0] - both[1]) / 2e-5
            np.testing.assert_allclose(gradient[place], slope, rtol=2e-3, atol=2e-4)
