"""The policy gradient of a set of groups, cut into parts: by task, and by how hard the groups are.

Under a method the gradient of the set is a sum over its groups, each weighed by its samples' advantages. A part is the
sum over some of them, divided by what the whole set's is divided by, so that the parts of one cut add up to the whole.
The loss, its packing and the advantages are the trainer's own. The sampler's policy is the trainer's, so that no ratio
is clipped: this is the gradient of a step's first update, before gradient clipping and the optimiser.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from flax import nnx

from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.advantages import TaskMoments, init_moments
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.learner import advantage_config, group_advantages
from onethinker_jax.train.rl.policy_update import policy_batches
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.state import Update

BINS = ("0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1")
"""Bins of difficulty: the group's mean accuracy as a share of its task's largest, the upper edge left out."""


def bin_of(accuracy: float) -> str:
    """The bin of a group's mean accuracy in [0, 1]."""
    return BINS[min(int(accuracy * len(BINS)), len(BINS) - 1)]


@dataclass
class Part:
    """A part of the gradient: the sum over some groups, how many they are, and the sum of their mean |advantage|."""

    gradient: np.ndarray  # float64 [parameters]
    groups: int = 0
    advantages: float = 0.0


@dataclass
class Cuts:
    """The gradient as a whole, and its two cuts."""

    total: np.ndarray  # float64 [parameters]
    tasks: dict[str, Part] = field(default_factory=dict)
    bins: dict[str, Part] = field(default_factory=dict)


def warmed_moments(steps: Sequence[Sequence[Group]], settings: RLSettings, scorer: Scorer) -> TaskMoments:
    """The task moments after the rewards of these steps, in their order."""
    moments = init_moments(len(MOMENTS))
    for groups in steps:
        stats = [group.stats for group in groups]
        _, moments = group_advantages(stats, moments, advantage_config(settings, scorer), settings)
    return moments


def cut_gradient(
    policy: Policy,
    params: nnx.State,
    update: Update,
    groups: Sequence[Group],
    advantages: np.ndarray,
    settings: RLSettings,
) -> Cuts:
    """The gradient of the loss that `settings` ask for, whole and by task and bin.

    Args:
        policy: whose gradient it is.
        params: its parameters, those that the groups were sampled with.
        update: what `rl_update` compiles for `settings.loss`.
        groups: scored.
        advantages: float32 [groups, G].
        settings: of the method.
    """
    cells: dict[tuple[str, str], list[int]] = {}
    for number, group in enumerate(groups):
        cells.setdefault((str(group.task), bin_of(group.stats.accuracy)), []).append(number)
    zeros = np.zeros(sum(leaf.size for leaf in jax.tree.leaves(params)))
    cuts, count = Cuts(zeros.copy()), 0.0
    for (task, difficulty), numbers in sorted(cells.items()):
        mine = advantages[numbers]
        gradients = update.zeros(params)
        for batch in policy_batches([groups[number] for number in numbers], mine, settings):
            gradients, sums = update.accumulate(params, None, gradients, shard_rows(batch, policy.mesh))
            count += float(sums["count"])
        gradient = flat(gradients)
        cuts.total += gradient
        for cut, name in ((cuts.tasks, task), (cuts.bins, difficulty)):
            part = cut.setdefault(name, Part(zeros.copy()))
            part.gradient += gradient
            part.groups += len(numbers)
            part.advantages += float(np.abs(mine).mean(axis=1).sum())
    for gradient in (cuts.total, *(part.gradient for part in (*cuts.tasks.values(), *cuts.bins.values()))):
        gradient /= max(count, 1.0)
    return cuts


def flat(gradients: nnx.State) -> np.ndarray:
    """All parameters' gradients in one vector, float64 [parameters], in the order of the tree."""
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(gradients)])


def shares(parts: Mapping[str, Part], total: np.ndarray) -> dict[str, dict[str, float]]:
    """Of each part its groups, norm, share of the sum of all parts' norms, cosine with the whole, and mean |A|.

    A part whose gradient is zero, or a whole that is, has cosine 0.
    """
    norms = {name: float(np.linalg.norm(part.gradient)) for name, part in parts.items()}
    whole, length = sum(norms.values()), float(np.linalg.norm(total))
    return {
        name: {
            "groups": part.groups,
            "norm": norms[name],
            "share": norms[name] / whole if whole else 0.0,
            "cosine": float(part.gradient @ total) / (norms[name] * length) if norms[name] * length else 0.0,
            "advantage": part.advantages / part.groups,
        }
        for name, part in parts.items()
    }
