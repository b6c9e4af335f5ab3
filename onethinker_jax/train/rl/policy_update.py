"""Scored groups to a policy update: groups packed into micro-batches, and the compiled loss of one.

Departure from the released code: a prompt and its samples are one packed segment, so the prompt and its media
are computed once an update and not G times.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from onethinker_jax.data_pipeline.batches.packing import Batch, empty_batch, pack_groups
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.lm_head import token_logprobs
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.policy_losses import PolicyLogprobs, policy_loss
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.state import Sums, Update, in_dtype, make_update


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PolicyBatch:
    """Packed groups with what the policy loss needs of every target token."""

    batch: Batch
    advantages: jax.Array | np.ndarray  # float32 [B, T]
    sampled: jax.Array | np.ndarray  # float32 [B, T], log-probability when it was sampled
    sample_index: jax.Array | np.ndarray  # int32 [B, T], the number of its sample, -1 none
    # float32 [B, T], log-probability when the step began; None: now's
    old: jax.Array | np.ndarray | None = None


def policy_batches(
    groups: Sequence[Group],
    advantages: np.ndarray,
    settings: RLSettings,
    old: Sequence[np.ndarray] | None = None,
) -> list[PolicyBatch]:
    """The groups packed into micro-batches of one shape, each target token with its sample's advantage.

    `old` is what `by_sample` gave of the groups' samples, all of them in order, when the step began.

    With `settings.loss.overlong` "mask" a sample that was cut off is left out: it counts in its group's mean
    reward but not in the loss (overlong filtering, DAPO, arXiv 2503.14476).
    """
    shape = settings.batch
    nothing = np.zeros(0, np.int32)
    trained = [
        [
            ids if ended or settings.loss.overlong != "mask" else nothing
            for ids, ended in zip(group.samples.tokens, group.samples.ended, strict=True)
        ]
        for group in groups
    ]
    packed = pack_groups(
        [(group.prompt, tokens) for group, tokens in zip(groups, trained, strict=True)],
        rows=shape.rows,
        tokens=shape.tokens,
        patches=shape.patches,
    )
    flat, width = advantages.reshape(-1), settings.rollout.max_new_tokens
    sampled = _table([values for group in groups for values in group.samples.logprobs], width)
    before = None if old is None else _table(old, width)
    batches = []
    for part in packed:
        index, offset = part.sample_index, part.sample_offset
        batches.append(
            PolicyBatch(
                part.batch,
                np.where(index >= 0, flat[index], 0.0).astype(np.float32),
                np.where(index >= 0, sampled[index, offset], 0.0),
                index,
                None if before is None else np.where(index >= 0, before[index, offset], 0.0),
            )
        )
    return batches


class Minibatches:
    """The groups of a step in equal parts, each of them packed into micro-batches when it is asked for."""

    def __init__(
        self,
        groups: Sequence[Group],
        advantages: np.ndarray,
        settings: RLSettings,
        patch_values: int,
        hosts: Hosts,
    ):
        """`advantages` [groups, G]; `patch_values` are the numbers of a patch."""
        self._groups, self._advantages, self._settings = groups, advantages, settings
        self._patch_values, self._hosts = patch_values, hosts
        self.size = len(groups) // settings.num_minibatches
        """Groups of a minibatch."""
        self.samples = self.size * settings.rollout.group_size
        """Of a minibatch."""

    def part(self, number: int) -> slice:
        """Which groups are in a minibatch."""
        return slice(number * self.size, (number + 1) * self.size)

    def batches(self, number: int, old: Sequence[np.ndarray] | None = None) -> list[PolicyBatch]:
        """The micro-batches of a minibatch: a process that needs fewer than another has empty ones too.

        `old` is that of `UpdateProgress`.
        """
        part, first = self.part(number), number * self.samples
        mine = None if old is None else old[first : first + self.samples]
        batches = policy_batches(self._groups[part], self._advantages[part], self._settings, mine)
        missing = max(self._hosts.gather(len(batches))) - len(batches)
        empty = empty_policy_batch(self._settings, self._patch_values)
        if old is not None:
            empty = replace(empty, old=empty.sampled)
        return [*batches, *[empty] * missing]


def by_sample(rows: np.ndarray, sample_index: np.ndarray) -> dict[int, np.ndarray]:
    """{number of a sample: float32 [tokens]} of a micro-batch's [B, T] `rows`, a value a target token."""
    return {
        int(number): rows[sample_index == number] for number in np.unique(sample_index[sample_index >= 0])
    }


def own_rows(rows: jax.Array) -> np.ndarray:
    """This process's rows of an array that lies over the devices of all, in their order."""
    parts = {shard.index[0].start or 0: np.asarray(shard.data) for shard in rows.addressable_shards}
    return np.concatenate([parts[start] for start in sorted(parts)])


def _table(values: Sequence[np.ndarray], width: int) -> np.ndarray:
    """float32 [samples, width], the values of each sample first in its row."""
    table = np.zeros((len(values), width), np.float32)
    for number, of_sample in enumerate(values):
        table[number, : len(of_sample)] = of_sample
    return table


def empty_policy_batch(settings: RLSettings, patch_values: int) -> PolicyBatch:
    """A micro-batch of padding alone, its patches of `patch_values` numbers each."""
    shape = settings.batch
    batch = empty_batch(
        rows=shape.rows, tokens=shape.tokens, patches=shape.patches, patch_values=patch_values
    )
    zeros = np.zeros(batch.targets.shape, np.float32)
    return PolicyBatch(batch, zeros, zeros, np.full(zeros.shape, -1, np.int32))


def rl_update(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    settings: RLSettings,
    sampling: SamplingConfig,
    *,
    stop_after: int = 0,
) -> Update:
    """The compiled update of RL; `stop_after` is that of `make_update`.

    Raises ValueError when the sampler leaves out tokens: the loss would take the model for the distribution that
    was sampled from, and tokens that leave or enter the truncated one have no ratio of probabilities.
    """
    if sampling.truncated:
        raise ValueError(
            "RL cannot train on samples of a truncated distribution: top_k, top_p and min_p must be off"
        )
    loss = partial(
        rl_loss,
        policy.graphdef,
        objective=settings.loss,
        max_length=settings.rollout.max_new_tokens,
        sampling=sampling,
    )
    return make_update(loss, optimizer, compute_dtype=policy.compute_dtype, stop_after=stop_after)


def rl_logprobs(policy: Policy, sampling: SamplingConfig) -> Callable[[nnx.State, PolicyBatch], jax.Array]:
    """A compiled function (params, batch) -> float32 [B, T], the log-probability of every target."""

    def logprobs(params: nnx.State, batch: PolicyBatch) -> jax.Array:
        return _logprobs(policy.graphdef, in_dtype(params, policy.compute_dtype), batch, sampling)[0]

    return jax.jit(logprobs)


def rl_loss(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    reference: nnx.State | None,
    batch: PolicyBatch,
    *,
    objective: PolicyLossSettings,
    max_length: int,
    sampling: SamplingConfig,
) -> tuple[jax.Array, Sums]:
    """Summed policy loss of a micro-batch; log-probabilities are of the distribution that was sampled from."""
    logprobs, entropy = _logprobs(graphdef, params, batch, sampling)
    anchor = None
    if reference is not None:
        anchor = jax.lax.stop_gradient(_logprobs(graphdef, reference, batch, sampling)[0])
    old = None if batch.old is None else jnp.asarray(batch.old)
    return policy_loss(
        PolicyLogprobs(logprobs, jnp.asarray(batch.sampled), old, anchor),
        entropy,
        advantages=jnp.asarray(batch.advantages),
        mask=jnp.asarray(batch.batch.target_mask),
        sample_index=jnp.asarray(batch.sample_index),
        config=objective,
        max_length=max_length,
    )


def _logprobs(
    graphdef: nnx.GraphDef, params: nnx.State, batch: PolicyBatch, sampling: SamplingConfig
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of every target, and entropy."""
    model: Qwen3VL = nnx.merge(graphdef, params)
    return token_logprobs(
        model(batch.batch.inputs),
        model.head(),
        jnp.asarray(batch.batch.targets),
        jnp.asarray(batch.batch.target_mask),
        temperature=sampling.temperature,
        suppressed_ids=sampling.suppressed_ids,
        head_is_trained=model.lora is None,
    )
