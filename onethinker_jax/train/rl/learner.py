"""What is learnt from a step's rollout: advantages, then the updates of the policy, compiled once for all steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from onethinker_jax.model.parameters import join_adapters
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.model.vision import patch_values
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.advantages import TaskMoments, compute_advantages
from onethinker_jax.train.config.objective import AdvantageConfig
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.health.stage_health import NotedUpdate
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.dynamic_sampling import Rollout, Rollouts
from onethinker_jax.train.rl.mfu import Utilisation
from onethinker_jax.train.rl.policy_update import (
    Minibatches,
    PolicyBatch,
    by_sample,
    own_rows,
    rl_logprobs,
    rl_update,
)
from onethinker_jax.train.rl.rl_metrics import (
    by_task,
    device_memory,
    length_penalty,
    rollout_metrics,
    speed_metrics,
)
from onethinker_jax.train.rl.rollouts import GroupStats
from onethinker_jax.train.rl.update_progress import UpdateCut, UpdateProgress
from onethinker_jax.train.state import InFlight, TrainState


class Learner:
    """What is learnt from a rollout: advantages, and the updates of the policy, compiled once for all steps."""

    def __init__(
        self,
        policy: Policy,
        optimizer: optax.GradientTransformation,
        settings: RLSettings,
        rollouts: Rollouts,
        base: nnx.State | None = None,
        *,
        stop_after: int = 0,
    ):
        """`base` is what the policy's adapters are added to, if it has any; `stop_after` is that of `make_update`."""
        self.updates: list[NotedUpdate] = []
        """Those of the newest step."""
        self.failing: list[PolicyBatch] = []
        """This process's micro-batches of the update after which nothing is taken any more."""
        self._stop_after = stop_after
        sampling = rollouts.sampler.config
        self._settings, self._mesh, self._base = settings, policy.mesh, base
        self._scaling = advantage_config(settings, rollouts.scorer)
        self._update = rl_update(policy, optimizer, settings, sampling, stop_after=stop_after)
        self._score = rl_logprobs(policy, sampling)
        self._utilisation = Utilisation(policy, optimizer, settings, sampling, base)

    def learn(
        self,
        state: TrainState,
        rollout: Rollout,
        hosts: Hosts,
        began: float,
        *,
        cut: Callable[[], bool] = lambda: False,
    ) -> tuple[TrainState, np.ndarray, dict[str, float]]:
        """The state after a step that `began` at that time, this process's advantages [groups, G], and metrics.

        All processes ask `cut` before every micro-batch whether the step is to end there; then this raises UpdateCut.
        """
        updating, settings = time.perf_counter(), self._settings
        stats, metrics = _gathered(rollout, settings, hosts)
        advantages, moments = group_advantages(stats, state.moments, self._scaling, settings)
        mine = advantages[hosts.index * settings.prompts_per_step :][: settings.prompts_per_step]
        before, progress = state.moments, rollout.begun or UpdateProgress()
        spent, pixels = progress.seconds, patch_values(join_adapters(state.params, self._base))
        minibatches = Minibatches(rollout.groups, mine, settings, pixels, hosts)
        try:
            state = self._update_policy(replace(state, moments=moments), minibatches, progress, cut)
        except UpdateCut as stopped:
            progress.seconds += time.perf_counter() - updating
            stopped.state = replace(
                stopped.state, moments=before
            )  # by which the step will compute them again
            raise
        if progress.updates and not progress.taken:
            state = replace(state, moments=before)  # nothing was learnt from this step
        ended = time.perf_counter() + spent
        metrics |= {**_means(progress), **_advantage_metrics(stats, advantages, state)}
        metrics |= speed_metrics(
            metrics, len(stats), step_seconds=ended - began, update_seconds=ended - updating
        )
        metrics |= device_memory() | self._utilisation.metrics(metrics, state)
        return state, mine, metrics

    def _update_policy(
        self,
        state: TrainState,
        minibatches: Minibatches,
        progress: UpdateProgress,
        cut: Callable[[], bool],
    ) -> TrainState:
        """The optimiser steps of the minibatches that `progress` does not hold; what they sum goes into it.

        A minibatch whose every sample is left out of the loss makes no step. What a skipped update summed counts in no
        mean. Raises UpdateCut.
        """
        settings, update, base = self._settings, self._update, self._base
        done = progress.groups // minibatches.size
        for number in range(done):
            for batch in minibatches.batches(number):
                self._utilisation.add(batch)
        self.updates, flying = [], InFlight()
        if (
            progress.old is None
            and settings.loss.importance_sampling != "none"
            and settings.num_minibatches > 1
        ):  # the first update moves the policy
            progress.old = self._logprobs(state, minibatches, cut)
        for number in range(done, settings.num_minibatches):
            gradients, sums, seen = update.zeros(state.params), None, []
            for batch in minibatches.batches(number, progress.old):
                if cut():
                    raise UpdateCut(state, progress)
                seen.append(batch)
                laid = shard_rows(batch, self._mesh)
                gradients, new = update.accumulate(state.params, state.reference, gradients, laid, base)
                self._utilisation.add(batch)  # the devices are at work
                flying.add(new)
                sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
            if sums is not None:
                state, norm = update.apply(state, gradients, sums["count"], sums["loss"])
                values, norm, in_a_row = jax.device_get((sums, norm, state.skips.in_a_row))
                self.updates.append(
                    NotedUpdate(0, minibatches.part(number), float(values["loss"]), float(norm))
                )
                progress.updates += 1
                if not in_a_row:
                    progress.add(values | {"grad_norm": norm})
                elif in_a_row == self._stop_after:
                    self.failing = seen
            progress.groups += minibatches.size
            progress.micro_batches += len(seen)
            if self.failing:
                break
        return state

    def _logprobs(
        self, state: TrainState, minibatches: Minibatches, cut: Callable[[], bool]
    ) -> list[np.ndarray]:
        """What `UpdateProgress.old` is, of the policy as it is now. Raises UpdateCut."""
        params, found = join_adapters(state.params, self._base), []
        for number in range(self._settings.num_minibatches):
            samples = [np.zeros(0, np.float32)] * minibatches.samples
            for batch in minibatches.batches(number):
                if cut():
                    raise UpdateCut(state, UpdateProgress())
                rows = own_rows(self._score(params, shard_rows(batch, self._mesh)))
                for sample, values in by_sample(rows, np.asarray(batch.sample_index)).items():
                    samples[sample] = values
            found += samples
        return found


def _means(progress: UpdateProgress) -> dict[str, float]:
    """Metrics of a step's updates: token means of what was summed."""
    totals = dict(progress.totals)
    tokens, averaged = totals.pop("tokens", 0.0), totals.pop("count", 0.0)
    divisors = {"grad_norm": max(progress.taken, 1.0), "loss": max(averaged, 1.0)}
    means = {name: value / divisors.get(name, max(tokens, 1.0)) for name, value in totals.items()}
    return {**means, "trained_tokens": tokens, "micro_batches": float(progress.micro_batches)}


def advantage_config(settings: RLSettings, scorer: Scorer) -> AdvantageConfig:
    """The settings of the advantages.

    GDPO weighs the parts of a reward as its own sum does, unless told otherwise; the overlong penalty is a part too.
    """
    advantage = settings.advantage
    if advantage.method == "gdpo":
        weights = advantage.weights or scorer.reward_weights
        if settings.loss.overlong == "penalty":
            weights = (*weights, settings.loss.overlong_penalty)
        advantage = replace(advantage, weights=weights)
    return advantage


def _gathered(
    rollout: Rollout, settings: RLSettings, hosts: Hosts
) -> tuple[list[GroupStats], dict[str, float]]:
    """Statistics of the groups to train on, process by process, and the metrics of all groups that were sampled."""
    kept = [group.stats.to_json() for group in rollout.groups]
    parts = hosts.gather([kept, [stats.to_json() for stats in rollout.drawn], rollout.metrics])
    trained, drawn = (
        [GroupStats.from_json(saved) for part in parts for saved in part[which]] for which in (0, 1)
    )
    measured = {
        name: (sum if name == "groups_waiting" else max)(part[2][name] for part in parts)
        for name in rollout.metrics
    }
    return trained, {**rollout_metrics(drawn, settings), **measured}


def group_advantages(
    groups: Sequence[GroupStats], moments: TaskMoments, scaling: AdvantageConfig, settings: RLSettings
) -> tuple[np.ndarray, TaskMoments]:
    """float32 [groups, G] advantages, and the moments after this batch's rewards.

    `scaling` is what `advantage_config` gives of the settings; `moments` are those before.
    """
    rewards = np.array([group.rewards for group in groups], np.float32)
    components = None
    if settings.advantage.method == "gdpo":
        parts = [[(s.accuracy, s.format, s.structure) for s in group.scores] for group in groups]
        components = np.array(parts, np.float32).reshape(rewards.size, -1)
    if settings.loss.overlong == "penalty":
        penalty = length_penalty(groups, settings)
        rewards += settings.loss.overlong_penalty * penalty
        if components is not None:
            components = np.column_stack([components, penalty.reshape(-1)])
    group_ids = np.repeat(np.arange(len(groups), dtype=np.int32), rewards.shape[1])
    tasks = np.array([MOMENTS.index(group.task.moments) for group in groups], np.int32)
    task_ids = np.repeat(tasks, rewards.shape[1])
    advantages, moments = compute_advantages(
        rewards.reshape(-1), group_ids, task_ids, moments, scaling, components
    )
    return np.asarray(advantages).reshape(rewards.shape), moments


def _advantage_metrics(
    groups: Sequence[GroupStats], advantages: np.ndarray, state: TrainState
) -> dict[str, float]:
    """|A| of the groups trained on, over all and by task, and the σ_τ after their rewards."""
    sizes = {
        id(group): np.abs(of_samples).mean() for group, of_samples in zip(groups, advantages, strict=True)
    }
    sigma, seen = np.asarray(state.moments.sigma()), np.asarray(state.moments.initialised)
    return {
        "advantage_abs": float(np.abs(advantages).mean()),
        **{
            f"advantage_abs/{task}": float(np.mean([sizes[id(group)] for group in groups_of_task]))
            for task, groups_of_task in by_task(groups).items()
        },
        **{f"sigma/{task}": float(sigma[i]) for i, task in enumerate(MOMENTS) if seen[i]},
    }
