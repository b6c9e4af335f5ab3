"""The RL loop: prompts -> G samples each -> scores -> groups kept -> advantages -> clipped policy updates.

EMA-GRPO (arXiv 2512.03043): a group's rewards are centred by their mean and scaled by a running standard
deviation of their *task*, so that tasks with dense and with sparse rewards pull alike.  ``dynamic_sampling.py``
fills a step with groups, ``policy_update.py`` packs them and compiles the update.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.model.vision import patch_values
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.client.client import RewardGivenUp
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.advantages import compute_advantages, init_moments
from onethinker_jax.train.checkpoint import Checkpoints
from onethinker_jax.train.config.objective import AdvantageConfig
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.hosts import ALONE, HostError, Hosts
from onethinker_jax.train.interrupt import deferred_interrupt
from onethinker_jax.train.log.log import Compilations, RunLog
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.rl.dynamic_sampling import Rollout, Rollouts
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
    show_table,
    speed_metrics,
)
from onethinker_jax.train.rl.rollouts import Group, Outcome
from onethinker_jax.train.state import TrainState, Update, init_state, make_optimizer


def train_ema_grpo(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    stream: RecordStream,
    sampler: Sampler,
    scorer: Scorer,
    settings: RLSettings,
    *,
    compute_dtype: str = "float32",
    seed: int,
    first_number: int,
    mesh: Mesh,
    hosts: Hosts = ALONE,
    checkpoints: Checkpoints,
    log: RunLog,
    compilations: Compilations,
    pages: RolloutPages | None = None,
    table_every: int = 0,
) -> nnx.State:
    """Trains for ``settings.steps`` rollout batches, from the newest RL checkpoint if there is one.

    With several processes ``mesh`` is all of theirs, and ``stream``, ``sampler`` and ``settings`` are this one's
    part.  Checkpoints are numbered from ``first_number``.  Every ``table_every`` steps the console shows a table,
    and ``pages`` are written of the steps that they want.  Raises KeyboardInterrupt, and what a rollout raises (or
    HostError, where it was another process's), each after a checkpoint of the last whole step: RewardUnavailable,
    ScoringError, NoGroupsLeft, or an error that names a bad record.
    """
    optimizer = make_optimizer(
        settings.optimizer, settings.steps * settings.num_minibatches, train_vision=True
    )
    scaling = advantage_config(settings, scorer)
    update = rl_update(graphdef, optimizer, settings, sampler.config, compute_dtype)
    score = rl_logprobs(graphdef, sampler.config, compute_dtype)
    moments = init_moments(len(MOMENTS))
    state = init_state(params, optimizer, moments, mesh, reference=settings.loss.kl_coefficient > 0)
    rollouts = Rollouts(stream, sampler, scorer, settings, seed=seed, log=log)
    utilisation = Utilisation(graphdef, optimizer, settings, sampler.config, compute_dtype, mesh)
    start = 0
    if (saved := checkpoints.newest()) is not None and saved[1]["stage"] == "rl":
        number, host = saved
        mine = hosts.own(host["hosts"])
        behaviour = rollouts.decoding_copy(params) if mine["behaviour"] else None
        with log.doing(f"reading checkpoint {number}"):
            state = checkpoints.restore(number, replace(state, behaviour=behaviour))
            rollouts.restore(mine, state.behaviour)
        state = replace(state, behaviour=None)
        start = number - first_number
    log.stage("rl", settings.steps, start)

    def save(step: int) -> None:
        host = {"stage": "rl", "hosts": hosts.gather(rollouts.state())}
        checkpoints.save(first_number + step, replace(state, behaviour=rollouts.behaviour), host)

    compiled = None
    with rollouts, deferred_interrupt(log, give_up=scorer.give_up) as interrupt:
        for step in range(start + 1, settings.steps + 1):
            began = time.perf_counter()
            try:
                rollout = _take(rollouts, step, state, hosts)
            except Exception as error:
                save(step - 1)
                if interrupt.requested and isinstance(error, (RewardGivenUp, HostError)):
                    raise KeyboardInterrupt from error
                raise
            if step < settings.steps and not interrupt.requested:
                rollouts.start(step + 1, state.params)
            else:  # a run that goes on for more steps goes on as if it had been longer from the start
                rollouts.hold(state.params)
            updating = time.perf_counter()
            log.phase("updating")
            outcomes, metrics = _of_all(rollout, settings, hosts)
            advantages, moments = _advantages(outcomes, state, scaling, settings)
            mine = advantages[hosts.index * settings.prompts_per_step :][: settings.prompts_per_step]
            state = replace(state, moments=moments)
            state, sums = _update_policy(state, update, score, rollout.groups, mine, settings, mesh, hosts)
            ended = time.perf_counter()
            metrics |= {**sums, **_advantage_metrics(outcomes, advantages, state)}
            metrics |= speed_metrics(
                metrics, len(outcomes), step_seconds=ended - began, update_seconds=ended - updating
            )
            metrics |= device_memory() | utilisation.metrics(metrics, state, rollout.groups)
            if pages is not None and pages.wanted(step):
                with log.doing("writing the page of rollouts"):
                    pages.write(step, rollout.groups, mine, metrics)
                metrics["seconds/page"] = time.perf_counter() - ended
            if step % settings.log_every == 0 or step == settings.steps:
                log.metrics(step, metrics)
            if table_every and step % table_every == 0:
                show_table(log, step, metrics)
            if compiled is not None and (late := compilations.since(compiled)):
                log.warn(f"compiled after warm-up: {', '.join(late)}")
            stopping = hosts.any(interrupt.requested)
            if step % settings.save_every == 0 or step == settings.steps or stopping:
                save(step)
            compiled = compilations.count  # of several processes a first save compiles slices of its own
            if stopping:
                raise KeyboardInterrupt
    return state.params


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


def _take(rollouts: Rollouts, step: int, state: TrainState, hosts: Hosts) -> Rollout:
    """The step's rollout, once every process has its own; where one has failed none has taken any.

    Raises what failed here, or HostError saying what failed elsewhere.
    """
    rollout, failure = None, None
    try:
        rollout = rollouts.take(step, state.params)
    except Exception as error:  # noqa: BLE001  raised below, once the others know of it
        failure = error
    said = hosts.gather(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    assert rollout is not None
    for number, reason in enumerate(said):
        if reason is not None:
            rollouts.give_back(rollout)
            raise HostError(f"process {number}: {reason}")
    return rollout


def _of_all(rollout: Rollout, settings: RLSettings, hosts: Hosts) -> tuple[list[Outcome], dict[str, float]]:
    """What came of every process's groups to train on, process by process, and the metrics of all that was drawn."""
    kept = [group.outcome.to_json() for group in rollout.groups]
    parts = hosts.gather([kept, [outcome.to_json() for outcome in rollout.drawn], rollout.metrics])
    outcomes, drawn = (
        [Outcome.from_json(saved) for part in parts for saved in part[which]] for which in (0, 1)
    )
    measured = {
        name: (sum if name == "groups_waiting" else max)(part[2][name] for part in parts)
        for name in rollout.metrics
    }
    return outcomes, {**rollout_metrics(drawn, settings), **measured}


def _advantages(
    groups: Sequence[Outcome], state: TrainState, scaling: AdvantageConfig, settings: RLSettings
) -> tuple[np.ndarray, Any]:
    """float32 [groups, G] advantages, and the moments moved by this batch's rewards."""
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
    moments = np.array([MOMENTS.index(group.task.moments) for group in groups], np.int32)
    task_ids = np.repeat(moments, rewards.shape[1])
    advantages, moments = compute_advantages(
        rewards.reshape(-1), group_ids, task_ids, state.moments, scaling, components
    )
    return np.asarray(advantages).reshape(rewards.shape), moments


def _update_policy(
    state: TrainState,
    update: Update,
    score: Callable[[nnx.State, PolicyBatch], jax.Array],
    groups: Sequence[Group],
    advantages: np.ndarray,
    settings: RLSettings,
    mesh: Mesh,
    hosts: Hosts,
) -> tuple[TrainState, dict[str, float]]:
    """``settings.num_minibatches`` optimiser steps over the groups in equal parts; token means of what was summed.

    A part whose every sample is left out of the loss makes no step.  A process that needs fewer micro-batches than
    another goes through empty ones.
    """
    size = len(groups) // settings.num_minibatches

    def micro_batches(first: int) -> Iterator[PolicyBatch]:
        part = slice(first, first + size)
        batches = policy_batches(groups[part], advantages[part], settings)
        missing = max(hosts.gather(len(batches))) - len(batches)
        for batch in [*batches, *[empty_policy_batch(settings, patch_values(state.params))] * missing]:
            yield shard_rows(batch, mesh)

    starts = range(0, len(groups), size)
    old = None
    if settings.loss.importance_sampling != "none" and settings.num_minibatches > 1:
        # the first update moves the policy
        old = iter([score(state.params, batch) for first in starts for batch in micro_batches(first)])
    totals: dict[str, float] = defaultdict(float)
    count = 0
    for first in starts:
        gradients, sums = update.zeros(state.params), None
        for batch in micro_batches(first):
            batch = batch if old is None else replace(batch, old=next(old))
            gradients, new = update.accumulate(state.params, state.reference, gradients, batch)
            sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
            count += 1
        if sums is None:
            continue
        state, norm = update.apply(state, gradients, sums["count"])
        for name, value in jax.device_get(sums).items():
            totals[name] += float(value)
        totals["grad_norm"] += float(norm) / settings.num_minibatches
    tokens, averaged = totals.pop("tokens", 0.0), totals.pop("count", 0.0)
    divisors = {"grad_norm": 1.0, "loss": max(averaged, 1.0)}
    means = {name: value / divisors.get(name, max(tokens, 1.0)) for name, value in totals.items()}
    return state, {**means, "trained_tokens": tokens, "micro_batches": float(count)}


def _advantage_metrics(
    groups: Sequence[Outcome], advantages: np.ndarray, state: TrainState
) -> dict[str, float]:
    """|A| of the groups trained on, of all and of each task, and the σ_τ that include them."""
    sizes = {id(group): np.abs(of_group).mean() for group, of_group in zip(groups, advantages, strict=True)}
    sigma, seen = np.asarray(state.moments.sigma()), np.asarray(state.moments.initialised)
    return {
        "advantage_abs": float(np.abs(advantages).mean()),
        **{
            f"advantage_abs/{task}": float(np.mean([sizes[id(group)] for group in of_task]))
            for task, of_task in by_task(groups).items()
        },
        **{f"sigma/{task}": float(sigma[i]) for i, task in enumerate(MOMENTS) if seen[i]},
    }
