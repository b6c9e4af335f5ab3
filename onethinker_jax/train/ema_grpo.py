"""The RL loop: prompts -> G samples each -> scores -> groups kept -> advantages -> clipped policy updates.

EMA-GRPO (arXiv 2512.03043): a group's rewards are centred by their mean and scaled by a running standard
deviation of their *task*, so that tasks with dense and with sparse rewards pull alike. `dynamic_sampling.py`
fills a step with groups, `policy_update.py` packs them and compiles the update.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.model.vision import patch_values
from onethinker_jax.processes import HostError
from onethinker_jax.rewards.client.client import RewardGivenUp
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.advantages import TaskMoments, compute_advantages, init_moments
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.objective import AdvantageConfig
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.health.stage_health import NotedUpdate, StageHealth, forgiven
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.interrupt import deferred_interrupt
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.dynamic_sampling import Rollout, Rollouts
from onethinker_jax.train.rl.failed_update import failed_update
from onethinker_jax.train.rl.heldout_scores import HeldOutScores
from onethinker_jax.train.rl.mfu import Utilisation
from onethinker_jax.train.rl.policy_update import (
    PolicyBatch,
    empty_policy_batch,
    policy_batches,
    rl_logprobs,
    rl_update,
)
from onethinker_jax.train.rl.rl_metrics import (
    by_task,
    device_memory,
    length_penalty,
    rollout_metrics,
    sampled_lengths,
    show_table,
    speed_metrics,
)
from onethinker_jax.train.rl.rollouts import Group, GroupStats
from onethinker_jax.train.state import TrainState, init_state


def train_ema_grpo(
    policy: Policy,
    params: nnx.State,
    rollouts: Rollouts,
    settings: RLSettings,
    run: Run,
    *,
    first_number: int,
    pages: RolloutPages | None = None,
    table_every: int = 0,
    scores: HeldOutScores | None = None,
) -> nnx.State:
    """Trains for `settings.steps` rollout batches, from the newest RL checkpoint if there is one.

    With several processes `rollouts` and `settings` are this one's part. Checkpoints are numbered from
    `first_number`. Every `table_every` steps the console shows a table, `pages` are written of the steps that they
    want, and `scores` made of those that they want, which may end RL early. Raises KeyboardInterrupt, and what a
    rollout or a scoring raises (or HostError, where it was another process's), each after a checkpoint of the last
    whole step: RewardUnavailable, ScoringError, NoGroupsLeft, an error that names a bad record, or NotFinite after too
    many updates in a row that were not finite.
    """
    optimizer = make_optimizer(
        settings.optimizer, settings.steps * settings.num_minibatches, train_vision=True
    )
    trained, base = split_adapters(params)
    health = StageHealth("rl", run)
    learner = Learner(
        policy, optimizer, settings, rollouts, base, stop_after=run.health.max_consecutive_nonfinite
    )
    moments = init_moments(len(MOMENTS))
    state = init_state(trained, optimizer, moments, policy.mesh, reference=settings.loss.kl_coefficient > 0)
    scores = HeldOutScores(EvaluationSettings(), lambda step, params: {}) if scores is None else scores
    state, number, unreported = _resume(state, base, rollouts, scores, first_number, health, run)
    start = number - first_number
    run.log.stage("rl", settings.steps, start)

    def save(step: int, unreported: Mapping[str, float] | None = None) -> None:
        mine = rollouts.state()  # which says whether `behaviour` is still needed
        behaviour = None if rollouts.behaviour is None else split_adapters(rollouts.behaviour)[0]
        run.save(
            first_number + step,
            replace(state, behaviour=behaviour),
            "rl",
            mine,
            heldout=scores.at(step),
            scorings=scores.state(),
            unreported=unreported,
            health=health.checkpointed(step),
        )

    def score(step: int, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics, with those of the held-out records; where these fail, a checkpoint has what is not reported."""
        if not scores.wanted(step):
            return metrics
        try:
            with health.unwatched():
                return metrics | scores.score(step, join_adapters(state.params, base))
        except Exception as error:
            save(step, {name: float(value) for name, value in metrics.items()})
            if interrupt.requested and isinstance(error, (RewardGivenUp, HostError)):
                raise KeyboardInterrupt from error
            raise

    compiled = None
    with health, rollouts, deferred_interrupt(run.log, give_up=rollouts.scorer.give_up) as interrupt:
        if unreported is not None:  # by a process that could not score its last step
            run.log.metrics(start, score(start, unreported))
            run.add_score(number, scores.at(start))
        for step in range(start + 1, settings.steps + 1):
            if scores.verdict is not None:
                break
            began = time.perf_counter()
            params = join_adapters(state.params, base)
            try:
                rollout = _take(rollouts, step, params, run.hosts)
            except Exception as error:
                save(step - 1)
                if interrupt.requested and isinstance(error, (RewardGivenUp, HostError)):
                    raise KeyboardInterrupt from error
                raise
            if step < settings.steps and not interrupt.requested:
                rollouts.start(step + 1, params)
            else:  # a run that goes on for more steps goes on as if it had been longer from the start
                rollouts.hold(params)

            run.log.phase("updating")
            state, advantages, metrics = learner.learn(state, rollout, run.hosts, began)
            health.note(*(replace(update, step=step) for update in learner.updates))
            health.catch_up(step, state)
            metrics |= health.metrics(step, metrics)
            _show(step, rollout, advantages, metrics, settings, run, pages)
            metrics = score(step, metrics)
            if step % settings.log_every == 0 or step == settings.steps or scores.wanted(step):
                run.log.metrics(step, metrics)
            if table_every and step % table_every == 0:
                show_table(run.log, step, metrics)
            if compiled is not None and (late := run.compilations.since(compiled)):
                run.log.warn(f"compiled after warm-up: {', '.join(late)}")

            if health.failing is not None:
                failed = failed_update(health.failing, rollout.groups, advantages, learner.failing)
                error = health.keep(failed, state)
                state = forgiven(state)
                save(step)
                raise error
            stopping = run.hosts.any(interrupt.requested)
            if step % settings.save_every == 0 or step == settings.steps or stopping or scores.wanted(step):
                save(step)
            compiled = run.compilations.count  # of several processes a first save compiles slices of its own
            health.beat(step)
            if stopping:
                raise KeyboardInterrupt
    if scores.verdict is not None:
        run.log.info(f"RL stops after step {scores.last}: {scores.verdict}")
    return join_adapters(state.params, base)


def _resume(
    state: TrainState,
    base: nnx.State | None,
    rollouts: Rollouts,
    scores: HeldOutScores,
    first_number: int,
    health: StageHealth,
    run: Run,
) -> tuple[TrainState, int, dict[str, float] | None]:
    """The state and the checkpoint's number to go on from: the newest one of RL, else `first_number`.

    With them the metrics of the last step, where these were not reported yet.
    """
    saved = run.newest()
    if saved is None or saved[1]["stage"] != "rl":
        health.begin(state)
        return state, first_number, None
    number, host = saved
    mine = run.hosts.own(host["hosts"])
    behaviour, beside = None, None
    if mine["behaviour"]:
        behaviour, beside = split_adapters(rollouts.decoding_copy(join_adapters(state.params, base)))
    with run.log.doing(f"reading checkpoint {number}"):
        state = run.checkpoints.restore(number, replace(state, behaviour=behaviour))
        behaviour = None if state.behaviour is None else join_adapters(state.behaviour, beside)
        rollouts.restore(mine, behaviour)
    health.begin(state, host["health"])
    scores.restore(host.get("scorings", []))
    return replace(state, behaviour=None), number, host.get("unreported")


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
        self, state: TrainState, rollout: Rollout, hosts: Hosts, began: float
    ) -> tuple[TrainState, np.ndarray, dict[str, float]]:
        """The state after a step that `began` at that time, this process's advantages [groups, G], and metrics."""
        updating, settings = time.perf_counter(), self._settings
        stats, metrics = _gathered(rollout, settings, hosts)
        advantages, moments = group_advantages(stats, state.moments, self._scaling, settings)
        mine = advantages[hosts.index * settings.prompts_per_step :][: settings.prompts_per_step]
        before = state.moments
        state, sums = self._update_policy(replace(state, moments=moments), rollout.groups, mine, hosts)
        if self.updates and not any(update.finite for update in self.updates):
            state = replace(state, moments=before)  # nothing was learnt from this step
        ended = time.perf_counter()
        metrics |= {**sums, **_advantage_metrics(stats, advantages, state)}
        metrics |= speed_metrics(
            metrics, len(stats), step_seconds=ended - began, update_seconds=ended - updating
        )
        metrics |= device_memory() | self._utilisation.metrics(metrics, state)
        return state, mine, metrics

    def _update_policy(
        self, state: TrainState, groups: Sequence[Group], advantages: np.ndarray, hosts: Hosts
    ) -> tuple[TrainState, dict[str, float]]:
        """`settings.num_minibatches` optimiser steps over the groups in equal parts; token means of what was summed.

        A part whose every sample is left out of the loss makes no step. A process that needs fewer micro-batches than
        another goes through empty ones. What a skipped update summed counts in no mean.
        """
        settings, update, base = self._settings, self._update, self._base
        params = join_adapters(state.params, base)
        pixels = patch_values(params)
        size = len(groups) // settings.num_minibatches

        def micro_batches(first: int) -> Iterator[PolicyBatch]:
            part = slice(first, first + size)
            batches = policy_batches(groups[part], advantages[part], settings)
            missing = max(hosts.gather(len(batches))) - len(batches)
            yield from [*batches, *[empty_policy_batch(settings, pixels)] * missing]

        starts = range(0, len(groups), size)
        old = None
        if (
            settings.loss.importance_sampling != "none" and settings.num_minibatches > 1
        ):  # the first update moves the policy
            batches = (batch for first in starts for batch in micro_batches(first))
            old = iter([self._score(params, shard_rows(batch, self._mesh)) for batch in batches])
        totals: dict[str, float] = defaultdict(float)
        count, self.updates = 0, []
        for first in starts:
            gradients, sums, seen = update.zeros(state.params), None, []
            for batch in micro_batches(first):
                laid = shard_rows(batch, self._mesh)
                laid = laid if old is None else replace(laid, old=next(old))
                seen.append(replace(batch, old=laid.old))
                gradients, new = update.accumulate(state.params, state.reference, gradients, laid, base)
                self._utilisation.add(batch)  # the devices are at work
                sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
                count += 1
            if sums is None:
                continue
            state, norm = update.apply(state, gradients, sums["count"], sums["loss"])
            values, norm, in_a_row = jax.device_get((sums, norm, state.skips.in_a_row))
            self.updates.append(
                NotedUpdate(0, slice(first, first + size), float(values["loss"]), float(norm))
            )
            if in_a_row and in_a_row == self._stop_after:
                self.failing = seen
                break
            if not in_a_row:
                for name, value in (values | {"grad_norm": norm}).items():
                    totals[name] += float(value)
        tokens, averaged = totals.pop("tokens", 0.0), totals.pop("count", 0.0)
        taken = sum(update.finite for update in self.updates)
        divisors = {"grad_norm": max(taken, 1.0), "loss": max(averaged, 1.0)}
        means = {name: value / divisors.get(name, max(tokens, 1.0)) for name, value in totals.items()}
        return state, {**means, "trained_tokens": tokens, "micro_batches": float(count)}


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


def _take(rollouts: Rollouts, step: int, params: nnx.State, hosts: Hosts) -> Rollout:
    """The step's rollout, once every process has its own; if one fails, all give theirs back.

    Raises what failed here, or HostError saying what failed elsewhere.
    """
    taken: list[Rollout] = []
    try:
        hosts.all_do(lambda: taken.append(rollouts.take(step, params)))
    except HostError:
        for rollout in taken:
            rollouts.give_back(rollout)
        raise
    return taken[0]


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


def _show(
    step: int,
    rollout: Rollout,
    advantages: np.ndarray,
    metrics: dict[str, float],
    settings: RLSettings,
    run: Run,
    pages: RolloutPages | None,
) -> None:
    """Writes the page of the step where it is wanted, and logs its lengths."""
    if pages is not None and pages.wanted(step):
        began = time.perf_counter()
        with run.log.doing("writing the page of rollouts"):
            pages.write(step, rollout.groups, advantages, metrics)
        metrics["seconds/page"] = time.perf_counter() - began
    run.log.lengths(step, sampled_lengths(rollout.drawn, settings))


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
