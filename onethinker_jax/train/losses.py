"""Losses and the log-probabilities they are made of.  Nothing of size [B, T, V] is ever held.

Log-probabilities run the output head over chunks of tokens in float32 and recompute them in the backward
pass.  Losses are *sums* over target tokens: the caller divides by the update's token count, so an update
does not depend on how its tokens were packed into micro-batches.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.generate import policy_logits
from onethinker_jax.model.sharding import BATCH_AXES, context_mesh

CHUNK = 256  # tokens of a row whose logits are held at once


def token_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    *,
    temperature: float = 1.0,
    forbidden_ids: tuple[int, ...] = (),
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """log pi(target) and the entropy of pi at every position, float32, in nats.

    ``temperature`` and ``forbidden_ids`` make pi the distribution that was sampled from.
    """
    score = partial(_score_chunks, temperature=temperature, forbidden_ids=forbidden_ids)
    mesh = context_mesh()
    if mesh is not None and mesh.size > 1:
        # Each device scores its own rows: the head is gathered once, not for every chunk, and so is its gradient.
        rows = PartitionSpec(BATCH_AXES)
        score = jax.shard_map(
            score,
            mesh=mesh,
            in_specs=(rows, PartitionSpec(), rows),
            out_specs=rows,
            axis_names=set(BATCH_AXES),
            check_vma=False,
        )
    return score(hidden, head, targets)


def _score_chunks(
    hidden: Array, head: Array, targets: Array, *, temperature: float, forbidden_ids: tuple[int, ...]
) -> tuple[Array, Array]:
    rows, length, width = hidden.shape
    dtype, head = head.dtype, head.astype(jnp.float32)  # so that the chunks' gradients add up in float32
    chunk = CHUNK if length % CHUNK == 0 else length

    def score(part: tuple[Array, Array]) -> tuple[Array, Array]:
        states, ids = part
        logits = jnp.matmul(states, head.astype(dtype), preferred_element_type=jnp.float32)
        logits = policy_logits(logits, temperature=temperature, forbidden_ids=forbidden_ids)
        normal = jax.nn.log_softmax(logits, axis=-1)
        chosen = jnp.take_along_axis(normal, ids[..., None], axis=-1)[..., 0]
        weights = jnp.exp(normal)
        return chosen, -jnp.sum(jnp.where(weights > 0, weights * normal, 0.0), axis=-1)

    parts = (
        hidden.reshape(rows, length // chunk, chunk, width).swapaxes(0, 1),
        targets.reshape(rows, length // chunk, chunk).swapaxes(0, 1),
    )
    logprobs, entropy = jax.lax.map(jax.checkpoint(score), parts)
    return logprobs.swapaxes(0, 1).reshape(rows, length), entropy.swapaxes(0, 1).reshape(rows, length)


def cross_entropy(logprobs: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
    """-sum of log pi(target) over the target tokens."""
    return -jnp.sum(jnp.where(mask, logprobs, 0.0))


@dataclass(frozen=True)
class PolicyLossConfig:
    """The clipped objective's constants.

    ``clip_low`` / ``clip_high``: the ratio is clipped to [1 - low, 1 + high] (DAPO, arXiv 2503.14476).
    ``dual_clip``: for a negative advantage the loss is at most -dual_clip * A (arXiv 1912.09729).
    ``kl_coefficient``: weight of the k3 estimate exp(d) - d - 1, d = log pi_ref - log pi.
    """

    clip_low: float = 0.2
    clip_high: float = 0.3
    dual_clip: float = 3.0
    kl_coefficient: float = 0.0
    max_log_ratio: float = 20.0


def policy_loss(
    logprobs: Float[Array, "B T"],
    sampled: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    reference: Float[Array, "B T"] | None,
    config: PolicyLossConfig,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The clipped policy loss summed over target tokens, and sums of what is worth watching.

    With r = pi / pi_sampled: -min(r A, clip(r, 1 - low, 1 + high) A), and for A < 0 no more than
    -dual_clip A; plus kl_coefficient * k3.  The log-ratio is clamped to +-max_log_ratio.
    """
    log_ratio = jnp.clip(
        jnp.where(mask, logprobs - sampled, 0.0), -config.max_log_ratio, config.max_log_ratio
    )
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    loss = jnp.maximum(-ratio * advantages, -clipped * advantages)
    loss = jnp.where(advantages < 0, jnp.minimum(loss, -config.dual_clip * advantages), loss)
    sums = {
        "clipped_low": _masked_sum((ratio < 1 - config.clip_low) & (advantages < 0), mask),
        "clipped_high": _masked_sum((ratio > 1 + config.clip_high) & (advantages > 0), mask),
        "kl_sampled": _masked_sum(ratio - log_ratio - 1, mask),
        "mismatch": _masked_sum(jnp.abs(log_ratio), mask),
    }
    if reference is not None:
        gap = jnp.clip(
            jnp.where(mask, reference - logprobs, 0.0), -config.max_log_ratio, config.max_log_ratio
        )
        kl = jnp.exp(gap) - gap - 1
        loss += config.kl_coefficient * kl
        sums["kl_reference"] = _masked_sum(kl, mask)
    return _masked_sum(loss, mask), sums


def _masked_sum(values: Array, mask: Array) -> Array:
    return jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0.0))
