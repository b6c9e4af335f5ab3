"""The RL loop: prompts -> G samples each -> scores -> groups kept -> advantages -> clipped policy updates.

EMA-GRPO (arXiv 2512.03043): a group's rewards are centred by their mean and scaled by a running standard
deviation of their *task*, so that tasks with dense and with sparse rewards pull alike.  Groups whose mean
accuracy is not strictly inside (low, high) are dropped and new prompts drawn until the step is full (DAPO);
surplus groups wait for the next step.  ``policy_update.py`` packs the groups and compiles the update.
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

from onethinker_jax.data_pipeline.loader import RecordStream
from onethinker_jax.data_pipeline.records import PROBLEM_TYPES, Record, task_of
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.client import RewardUnavailable
from onethinker_jax.rewards.score import Variant
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.advantages import (
    AdvantageConfig,
    compute_advantages,
    init_moments,
    overlong_penalty,
)
from onethinker_jax.train.checkpoint import Checkpoints, deferred_interrupt
from onethinker_jax.train.config import RLSettings
from onethinker_jax.train.log import Compilations, RunLog
from onethinker_jax.train.policy_update import PolicyBatch, policy_batches, rl_logprobs, rl_update
from onethinker_jax.train.rollouts import Group, RewardSeconds, roll_out
from onethinker_jax.train.state import TrainState, Update, init_state, make_optimizer

MOMENT_TASKS = (
    *(name for name in PROBLEM_TYPES if name != "segmentation"),
    "segmentation (image)",
    "segmentation (video)",
)
"""Whose reward has moments of its own: the problem types, segmentation split as in the released code."""
REWARD_WEIGHTS: dict[Variant, tuple[float, float, float]] = {
    "paper": (1.0, 1.0, 0.0),
    "released": (0.9, 0.1, 1.0),
}
"""What a variant's reward multiplies accuracy, format and structure with; the paper's format includes structure."""


class NoGroupsLeft(RuntimeError):
    """The filter kept too few groups for too long: rewards are all equal, or all zero, or all full."""


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
    checkpoints: Checkpoints,
    log: RunLog,
    compilations: Compilations,
) -> nnx.State:
    """Trains for ``settings.steps`` rollout batches, from the newest RL checkpoint if there is one.

    Checkpoints are numbered from ``first_number``.  Raises KeyboardInterrupt, RewardUnavailable or
    NoGroupsLeft, each after a checkpoint of the last whole step.
    """
    optimizer = make_optimizer(settings.optimizer, settings.steps * settings.updates, train_vision=True)
    scaling = advantage_config(settings)
    update = rl_update(graphdef, optimizer, settings, sampler.config, compute_dtype)
    score = rl_logprobs(graphdef, sampler.config, compute_dtype)
    moments = init_moments(len(MOMENT_TASKS))
    state = init_state(params, optimizer, moments, mesh, reference=settings.kl_coefficient > 0)
    start, waiting = 0, []
    if (saved := checkpoints.newest()) is not None and saved[1]["stage"] == "rl":
        number, host = saved
        state = checkpoints.restore(number, state)
        stream.restore(host["stream"])
        waiting = [Group.from_json(group, stream, sampler) for group in host["waiting"]]
        start = number - first_number
    log.stage("rl", settings.steps, start)

    def save(step: int) -> None:
        host = {"stage": "rl", "stream": stream.state(), "waiting": [group.to_json() for group in waiting]}
        checkpoints.save(first_number + step, state, host)

    compiled = None
    with deferred_interrupt("Stopping: finishing this step and saving a checkpoint …", log) as interrupt:
        for step in range(start + 1, settings.steps + 1):
            began = time.perf_counter()
            position, rewards = stream.state(), RewardSeconds()
            try:
                groups, surplus, drawn = _fill_step(
                    state.params,
                    stream,
                    waiting,
                    sampler,
                    scorer,
                    settings,
                    seed=seed,
                    step=step,
                    log=log,
                    seconds=rewards,
                )
            except (RewardUnavailable, NoGroupsLeft):
                stream.restore(position)
                save(step - 1)
                raise
            waiting = surplus
            sampled = time.perf_counter()
            log.phase("updating")
            advantages, moments = _advantages(groups, state, scaling, settings)
            state = replace(state, moments=moments)
            state, sums = _update_policy(state, update, score, groups, advantages, settings, mesh)
            metrics = _report(drawn, sums, advantages, state, settings)
            ended = time.perf_counter()
            tokens = metrics.pop("sampled_tokens") + metrics["trained_tokens"]
            metrics |= {
                "tokens_per_second": tokens / (ended - began),
                "seconds/rollout": sampled - began,
                "seconds/reward": rewards.spent,
                "seconds/reward_wait": rewards.waited,
                "seconds/update": ended - sampled,
            }
            if step % settings.log_every == 0 or step == settings.steps:
                log.metrics(step, metrics)
            if compiled is not None and (late := compilations.since(compiled)):
                log.warn(f"compiled after warm-up: {', '.join(late)}")
            compiled = compilations.count
            if step % settings.save_every == 0 or step == settings.steps or interrupt.requested:
                save(step)
            if interrupt.requested:
                raise KeyboardInterrupt
    return state.params


def advantage_config(settings: RLSettings) -> AdvantageConfig:
    """The settings of the advantages; in GDPO the overlong penalty is a component of its own."""
    weights = ()
    if settings.method == "gdpo":
        weights = settings.reward_weights or REWARD_WEIGHTS[settings.variant]
        if settings.overlong == "penalty":
            weights = (*weights, settings.overlong_penalty)
    return AdvantageConfig(
        method=settings.method, variant=settings.variant, decay=settings.decay, weights=weights
    )


def moment_task(record: Record) -> int:
    """Which entry of the moments a record's rewards move."""
    name = task_of(record) if record.problem_type == "segmentation" else record.problem_type
    return MOMENT_TASKS.index(name)


def _fill_step(
    params: nnx.State,
    stream: RecordStream,
    waiting: Sequence[Group],
    sampler: Sampler,
    scorer: Scorer,
    settings: RLSettings,
    *,
    seed: int,
    step: int,
    log: RunLog,
    seconds: RewardSeconds,
) -> tuple[list[Group], list[Group], list[Group]]:
    """Groups of this step, surplus groups for the next, and all groups drawn for it, kept or not."""
    kept, drawn = list(waiting), []
    for round_number in range(settings.max_rounds):
        if len(kept) >= settings.prompts:
            break
        log.phase(f"sampling {len(kept)}/{settings.prompts} groups")
        draw = step * settings.max_rounds + round_number  # keys of a draw are never used again
        groups = roll_out(
            params, stream, settings.prompts, sampler, scorer, seed=seed, step=draw, seconds=seconds
        )
        drawn += groups
        low, high = settings.accuracy_low, settings.accuracy_high
        kept += [group for group in groups if low < group.accuracy < high]
    if len(kept) < settings.prompts:
        raise NoGroupsLeft(
            f"step {step}: only {len(kept)} of {settings.prompts} groups had a mean accuracy inside "
            f"({settings.accuracy_low}, {settings.accuracy_high}) after {settings.max_rounds} rounds; are the "
            "prompts too hard, too easy, or the answers cut off?"
        )
    return kept[: settings.prompts], kept[settings.prompts :], drawn


def _advantages(
    groups: Sequence[Group], state: TrainState, scaling: AdvantageConfig, settings: RLSettings
) -> tuple[np.ndarray, Any]:
    """float32 [groups, G] advantages, and the moments moved by this batch's rewards."""
    rewards = np.array([group.rewards for group in groups], np.float32)
    components = None
    if settings.method == "gdpo":
        parts = [[(s.accuracy, s.format, s.structure) for s in group.scores] for group in groups]
        components = np.array(parts, np.float32).reshape(rewards.size, -1)
    if settings.overlong == "penalty":
        penalty = _overlong_penalty(groups, settings)
        rewards += settings.overlong_penalty * penalty
        if components is not None:
            components = np.column_stack([components, penalty.reshape(-1)])
    group_ids = np.repeat(np.arange(len(groups), dtype=np.int32), rewards.shape[1])
    task_ids = np.repeat(np.array([moment_task(g.record) for g in groups], np.int32), rewards.shape[1])
    advantages, moments = compute_advantages(
        rewards.reshape(-1), group_ids, task_ids, state.moments, scaling, components
    )
    return np.asarray(advantages).reshape(rewards.shape), moments


def _overlong_penalty(groups: Sequence[Group], settings: RLSettings) -> np.ndarray:
    """float32 [groups, G] in [-1, 0]."""
    lengths = np.array([[len(ids) for ids in group.samples.tokens] for group in groups])
    return overlong_penalty(lengths, limit=settings.max_new_tokens, buffer=settings.overlong_buffer)


def _update_policy(
    state: TrainState,
    update: Update,
    score: Callable[[nnx.State, PolicyBatch], jax.Array],
    groups: Sequence[Group],
    advantages: np.ndarray,
    settings: RLSettings,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, float]]:
    """``settings.updates`` optimiser steps over the groups in equal parts; token means of what was summed.

    A part whose every sample is left out of the loss makes no step.
    """
    size = len(groups) // settings.updates

    def micro_batches(first: int) -> Iterator[PolicyBatch]:
        part = slice(first, first + size)
        for batch in policy_batches(groups[part], advantages[part], settings):
            yield shard_rows(batch, mesh)

    starts = range(0, len(groups), size)
    old = None
    if settings.importance_sampling != "none" and settings.updates > 1:  # the first update moves the policy
        old = iter([score(state.params, batch) for first in starts for batch in micro_batches(first)])
    totals: dict[str, float] = defaultdict(float)
    for first in starts:
        gradients, sums = update.zeros(state.params), None
        for batch in micro_batches(first):
            batch = batch if old is None else replace(batch, old=next(old))
            gradients, new = update.accumulate(state.params, state.reference, gradients, batch)
            sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
        if sums is None:
            continue
        state, norm = update.apply(state, gradients, sums["count"])
        for name, value in jax.device_get(sums).items():
            totals[name] += float(value)
        totals["grad_norm"] += float(norm) / settings.updates
    tokens, count = totals.pop("tokens", 0.0), totals.pop("count", 0.0)
    divisors = {"grad_norm": 1.0, "loss": max(count, 1.0)}
    means = {name: value / divisors.get(name, max(tokens, 1.0)) for name, value in totals.items()}
    return state, {**means, "trained_tokens": tokens}


def _report(
    drawn: Sequence[Group],
    sums: dict[str, float],
    advantages: np.ndarray,
    state: TrainState,
    settings: RLSettings,
) -> dict[str, float]:
    """Metrics of one step: rewards over all groups drawn, kept or not; the policy's over the tokens trained on."""
    scores = [score for group in drawn for score in group.scores]
    lengths = [len(ids) for group in drawn for ids in group.samples.tokens]
    by_task: dict[str, list[float]] = defaultdict(list)
    kept = 0
    for group in drawn:
        by_task[task_of(group.record)] += group.rewards
        kept += settings.accuracy_low < group.accuracy < settings.accuracy_high
    sigma, seen = np.asarray(state.moments.sigma()), np.asarray(state.moments.initialised)
    metrics = dict(sums)
    if drawn:  # a step may be filled by waiting groups alone
        metrics |= {
            "reward": float(np.mean([score.overall for score in scores])),
            "accuracy": float(np.mean([score.accuracy for score in scores])),
            "format": float(np.mean([score.format for score in scores])),
            "response_length": float(np.mean(lengths)),
            "truncated": 1 - float(np.mean([ended for group in drawn for ended in group.samples.ended])),
            "groups_kept": kept / len(drawn),
        }
        if settings.overlong == "penalty":
            metrics["overlong_penalty"] = float(np.mean(_overlong_penalty(drawn, settings)))
    return {
        **metrics,
        "sampled_tokens": float(np.sum(lengths)),
        "advantage_abs": float(np.abs(advantages).mean()),
        **{f"reward/{task}": float(np.mean(values)) for task, values in sorted(by_task.items())},
        **{f"sigma/{task}": float(sigma[i]) for i, task in enumerate(MOMENT_TASKS) if seen[i]},
    }
