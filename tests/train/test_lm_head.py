"""Log-probabilities, entropies and cross entropy against plain NumPy loops; gradients against differences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from onethinker_jax.model.sharding import BATCH_AXES, make_mesh
from onethinker_jax.train import lm_head, sft

cross_entropy: Any = sft.cross_entropy  # NumPy arrays will do


def token_logprobs(*arrays: Any, **settings: Any) -> tuple[jax.Array, jax.Array]:
    hidden, head, targets, mask = map(jnp.asarray, arrays)
    return lm_head.token_logprobs(hidden, head, targets, mask, **settings)


def states(rows: int, length: int, width: int, vocab: int) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(7)
    hidden = draw.normal(size=(rows, length, width)).astype(np.float32)
    head = (draw.normal(size=(width, vocab)) * 0.7).astype(np.float32)
    return hidden, head, draw.integers(0, vocab - 3, (rows, length)).astype(np.int32)


def plain_logprobs(
    hidden: Any, head: Any, targets: Any, temperature: float, suppressed: tuple[int, ...]
) -> tuple[Any, Any]:
    logprobs, entropy = np.zeros(targets.shape), np.zeros(targets.shape)
    allowed = [token for token in range(head.shape[1]) if token not in suppressed]
    for place in np.ndindex(*targets.shape):
        logits = hidden[place].astype(np.float64) @ head.astype(np.float64) / temperature
        normal = math.log(sum(math.exp(logits[token]) for token in allowed))
        logprobs[place] = logits[targets[place]] - normal
        entropy[place] = -sum(
            math.exp(logits[token] - normal) * (logits[token] - normal) for token in allowed
        )
    return logprobs, entropy


@pytest.mark.parametrize("block", [128, 300])  # of 300 columns
@pytest.mark.parametrize(("temperature", "suppressed"), [(1.0, ()), (0.6, ()), (1.7, (10, 12)), (1.0, (11,))])
def test_logprobs_and_entropy(
    temperature: float, suppressed: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_head, "BLOCK", block)
    hidden, head, targets = states(2, 5, 6, 300)
    everywhere = np.ones(targets.shape, bool)
    ours = token_logprobs(
        hidden, head, targets, everywhere, temperature=temperature, suppressed_ids=suppressed
    )
    plain = plain_logprobs(hidden, head, targets, temperature, suppressed)
    for mine, true in zip(ours, plain, strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-5)


def test_entropy_of_certainty_is_zero() -> None:
    head = np.diag(np.full(4, 200.0, np.float32))
    states, targets = np.eye(4, dtype=np.float32)[None], np.arange(4)[None]
    logprobs, entropy = token_logprobs(states, head, targets, np.ones((1, 4), bool))
    np.testing.assert_array_equal(entropy, 0.0)
    np.testing.assert_array_equal(logprobs, 0.0)


MASKS = {
    "all": np.ones((2, 12), bool),
    "some": np.arange(24).reshape(2, 12) % 5 == 2,
    "one row": np.array([[False] * 12, [False] * 3 + [True] * 9]),
    "none": np.zeros((2, 12), bool),
}


def value_and_gradients(hidden: Any, head: Any, targets: Any, mask: Any) -> Any:
    """Of log-probabilities and entropies at once, each token with a weight of its own."""
    weights = np.random.default_rng(3).normal(size=(2, *targets.shape)).astype(np.float32)

    def total(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, Any]:
        parts = token_logprobs(hidden, head, targets, mask, temperature=0.8, suppressed_ids=(12,))
        return jnp.sum(weights[0] * parts[0] + weights[1] * parts[1]), parts

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(hidden, head)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("chunk", "block"), [(5, 300), (8, 128), (24, 200)])
def test_chunks_change_nothing(chunk: int, block: int, mask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, targets = states(2, 12, 6, 300)
    monkeypatch.setattr(lm_head, "CHUNKS", 1)
    whole = value_and_gradients(hidden, head, targets, mask)  # one chunk of all
    monkeypatch.setattr(lm_head, "CHUNK", chunk)
    monkeypatch.setattr(lm_head, "BLOCK", block)
    chunked = value_and_gradients(hidden, head, targets, mask)
    for mine, true in zip(jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-5)
    for part in (*chunked[0][1], chunked[1][0]):
        np.testing.assert_array_equal(np.asarray(part)[~mask], 0.0)


def test_what_is_no_target_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN states outside whole chunks of targets would otherwise reach the head's gradient."""
    hidden, head, targets = states(2, 12, 6, 300)
    mask = np.arange(24).reshape(2, 12) % 3 == 1  # 8 targets
    monkeypatch.setattr(lm_head, "CHUNKS", 6)  # of 4 tokens
    clean = value_and_gradients(hidden, head, targets, mask)
    spoiled = value_and_gradients(np.where(mask[..., None], hidden, np.nan), head, targets, mask)
    for mine, true in zip(jax.tree.leaves(spoiled), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(mine, true)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
def test_devices_with_unequal_numbers_of_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, targets = states(4, 12, 6, 520)
    mask = np.arange(12) < np.array([12, 0, 3, 5])[:, None]
    one = value_and_gradients(hidden, head, targets, mask)
    monkeypatch.setattr(lm_head, "CHUNKS", 3)  # of the 12 tokens of a device
    monkeypatch.setattr(lm_head, "BLOCK", 128)  # of the 260 columns of a device
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        rows, vocabulary = (NamedSharding(mesh, P(*axes)) for axes in ((BATCH_AXES,), ("fsdp", "tensor")))
        eight = value_and_gradients(
            jax.device_put(hidden, rows),
            jax.device_put(head, vocabulary),
            jax.device_put(targets, rows),
            jax.device_put(mask, rows),
        )
    for mine, true in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-5, atol=1e-5)


def test_bfloat16_gradients_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the head, over chunks of one token: within bfloat16's rounding of the sum, not of every addition."""
    hidden, head, targets = (jnp.asarray(part) for part in states(1, 256, 4, 8))
    hidden, head = hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16)
    everywhere = np.ones(targets.shape, bool)

    def gradient(hidden: jax.Array, head: jax.Array) -> jax.Array:
        def total(head: jax.Array) -> jax.Array:
            return jnp.sum(token_logprobs(hidden, head, targets, everywhere)[0])

        return jax.jit(jax.grad(total))(head)

    exact = gradient(hidden.astype(jnp.float32), head.astype(jnp.float32))
    monkeypatch.setattr(lm_head, "CHUNK", 1)
    found = gradient(hidden, head)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-7, atol=0.1)


def test_cross_entropy_sums_the_targets_only() -> None:
    logprobs = np.array([[-1.0, -2.0, -np.inf], [-0.5, np.nan, -4.0]], np.float32)
    mask = np.array([[True, True, False], [False, False, True]])
    assert float(cross_entropy(logprobs, mask)) == 7.0
    assert float(cross_entropy(logprobs, np.zeros((2, 3), bool))) == 0.0


def test_gradients_through_the_head() -> None:
    """Of log-probabilities and entropies at once, against central differences of the plain loops."""
    hidden, head, targets = states(1, 4, 5, 9)
    weights = np.random.default_rng(11).normal(size=(2, *targets.shape))
    everywhere = np.ones(targets.shape, bool)

    def plain(hidden: Any, head: Any) -> float:
        logprobs, entropy = plain_logprobs(hidden, head, targets, 0.7, (8,))
        return float(np.sum(weights[0] * logprobs + weights[1] * entropy))

    def ours(hidden: jax.Array, head: jax.Array) -> jax.Array:
        logprobs, entropy = token_logprobs(
            hidden, head, targets, everywhere, temperature=0.7, suppressed_ids=(8,)
        )
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
