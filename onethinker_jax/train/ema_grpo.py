"""The RL loop: prompts -> G samples each -> scores -> groups kept -> advantages -> clipped policy updates.

EMA-GRPO (arXiv 2512.03043): a group's rewards are centred by their mean and scaled by a running standard
deviation of their *task*, so that tasks with dense and with sparse rewards pull alike.  Groups whose mean
accuracy is not strictly inside (low, high) are dropped and new prompts drawn until the step is full (DAPO);
surplus groups wait for the next step.  Departure from the released code: a prompt and its samples are one
packed segment, so the prompt and its media are computed once an update and not G times.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.loader import RecordStream
from onethinker_jax.data_pipeline.packing import Batch, pack_groups
from onethinker_jax.data_pipeline.records import PROBLEM_TYPES, Record, task_of
from onethinker_jax.model.generate import SamplingConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import shard_rows
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.client import RewardClient, RewardUnavailable
from onethinker_jax.train.advantages import AdvantageConfig, compute_advantages, init_moments
from onethinker_jax.train.checkpoint import Checkpoints, deferred_interrupt
from onethinker_jax.train.config import RLSettings
from onethinker_jax.train.log import Compilations, RunLog
from onethinker_jax.train.losses import PolicyLossConfig, policy_loss, token_logprobs
from onethinker_jax.train.rollouts import Group, roll_out
from onethinker_jax.train.state import Sums, TrainState, Update, init_state, make_optimizer, make_update

MOMENT_TASKS = (
    *(name for name in PROBLEM_TYPES if name != "segmentation"),
    "segmentation (image)",
    "segmentation (video)",
)
"""Whose reward has moments of its own: the problem types, segmentation split as in the released code."""


class NoGroupsLeft(RuntimeError):
    """The filter kept too few groups for too long: rewards are all equal, or all zero, or all full."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PolicyBatch:
    """Packed groups with what the policy loss needs of every target token."""

    batch: Batch
    advantages: jax.Array | np.ndarray  # float32 [B, T]
    sampled: jax.Array | np.ndarray  # float32 [B, T], log-probability when it was sampled


def train_ema_grpo(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    stream: RecordStream,
    sampler: Sampler,
    client: RewardClient,
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
    scaling = AdvantageConfig(method=settings.method, variant=settings.variant, decay=settings.decay)
    update = rl_update(graphdef, optimizer, settings, sampler.config, compute_dtype)
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
            position = stream.state()
            try:
                groups, surplus, drawn = _fill_step(
                    state.params, stream, waiting, sampler, client, settings, seed=seed, step=step, log=log
                )
            except (RewardUnavailable, NoGroupsLeft):
                stream.restore(position)
                save(step - 1)
                raise
            waiting = surplus
            sampled = time.perf_counter()
            log.phase("updating")
            advantages, moments = _advantages(groups, state, scaling)
            state = replace(state, moments=moments)
            state, sums = _update_policy(state, update, groups, advantages, settings, mesh)
            metrics = _report(drawn, sums, advantages, state, settings)
            ended = time.perf_counter()
            tokens = metrics.pop("sampled_tokens") + metrics["trained_tokens"]
            metrics |= {
                "tokens_per_second": tokens / (ended - began),
                "seconds/rollout": sampled - began,
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


def rl_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    settings: RLSettings,
    sampling: SamplingConfig,
    compute_dtype: str,
) -> Update:
    """The compiled update of EMA-GRPO."""
    objective = PolicyLossConfig(
        settings.clip_low, settings.clip_high, settings.dual_clip, settings.kl_coefficient
    )
    loss = partial(rl_loss, graphdef, objective=objective, sampling=sampling)
    return make_update(loss, optimizer, compute_dtype=compute_dtype)


def rl_loss(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    reference: nnx.State | None,
    batch: PolicyBatch,
    *,
    objective: PolicyLossConfig,
    sampling: SamplingConfig,
) -> tuple[jax.Array, Sums]:
    """Summed policy loss of a micro-batch; log-probabilities are of the distribution that was sampled from."""
    inputs = batch.batch.inputs
    targets, mask = jnp.asarray(batch.batch.targets), jnp.asarray(batch.batch.target_mask)

    def logprobs_of(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        model: Qwen3VL = nnx.merge(graphdef, params)
        return token_logprobs(
            model(inputs),
            model.head(),
            targets,
            temperature=sampling.temperature,
            forbidden_ids=sampling.forbidden_ids,
        )

    logprobs, entropy = logprobs_of(params)
    anchor = None if reference is None else jax.lax.stop_gradient(logprobs_of(reference)[0])
    sampled, advantages = jnp.asarray(batch.sampled), jnp.asarray(batch.advantages)
    loss, sums = policy_loss(logprobs, sampled, advantages, mask, anchor, objective)
    entropy = jnp.sum(jnp.where(mask, jax.lax.stop_gradient(entropy), 0.0))
    return loss, {**sums, "entropy": entropy, "tokens": jnp.sum(mask).astype(jnp.float32)}


def moment_task(record: Record) -> int:
    """Which entry of the moments a record's rewards move."""
    name = task_of(record) if record.problem_type == "segmentation" else record.problem_type
    return MOMENT_TASKS.index(name)


def _fill_step(
    params: nnx.State,
    stream: RecordStream,
    waiting: Sequence[Group],
    sampler: Sampler,
    client: RewardClient,
    settings: RLSettings,
    *,
    seed: int,
    step: int,
    log: RunLog,
) -> tuple[list[Group], list[Group], list[Group]]:
    """Groups of this step, surplus groups for the next, and all groups drawn for it, kept or not."""
    kept, drawn = list(waiting), []
    for round_number in range(settings.max_rounds):
        if len(kept) >= settings.prompts:
            break
        log.phase(f"sampling {len(kept)}/{settings.prompts} groups")
        draw = step * settings.max_rounds + round_number  # keys of a draw are never used again
        variant = settings.variant
        groups = roll_out(
            params, stream, settings.prompts, sampler, client, seed=seed, step=draw, variant=variant
        )
        drawn += groups
        low, high = settings.accuracy_low, settings.accuracy_high
        kept += [group for group in groups if low < group.accuracy(variant) < high]
    if len(kept) < settings.prompts:
        raise NoGroupsLeft(
            f"step {step}: only {len(kept)} of {settings.prompts} groups had a mean accuracy inside "
            f"({settings.accuracy_low}, {settings.accuracy_high}) after {settings.max_rounds} rounds; are the "
            "prompts too hard, too easy, or the answers cut off?"
        )
    return kept[: settings.prompts], kept[settings.prompts :], drawn


def _advantages(
    groups: Sequence[Group], state: TrainState, scaling: AdvantageConfig
) -> tuple[np.ndarray, Any]:
    """float32 [groups, G] advantages, and the moments moved by this batch's rewards."""
    rewards = np.array([group.rewards for group in groups], np.float32)
    group_ids = np.repeat(np.arange(len(groups), dtype=np.int32), rewards.shape[1])
    task_ids = np.repeat(np.array([moment_task(g.record) for g in groups], np.int32), rewards.shape[1])
    advantages, moments = compute_advantages(rewards.reshape(-1), group_ids, task_ids, state.moments, scaling)
    return np.asarray(advantages).reshape(rewards.shape), moments


def _update_policy(
    state: TrainState,
    update: Update,
    groups: Sequence[Group],
    advantages: np.ndarray,
    settings: RLSettings,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, float]]:
    """``settings.updates`` optimiser steps over the groups in equal parts; token means of what was summed."""
    size = len(groups) // settings.updates
    totals: dict[str, float] = defaultdict(float)
    for first in range(0, len(groups), size):
        part = slice(first, first + size)
        gradients, sums = update.zeros(state.params), None
        for batch in policy_batches(groups[part], advantages[part], settings):
            gradients, new = update.accumulate(
                state.params, state.reference, gradients, shard_rows(batch, mesh)
            )
            sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
        assert sums is not None
        state, norm = update.apply(state, gradients, sums["tokens"])
        for name, value in jax.device_get(sums).items():
            totals[name] += float(value)
        totals["grad_norm"] += float(norm) / settings.updates
    tokens = max(totals.pop("tokens"), 1.0)
    means = {name: value if name == "grad_norm" else value / tokens for name, value in totals.items()}
    return state, {**means, "trained_tokens": tokens}


def policy_batches(
    groups: Sequence[Group], advantages: np.ndarray, settings: RLSettings
) -> list[PolicyBatch]:
    """The groups packed into micro-batches of one shape, each target token with its sample's advantage."""
    shape = settings.batch
    packed = pack_groups(
        [(group.prompt, group.samples.tokens) for group in groups],
        rows=shape.rows,
        tokens=shape.tokens,
        patches=shape.patches,
    )
    flat = advantages.reshape(-1)
    logprobs = np.zeros((flat.size, settings.max_new_tokens), np.float32)
    for number, values in enumerate(values for group in groups for values in group.samples.logprobs):
        logprobs[number, : len(values)] = values
    return [
        PolicyBatch(
            part.batch,
            np.where(part.sample_index >= 0, flat[part.sample_index], 0.0).astype(np.float32),
            np.where(part.sample_index >= 0, logprobs[part.sample_index, part.sample_offset], 0.0),
        )
        for part in packed
    ]


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
        kept += settings.accuracy_low < group.accuracy(settings.variant) < settings.accuracy_high
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
    return {
        **metrics,
        "sampled_tokens": float(np.sum(lengths)),
        "advantage_abs": float(np.abs(advantages).mean()),
        **{f"reward/{task}": float(np.mean(values)) for task, values in sorted(by_task.items())},
        **{f"sigma/{task}": float(sigma[i]) for i, task in enumerate(MOMENT_TASKS) if seen[i]},
    }
