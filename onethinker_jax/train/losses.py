"""Log-probabilities, which every loss is made of, and the cross entropy.  Nothing of size [B, T, V] is ever held.

Only target tokens go through the output head: a device moves its own to the front, scores them in chunks, in
float32, and skips the chunks that are left; the backward pass makes a chunk's logits anew.  Losses are *sums* over
target tokens: the caller divides by the update's token count, so an update does not depend on how its tokens
were packed into micro-batches.  ``policy_losses.py`` has those of RL.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.sampling import policy_logits
from onethinker_jax.model.sharding import BATCH_AXES, constrain, context_mesh
from onethinker_jax.model.skipping_scan import skipping_scan

CHUNK = 512  # tokens of a device whose logits are held at once


def token_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    temperature: float = 1.0,
    forbidden_ids: tuple[int, ...] = (),
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """log pi(target) and the entropy of pi where ``mask`` is true, elsewhere 0; float32, in nats.

    ``temperature`` and ``forbidden_ids`` make pi the distribution that was sampled from.
    """
    mesh = context_mesh()
    if mesh is None or mesh.size == 1:
        return _score(_Policy(temperature, forbidden_ids, ()), hidden, head, targets, mask)
    # Each device scores its own rows: the head is gathered once, not for every chunk, and so is its gradient.
    rows = PartitionSpec(BATCH_AXES)
    score = jax.shard_map(
        partial(_score, _Policy(temperature, forbidden_ids, BATCH_AXES)),
        mesh=mesh,
        in_specs=(rows, PartitionSpec(), rows, rows),
        out_specs=rows,
        axis_names=set(BATCH_AXES),
        check_vma=False,
    )
    hidden, targets, mask = (
        constrain(x, BATCH_AXES) for x in (hidden, targets, mask)
    )  # whole on every device
    return score(hidden, head, targets, mask)


@dataclass(frozen=True)
class _Policy:
    """What is made of logits, and the mesh axes whose devices score rows of their own."""

    temperature: float
    forbidden_ids: tuple[int, ...]
    axes: tuple[str, ...]

    def __call__(self, logits: Array) -> Array:
        return policy_logits(logits, temperature=self.temperature, forbidden_ids=self.forbidden_ids)


class _Front:
    """The target tokens of a device, moved to the front of whole chunks, and back."""

    def __init__(self, mask: Bool[Array, "B T"], axes: tuple[str, ...]):
        flat = mask.reshape(-1)
        self.chunk = min(CHUNK, flat.size)
        order = jnp.pad(jnp.argsort(~flat, stable=True), (0, -flat.size % self.chunk))
        self.places = order.reshape(-1, self.chunk)  # int32 [chunks, C], of a token in the flattened rows
        count = flat.sum()
        self._target = jnp.arange(order.size).reshape(self.places.shape) < count
        # All devices go through as many chunks as the one with most targets: what they send each other stays in step.
        self._count = jax.lax.pmax(count, axes) if axes else count
        self._mask, self._number = mask, jnp.maximum(jnp.cumsum(flat) - 1, 0).reshape(mask.shape)

    def take(self, x: Array) -> Array:
        """[B, T] -> [chunks, C], 0 where there is no target."""
        return jnp.where(self._target, x.reshape(-1)[self.places], 0)

    def back(self, x: Array) -> Array:
        """[chunks, C, ...] -> [B, T, ...], 0 where there is no target."""
        mask = self._mask.reshape(*self._mask.shape, *(1,) * (x.ndim - 2))
        return jnp.where(mask, x.reshape(-1, *x.shape[2:])[self._number], 0)

    def scan(self, body: Callable[..., Any], carry: Any, nothing: Any, parts: Any) -> Any:
        """Over the chunks that have a target."""
        needed = jnp.arange(len(self.places)) * self.chunk < self._count
        return skipping_scan(body, carry, nothing, parts, needed)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score(policy: _Policy, hidden: Array, head: Array, targets: Array, mask: Array) -> tuple[Array, Array]:
    return _forward(policy, hidden, head, targets, mask)[0]


def _forward(
    policy: _Policy, hidden: Array, head: Array, targets: Array, mask: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    front = _Front(mask, policy.axes)

    def chunk(_: None, places: Array) -> tuple[None, tuple[Array, ...]]:
        states, ids = hidden.reshape(-1, hidden.shape[-1])[places], targets.reshape(-1)[places]
        scores = policy(jnp.matmul(states, head, preferred_element_type=jnp.float32))
        top = scores.max(-1, keepdims=True)
        scores -= top
        weights = jnp.exp(scores)
        total = weights.sum(-1)
        chosen = jnp.take_along_axis(scores, ids[:, None], axis=-1)[:, 0]
        # 0 log 0 = 0: a forbidden id's score is -inf.
        mean = jnp.sum(weights * jnp.where(weights > 0, scores, 0.0), axis=-1) / total
        normal = jnp.log(total)
        return None, (chosen - normal, normal - mean, top[:, 0] + normal)

    nothing = (jnp.zeros(front.chunk, jnp.float32),) * 3
    _, (logprobs, entropy, logsumexp) = front.scan(chunk, None, nothing, front.places)
    saved = (hidden, head, targets, mask, logsumexp, entropy)
    return (front.back(logprobs), front.back(entropy)), saved


def _backward(
    policy: _Policy, saved: tuple[Array, ...], gradients: tuple[Array, Array]
) -> tuple[Array | None, ...]:
    hidden, head, targets, mask, logsumexp, entropy = saved
    front = _Front(mask, policy.axes)
    chosen_slope, entropy_slope = (front.take(gradient) for gradient in gradients)

    def chunk(head_gradient: Array, parts: tuple[Array, ...]) -> tuple[Array, Array]:
        places, logsumexp, entropy, chosen_slope, entropy_slope = parts
        states, ids = hidden.reshape(-1, hidden.shape[-1])[places], targets.reshape(-1)[places]
        logits = jnp.matmul(states, head, preferred_element_type=jnp.float32)
        scores, pull = jax.vjp(policy, logits)
        normal = scores - logsumexp[:, None]
        weights = jnp.exp(normal)
        normal = jnp.where(weights > 0, normal, 0.0)
        slope = -weights * (chosen_slope[:, None] + entropy_slope[:, None] * (normal + entropy[:, None]))
        slope += jnp.where(ids[:, None] == jnp.arange(head.shape[1]), chosen_slope[:, None], 0.0)
        slope = pull(slope)[0].astype(head.dtype)
        head_gradient += jnp.matmul(states.T, slope, preferred_element_type=jnp.float32)
        states_gradient = jnp.matmul(slope, head.T, preferred_element_type=jnp.float32)
        return head_gradient, states_gradient.astype(hidden.dtype)

    parts = (front.places, logsumexp, entropy, chosen_slope, entropy_slope)
    zeros = jnp.zeros(head.shape, jnp.float32)  # the chunks' gradients add up in float32
    nothing = jnp.zeros((front.chunk, hidden.shape[-1]), hidden.dtype)
    head_gradient, hidden_gradient = front.scan(chunk, zeros, nothing, parts)
    return front.back(hidden_gradient), head_gradient.astype(head.dtype), None, None


_score.defvjp(_forward, _backward)


def cross_entropy(logprobs: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
    """-sum of log pi(target) over the target tokens."""
    return -jnp.sum(jnp.where(mask, logprobs, 0.0))
