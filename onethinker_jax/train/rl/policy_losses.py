"""The policy losses of reinforcement learning, on packed rows: a sample's tokens lie side by side in one row.

Every loss is a *sum*, returned with the count that the caller divides the sums of a whole update by, so that an
update does not depend on how its samples were packed into rows and micro-batches. Quantities of a sample (its
length, the ratio of its probabilities) are sums over the row's tokens that carry its number.

What each of `PolicyLossSettings` does, where r = pi / pi_old of a token and A is the advantage of its sample y:

kind: a token's part, with [·] the value alone, through which no gradient flows:
    ppo    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)         PPO, arXiv 1707.06347; the two
           bounds of their own are DAPO's, arXiv 2503.14476
    gspo   the same with s = (pi(y) / pi_old(y))^(1/|y|) for r: the sequence is what is clipped
           (GSPO, arXiv 2507.18071: sequence aggregation, bounds 3e-4 and 4e-4)
    cispo  -[clip(r, 1 - clip_low, 1 + clip_high)] A log pi: every token keeps a gradient (CISPO of
           MiniMax-M1, arXiv 2506.13585, which sets no lower bound: clip_low = 1)
dual_clip: of ppo and gspo, for A < 0 the loss is at most -dual_clip A (arXiv 1912.09729); inf leaves it out.
aggregation: what the sum over tokens becomes:
    token     its mean over all tokens of the update (DAPO, arXiv 2503.14476)
    sequence  the mean over samples of each sample's mean (GRPO, arXiv 2402.03300)
    constant  the sum over samples x max_length: no sample's length matters (Dr. GRPO, arXiv 2503.20783)
kl_coefficient: adds it times an estimate of KL(pi || pi_ref) a token; with d = log pi_ref - log pi
    kl_estimator (http://joschu.net/blog/kl-approx.html) is k1 = -d, k2 = d^2 / 2 or k3 = exp(d) - d - 1.
    As terms of a loss, k2 has the gradient of KL(pi || pi_ref), k3 that of KL(pi_ref || pi), and k1
    none in expectation (arXiv 2506.09477).
kl_bias_correction: multiplies the estimate by r, whose gradient is then that of KL(pi || pi_ref) for k1
    and k3, on-policy or not (DeepSeek-V3.2, arXiv 2512.02556).
entropy_coefficient: subtracts it times the entropy of pi at the token (A3C, arXiv 1602.01783).
importance_sampling: corrects the policy term, where the sampler's pi_sampler is not quite the trainer's
    pi_old (arXiv 2110.00641), with w = [pi_old / pi_sampler] of the token, or of its whole sample ("sequence_"):
    *_truncate  times min(w, tis_cap)       (IMPALA, arXiv 1802.01561)
    *_mask      times w, or 0 outside [tis_floor, tis_cap]      (IcePop, arXiv 2510.18855)
    A token masked so still counts in the aggregation. With "none", pi_sampler is taken for pi_old.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.train.config.objective import PolicyLossSettings


@dataclass(frozen=True)
class PolicyLogprobs:
    """Log-probabilities of the target tokens, in nats: log pi, through which gradients flow, and the constants."""

    current: Float[Array, "B T"]  # log pi
    sampled: Float[Array, "B T"]  # log pi_sampler, noted when the token was drawn
    # log pi_old, the policy when the step began, which only importance_sampling needs; None where it is the policy
    # itself, as in a step's first update
    old: Float[Array, "B T"] | None = None
    reference: Float[Array, "B T"] | None = None  # log pi_ref; None leaves the KL term out


def policy_loss(
    policies: PolicyLogprobs,
    entropy: Float[Array, "B T"],
    *,
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    sample_index: Int[Array, "B T"],
    config: PolicyLossSettings,
    max_length: int = 1,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss summed over target tokens, and sums of what is worth watching.

    Of a token, with r = pi / pi_old, the advantage A of its sample, and what the settings choose (at the top of
    this file):

        w(pi_old, pi_sampler) kind(r, A) + kl_coefficient KL(pi || pi_ref) - entropy_coefficient H(pi)

    Args:
        policies: what each policy gave the target tokens.
        entropy: of pi, in nats; gradients flow into it.
        advantages: A of the token's sample, the same for all of its tokens.
        mask: the target tokens; nothing outside counts, whatever it is.
        sample_index: which sample a token is of; a sample is one run of equal numbers in a row.
        config: the kinds and constants above.
        max_length: the most tokens that a sample may have; only the "constant" aggregation reads it.

    Returns:
        The summed loss, and sums over tokens; of these, "count" is what the loss of the whole update is to be
        divided by: its tokens, its samples, or its samples x `max_length`.
    """
    samples = _Samples(mask, sample_index)
    logprobs, sampled, reference = policies.current, policies.sampled, policies.reference
    old = _old_logprobs(policies, config)
    gap = jnp.where(mask, logprobs - old, 0.0)
    log_ratio = jnp.clip(gap, -config.max_log_ratio, config.max_log_ratio)
    ratio = jnp.exp(log_ratio)
    if config.kind == "gspo":
        loss, low, high = _clipped(samples.ratios(gap, config.max_log_ratio), advantages, config)
    elif config.kind == "cispo":
        loss, low, high = _weighted(ratio, advantages, logprobs, config)
    else:
        loss, low, high = _clipped(ratio, advantages, config)
    sums = {
        "clipped_low": _masked_sum(low, mask),
        "clipped_high": _masked_sum(high, mask),
        "kl_sampled": _masked_sum(ratio - log_ratio - 1, mask),
        "entropy": _masked_sum(jax.lax.stop_gradient(entropy), mask),
    }
    if config.importance_sampling == "none":
        sums["mismatch"] = _masked_sum(jnp.abs(log_ratio), mask)
    else:
        weights, cut = _importance_weights(old, sampled, samples, config)
        loss *= weights
        sums |= {
            "mismatch": _masked_sum(jnp.abs(old - sampled), mask),
            "importance_weight": _masked_sum(weights, mask),
            "importance_cut": _masked_sum(cut, mask),
        }
    if reference is not None:
        kl = _kl_estimate(jnp.where(mask, reference - logprobs, 0.0), config)
        loss += config.kl_coefficient * (ratio * kl if config.kl_bias_correction else kl)
        sums["kl_reference"] = _masked_sum(kl, mask)
    if config.entropy_coefficient:
        loss -= config.entropy_coefficient * entropy
    if config.aggregation == "sequence":
        loss /= jnp.maximum(samples.lengths, 1)
    tokens = _masked_sum(jnp.ones_like(logprobs), mask)
    count = {
        "token": tokens,
        "sequence": samples.count,
        "constant": samples.count * max_length,
    }[config.aggregation]
    return _masked_sum(loss, mask), {**sums, "tokens": tokens, "count": count}


def _old_logprobs(policies: PolicyLogprobs, config: PolicyLossSettings) -> Float[Array, "B T"]:
    """Log pi_old: without importance sampling the sampler's."""
    if config.importance_sampling == "none":
        return policies.sampled
    return jax.lax.stop_gradient(policies.current) if policies.old is None else policies.old


def _kl_estimate(gap: Float[Array, "B T"], config: PolicyLossSettings) -> Float[Array, "B T"]:
    """`config.kl_estimator` of KL(pi || pi_ref) from gap = log pi_ref - log pi at tokens drawn from pi."""
    gap = jnp.clip(gap, -config.max_log_ratio, config.max_log_ratio)
    if config.kl_estimator == "k1":
        return -gap
    if config.kl_estimator == "k2":
        return gap**2 / 2
    return jnp.exp(gap) - gap - 1


def _importance_weights(
    old: Float[Array, "B T"], sampled: Float[Array, "B T"], samples: "_Samples", config: PolicyLossSettings
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """What the policy term of each token is multiplied by, and where that is not pi_old / pi_sampler itself."""
    level, what = config.importance_sampling.split("_")
    gap = jnp.where(samples.mask, old - sampled, 0.0)
    if level == "sequence":
        gap = samples.sums(gap)
    weights = jnp.exp(jnp.clip(gap, -config.max_log_ratio, config.max_log_ratio))
    cut = weights > config.tis_cap
    if what == "truncate":
        weights = jnp.minimum(weights, config.tis_cap)
    else:
        cut |= weights < config.tis_floor
        weights = jnp.where(cut, 0.0, weights)
    return jax.lax.stop_gradient(weights), cut


def _clipped(ratio: Array, advantages: Array, config: PolicyLossSettings) -> tuple[Array, Array, Array]:
    """The loss of PPO with its dual clip, and where a bound holds the ratio back."""
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    loss = jnp.maximum(-ratio * advantages, -clipped * advantages)
    loss = jnp.where(advantages < 0, jnp.minimum(loss, -config.dual_clip * advantages), loss)
    low = (ratio < 1 - config.clip_low) & (advantages < 0)
    return loss, low, (ratio > 1 + config.clip_high) & (advantages > 0)


def _weighted(
    ratio: Array, advantages: Array, logprobs: Array, config: PolicyLossSettings
) -> tuple[Array, Array, Array]:
    """The loss of CISPO, and where a bound holds the weight back."""
    low, high = 1 - config.clip_low, 1 + config.clip_high
    weights = jax.lax.stop_gradient(jnp.clip(ratio, low, high))
    return -weights * advantages * logprobs, ratio < low, ratio > high


class _Samples:
    """The samples of packed rows: runs of one number in `sample_index`; `mask` says which tokens count."""

    def __init__(self, mask: Array, sample_index: Array):
        starts = jnp.diff(sample_index, axis=1, prepend=-2) != 0
        self.mask = mask
        self._runs = jnp.cumsum(starts, axis=1) - 1  # the number of a token's run in its row
        self.lengths = self.sums(mask.astype(jnp.float32))  # at each token, the counted tokens of its sample
        self.count = jnp.sum(jnp.where(starts & (self.lengths > 0), 1.0, 0.0))

    def sums(self, values: Array) -> Array:
        """At each token the sum of the values of its sample; values are zero where the mask is false."""

        def of_row(values: Array, runs: Array) -> Array:
            return jax.ops.segment_sum(values, runs, len(runs), indices_are_sorted=True)[runs]

        return jax.vmap(of_row)(values, self._runs)

    def ratios(self, gap: Array, limit: float) -> Array:
        """At each token exp of the mean `gap` over its sample, clamped to +-limit: GSPO's ratio."""
        return jnp.exp(jnp.clip(self.sums(gap) / jnp.maximum(self.lengths, 1), -limit, limit))


def _masked_sum(values: Array, mask: Array) -> Array:
    return jnp.sum(jnp.where(mask, values, 0.0))
