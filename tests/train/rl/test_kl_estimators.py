"""Which divergence the gradient of each KL estimate is of, in expectation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.rl import policy_losses
from onethinker_jax.train.rl.policy_losses import PolicyLogprobs

policy_loss: Any = policy_losses.policy_loss


@pytest.mark.parametrize(
    ("estimator", "corrected", "on_policy"),
    [("k2", False, True), ("k3", False, True), ("k1", False, True)]
    + [(estimator, True, on) for estimator in ("k1", "k3") for on in (True, False)],
)
def test_what_the_gradient_of_a_kl_estimate_is_of(estimator: Any, corrected: bool, on_policy: bool) -> None:
    """Expectations over all six actions of a state: no sampling error."""
    rng = np.random.default_rng(2)
    logits, reference, behind = (jnp.asarray(rng.normal(size=6), jnp.float32) for _ in range(3))
    sampler = jax.nn.log_softmax(logits if on_policy else behind)
    anchor = jax.nn.log_softmax(reference)
    config = PolicyLossSettings(
        kl_coefficient=1.0, kl_estimator=estimator, kl_bias_correction=corrected, dual_clip=math.inf
    )

    def expected(logits: jax.Array) -> jax.Array:
        def of_action(logprob: Any, sampled: Any, anchor: Any) -> Any:
            given = {"entropy": 0.0, "advantages": 0.0, "mask": True, "sample_index": 0}
            logprob, sampled, anchor = (value[None, None] for value in (logprob, sampled, anchor))
            return policy_loss(
                PolicyLogprobs(logprob, sampled, reference=anchor),
                **{name: jnp.asarray(value)[None, None] for name, value in given.items()},
                config=config,
            )[0]

        return jnp.sum(jnp.exp(sampler) * jax.vmap(of_action)(jax.nn.log_softmax(logits), sampler, anchor))

    def divergence(first: jax.Array, second: jax.Array) -> jax.Array:
        first, second = jax.nn.log_softmax(first), jax.nn.log_softmax(second)
        return jnp.sum(jnp.exp(first) * (first - second))

    truth = jax.grad(lambda logits: divergence(logits, reference))(logits)
    if not corrected:
        backward = jax.grad(lambda logits: divergence(reference, logits))(logits)
        truth = {"k1": jnp.zeros(6), "k2": truth, "k3": backward}[estimator]
    else:
        assert float(expected(logits)) == pytest.approx(float(divergence(logits, reference)), rel=1e-4)
    np.testing.assert_allclose(jax.grad(expected)(logits), truth, atol=1e-5)
