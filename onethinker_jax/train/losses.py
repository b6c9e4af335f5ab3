"""Log-probabilities, which every loss is made of, and the cross entropy.  Nothing of size [B, T, V] is ever held.

Log-probabilities run the output head over chunks of tokens in float32 and recompute them in the backward
pass.  Losses are *sums* over target tokens: the caller divides by the update's token count, so an update
does not depend on how its tokens were packed into micro-batches.  ``policy_losses.py`` has those of RL.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.sampling import policy_logits
from onethinker_jax.model.sharding import BATCH_AXES, context_mesh

CHUNK = 512  # tokens of a row whose logits are held at once


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
        # 0 log 0 = 0, in the gradient too: a forbidden id's log-probability is -inf.
        return chosen, -jnp.sum(weights * jnp.where(weights > 0, normal, 0.0), axis=-1)

    parts = (
        hidden.reshape(rows, length // chunk, chunk, width).swapaxes(0, 1),
        targets.reshape(rows, length // chunk, chunk).swapaxes(0, 1),
    )
    logprobs, entropy = jax.lax.map(jax.checkpoint(score), parts)
    return logprobs.swapaxes(0, 1).reshape(rows, length), entropy.swapaxes(0, 1).reshape(rows, length)


def cross_entropy(logprobs: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
    """-sum of log pi(target) over the target tokens."""
    return -jnp.sum(jnp.where(mask, logprobs, 0.0))
