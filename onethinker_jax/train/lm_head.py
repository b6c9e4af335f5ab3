"""The LM head: log-probabilities of target tokens and the entropy there, without logits of size [B, T, V].

A device computes logits for its target tokens alone: it moves them to the front, cuts them into chunks of equal size
and skips the chunks that hold none. For a chunk it goes over the vocabulary block by block, in float32, with
FlashAttention's online softmax; the backward pass computes the logits again. What is made of the log-probabilities is
in `sft.py` and `rl/policy_losses.py`: losses are *sums* over target tokens, which the caller divides by the
update's token count, so that an update does not depend on how its tokens were packed into micro-batches.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from onethinker_jax.model.attention.online_softmax import NEGATIVE, advance
from onethinker_jax.model.attention.skipping_scan import skipping_scan
from onethinker_jax.model.generation.sampling import policy_logits
from onethinker_jax.model.sharding import BATCH_AXES, constrain, context_mesh

# A device holds the logits of one chunk of its tokens times one block of its columns of the head: at most 8 MiB in
# float32, which its caches can hold.
CHUNK = 2048  # most tokens
CHUNKS = 8  # least number of chunks, so that those without a target can be left out
BLOCK = 1024  # most columns
LANES = 128  # columns that a TPU reads at once: where there are several blocks, their width is a multiple


def token_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    temperature: float = 1.0,
    suppressed_ids: tuple[int, ...] = (),
    head_is_trained: bool = True,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Gives log pi(target) and the entropy of pi where `mask` is true, elsewhere 0; float32, in nats.

    `temperature` and `suppressed_ids` make pi the distribution that was sampled from. The head's gradient is zero
    where it is not trained, and is not computed.
    """
    policy = _Policy(temperature, suppressed_ids, head_is_trained=head_is_trained)
    mesh = context_mesh()
    if mesh is None or mesh.size == 1:
        return _score(policy, hidden, head, targets, mask)
    # Each device scores its own rows by its own columns of the head, which are gathered once, not for every chunk.
    rows = PartitionSpec(BATCH_AXES)
    score = jax.shard_map(
        partial(_score, replace(policy, axis="tensor")),
        mesh=mesh,
        in_specs=(rows, PartitionSpec(None, "tensor"), rows, rows),
        out_specs=rows,
        check_vma=False,
    )
    hidden, targets, mask = (
        constrain(x, BATCH_AXES) for x in (hidden, targets, mask)
    )  # whole on every device
    return score(hidden, head, targets, mask)


@dataclass(frozen=True)
class _Policy:
    """What is made of logits; and the mesh axis, if any, whose devices have columns of the head of their own."""

    temperature: float
    suppressed_ids: tuple[int, ...]
    axis: str | None = None
    head_is_trained: bool = True


class _Front:
    """The target tokens of a device, moved to the front of whole chunks, and back."""

    def __init__(self, mask: Bool[Array, "B T"]):
        flat = mask.reshape(-1)
        self.chunk = min(CHUNK, -(-flat.size // CHUNKS))
        order = jnp.pad(jnp.argsort(~flat, stable=True), (0, -flat.size % self.chunk))
        self.places = order.reshape(-1, self.chunk)  # int32 [chunks, C], of a token in the flattened rows
        self._count = flat.sum()
        self._target = jnp.arange(order.size).reshape(self.places.shape) < self._count
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


class _Blocks:
    """A device's columns of the head, in as few blocks as may be. The last begins early enough to be a whole one."""

    def __init__(self, head: Float[Array, "D v"], policy: _Policy):
        self._head, self._policy = head, policy
        self._size = head.shape[1]
        self._count = -(-self._size // BLOCK)
        share = -(-self._size // self._count)
        self._width = min(-(-share // LANES) * LANES, self._size)
        self._first = 0 if policy.axis is None else jax.lax.axis_index(policy.axis) * self._size

    def start(self, number: Array) -> Array:
        """The block's first column."""
        return jnp.minimum(number * self._width, self._size - self._width)

    def columns(self, head: Float[Array, "D v"], number: Array) -> Float[Array, "D W"]:
        return jax.lax.dynamic_slice_in_dim(head, self.start(number), self._width, axis=1)

    def scores(
        self, states: Float[Array, "C D"], number: Array, targets: Int[Array, " C"]
    ) -> tuple[Float[Array, "C W"], Bool[Array, "C W"]]:
        """Float32 logits of the policy, NEGATIVE where suppressed or in the block before; and which is the target's."""
        logits = jnp.matmul(states, self.columns(self._head, number), preferred_element_type=jnp.float32)
        place = self.start(number) + jnp.arange(self._width)
        ids = self._first + place
        mine = place >= number * self._width
        suppressed = jnp.isin(ids, jnp.array(self._policy.suppressed_ids, jnp.int32))
        scores = policy_logits(logits, temperature=self._policy.temperature, suppressed_ids=())
        return jnp.where(mine & ~suppressed, scores, NEGATIVE), mine & (ids == targets[:, None])

    def loop(self, body: Callable[[Array, Any], Any], carry: Any) -> Any:
        """`body(number, carry)` for every block."""
        if self._count == 1:
            return body(jnp.int32(0), carry)
        return jax.lax.fori_loop(0, self._count, body, carry)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score(policy: _Policy, hidden: Array, head: Array, targets: Array, mask: Array) -> tuple[Array, Array]:
    return _forward(policy, hidden, head, targets, mask)[0]


def _forward(
    policy: _Policy, hidden: Array, head: Array, targets: Array, mask: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    front, blocks = _Front(mask), _Blocks(head, policy)

    def chunk(_: None, places: Array) -> tuple[None, tuple[Array, ...]]:
        states, ids = hidden.reshape(-1, hidden.shape[-1])[places], targets.reshape(-1)[places]

        def block(number: Array, so_far: tuple[Array, ...]) -> tuple[Array, ...]:
            m, l, mean, chosen = so_far
            scores, hit = blocks.scores(states, number, ids)
            highest, total, alpha, p = advance(m, l, scores)
            mean = alpha * (mean + (m - highest) * l) + (p * (scores - highest[:, None])).sum(-1)
            return highest, total, mean, chosen + jnp.where(hit, scores, 0.0).sum(-1)

        return None, blocks.loop(block, nothing)

    zeros = jnp.zeros(front.chunk, jnp.float32)
    nothing = (zeros + NEGATIVE, zeros, zeros, zeros)
    _, (m, l, mean, chosen) = front.scan(chunk, None, nothing, front.places)
    if policy.axis is not None:
        highest = jax.lax.pmax(m, policy.axis)
        alpha = jnp.exp(m - highest)
        parts = alpha * l, alpha * (mean + (m - highest) * l), chosen
        m, (l, mean, chosen) = highest, jax.lax.psum(parts, policy.axis)
    l = jnp.maximum(l, 1.0)  # 0 in chunks without a target
    normal = jnp.log(l)
    logprobs, entropy, logsumexp = chosen - m - normal, normal - mean / l, m + normal
    saved = (hidden, head, targets, mask, logsumexp, entropy)
    return (front.back(logprobs), front.back(entropy)), saved


def _backward(
    policy: _Policy, saved: tuple[Array, ...], gradients: tuple[Array, Array]
) -> tuple[Array | None, ...]:
    hidden, head, targets, mask, logsumexp, entropy = saved
    front, blocks = _Front(mask), _Blocks(head, policy)
    if (
        policy.axis is not None
    ):  # the forward pass summed over these devices: each needs the sum of their gradients
        gradients = jax.lax.psum(gradients, policy.axis)
    scale = policy.temperature or 1.0  # scores are logits over it
    chosen_slope, entropy_slope = (front.take(gradient) / scale for gradient in gradients)

    def chunk(head_gradient: Array, parts: tuple[Array, ...]) -> tuple[Array, Array]:
        places, *numbers = parts
        states, ids = hidden.reshape(-1, hidden.shape[-1])[places], targets.reshape(-1)[places]
        logsumexp, entropy, chosen_slope, entropy_slope = (x[:, None] for x in numbers)

        def block(number: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
            head_gradient, states_gradient = so_far
            scores, hit = blocks.scores(states, number, ids)
            normal = scores - logsumexp
            slope = -jnp.exp(normal) * (chosen_slope + entropy_slope * (normal + entropy))
            slope = (slope + jnp.where(hit, chosen_slope, 0.0)).astype(head.dtype)
            if policy.head_is_trained:
                added = jnp.matmul(states.T, slope, preferred_element_type=jnp.float32)
                columns = blocks.columns(head_gradient, number) + added
                head_gradient = jax.lax.dynamic_update_slice_in_dim(
                    head_gradient, columns, blocks.start(number), axis=1
                )
            back = jnp.matmul(slope, blocks.columns(head, number).T, preferred_element_type=jnp.float32)
            return head_gradient, states_gradient + back

        states_gradient = jnp.zeros(states.shape, jnp.float32)
        head_gradient, states_gradient = blocks.loop(block, (head_gradient, states_gradient))
        return head_gradient, states_gradient.astype(hidden.dtype)

    parts = (front.places, logsumexp, entropy, chosen_slope, entropy_slope)
    # The chunks' gradients add up in float32.
    zeros = jnp.zeros(head.shape if policy.head_is_trained else (), jnp.float32)
    nothing = jnp.zeros((front.chunk, hidden.shape[-1]), hidden.dtype)
    head_gradient, hidden_gradient = front.scan(chunk, zeros, nothing, parts)
    head_gradient = head_gradient.astype(head.dtype) if policy.head_is_trained else None
    return front.back(hidden_gradient), head_gradient, None, None


_score.defvjp(_forward, _backward)
