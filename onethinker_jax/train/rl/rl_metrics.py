"""The metrics of an RL step: of its samples by task, of its speed, of the devices; and the table that shows them.

A name with a "/" is one of a group: "reward/OCR (image)" is the reward of a task, "seconds/update" a phase's time.
docs/training.md says what each is.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np

from onethinker_jax.tasks import BY_NAME, Task
from onethinker_jax.train.advantages import overlong_penalty
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.cost.hardware import GIB
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.rl.rollouts import Group, GroupStats

AnyGroup = TypeVar("AnyGroup", Group, GroupStats)

PASSED = 0.5
"""Share of the accuracy that a task gives at most, from which on a sample has passed: an overlap of 0.5, say."""

TABLE = {
    "reward": "reward",
    "accuracy": "accuracy",
    "format": "format",
    "structure": "structure",
    "pass_rate": "passed",
    "response_length": "tokens",
    "truncated": "cut off",
    "groups_kept": "kept",
    "sigma": "σ",
    "advantage_abs": "|A|",
}
"""Columns of the table on the console: metric -> heading."""


def rollout_metrics(drawn: Sequence[GroupStats], settings: RLSettings) -> dict[str, float]:
    """Means over all samples of the groups drawn for a step, kept or not: of all, and of each task.

    A step that waiting groups filled has drawn none, and no means.
    """
    metrics = {
        "prompts_drawn": float(len(drawn)),
        "sampled_tokens": float(sum(sum(group.lengths) for group in drawn)),
    }
    if not drawn:
        return metrics
    metrics |= _means(drawn, settings)
    for task, groups in by_task(drawn).items():
        metrics |= {f"{name}/{task}": value for name, value in _means(groups, settings).items()}
    if settings.loss.overlong == "penalty":
        metrics["overlong_penalty"] = float(np.mean(length_penalty(drawn, settings)))
    return metrics


def sampled_lengths(drawn: Sequence[GroupStats], settings: RLSettings) -> Iterator[dict[str, object]]:
    """A line of the run's lengths for each group drawn: tokens and patches of its prompt, tokens of its samples."""
    for group in drawn:
        kept = settings.accuracy_low < group.accuracy < settings.accuracy_high
        tokens, patches = group.prompt
        yield {"tokens": tokens, "patches": patches, "responses": group.lengths, "kept": kept}


def by_task(groups: Iterable[AnyGroup]) -> dict[Task, list[AnyGroup]]:
    """Task -> its groups, by name of the task."""
    found: dict[Task, list[AnyGroup]] = defaultdict(list)
    for group in groups:
        found[group.task].append(group)
    return dict(sorted(found.items()))


def _means(groups: Sequence[GroupStats], settings: RLSettings) -> dict[str, float]:
    scores = [score for group in groups for score in group.scores]
    passed = [score.accuracy >= PASSED * group.max_accuracy for group in groups for score in group.scores]
    low, high = settings.accuracy_low, settings.accuracy_high
    return {
        "reward": float(np.mean([score.overall for score in scores])),
        "accuracy": float(np.mean([score.accuracy for score in scores])),
        "format": float(np.mean([score.format for score in scores])),
        "structure": float(np.mean([score.structure for score in scores])),
        "pass_rate": float(np.mean(passed)),
        "response_length": float(np.mean([length for group in groups for length in group.lengths])),
        "truncated": 1 - float(np.mean([ended for group in groups for ended in group.ended])),
        "groups_kept": float(np.mean([low < group.accuracy < high for group in groups])),
    }


def length_penalty(groups: Sequence[GroupStats], settings: RLSettings) -> np.ndarray:
    """float32 [groups, G] in [-1, 0], before `settings.loss.overlong_penalty` multiplies it."""
    lengths = np.array([group.lengths for group in groups])
    return overlong_penalty(
        lengths, limit=settings.rollout.max_new_tokens, buffer=settings.loss.overlong_buffer
    )


def speed_metrics(
    metrics: Mapping[str, float], prompts: int, *, step_seconds: float, update_seconds: float
) -> dict[str, float]:
    """Rates and times of a step that trained on `prompts` groups and has these `metrics`.

    A rate of a phase is over the phase's own time, also where overlap lets the other run beside it.
    """
    sampled, trained = metrics["sampled_tokens"], metrics["trained_tokens"]
    rates = {
        "prompts_per_second": prompts / step_seconds,
        "tokens_per_second": (sampled + trained) / step_seconds,
        "tokens_per_second/update": trained / update_seconds,
    }
    if sampled:
        rates["tokens_per_second/rollout"] = sampled / metrics["seconds/rollout"]
    return {**rates, "seconds/step": step_seconds, "seconds/update": update_seconds}


def device_memory() -> dict[str, float]:
    """GiB in use, the most so far, and the limit, of the fullest local device; nothing on a platform without them."""
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    names = {"in_use": "bytes_in_use", "peak": "peak_bytes_in_use", "limit": "bytes_limit"}
    return {
        f"memory_gib/{ours}": max(one[theirs] for one in stats) / GIB
        for ours, theirs in names.items()
        if stats and all(theirs in one for one in stats)
    }


def show_table(log: RunLog, step: int, metrics: Mapping[str, float]) -> None:
    """Prints the metrics of a step on the console: a row a task, a line of the policy, one of the speed."""
    log.table(f"rl step {step:,}", ["task", *TABLE.values()], table_rows(metrics))
    for line in summary_lines(metrics):
        log.info(line)


def table_rows(metrics: Mapping[str, float]) -> list[list[object]]:
    """A row a task, and last one of all; None where a metric is not known of the task."""
    tasks = sorted(
        {name.partition("/")[2] for name in metrics if name.startswith(("reward/", "advantage_abs/"))}
    )
    rows: list[list[object]] = []
    for task in tasks:
        moments = BY_NAME[task].moments
        named = {name: metrics.get(f"{name}/{moments if name == 'sigma' else task}") for name in TABLE}
        rows.append([task, *map(_brief, named.keys(), named.values())])
    return [*rows, ["all tasks", *(_brief(name, metrics.get(name)) for name in TABLE)]]


def _brief(name: str, value: float | None) -> str | None:
    if value is None:
        return None
    if name in ("format", "pass_rate", "truncated", "groups_kept"):
        return f"{100 * value:.0f}%"
    return f"{value:.0f}" if name == "response_length" else f"{value:.3f}"


def summary_lines(metrics: Mapping[str, float]) -> list[str]:
    """The policy and the speed of a step, a line each."""
    policy = {
        "KL to the SFT model": ("kl_reference", "{:.4f}"),
        "KL to the sampler": ("kl_sampled", "{:.2e}"),
        "entropy": ("entropy", "{:.3f}"),
        "clipped below": ("clipped_low", "{:.2%}"),
        "above": ("clipped_high", "{:.2%}"),
        "mismatch": ("mismatch", "{:.1e}"),
        "gradient": ("grad_norm", "{:.3f}"),
    }
    speed = {
        "prompts/s": ("prompts_per_second", "{:.3g}"),
        "tokens/s sampled": ("tokens_per_second/rollout", "{:,.0f}"),
        "trained": ("tokens_per_second/update", "{:,.0f}"),
        "seconds": ("seconds/step", "{:.3g}"),
        "rollout": ("seconds/rollout", "{:.3g}"),
        "prompts": ("seconds/prompts", "{:.3g}"),
        "rewards": ("seconds/reward", "{:.3g}"),
        "waited for": ("seconds/reward_wait", "{:.3g}"),
        "update": ("seconds/update", "{:.3g}"),
        "MFU": ("mfu", "{:.1%}"),
        "memory GiB": ("memory_gib/peak", "{:.1f}"),
    }
    lines = []
    for title, facts in (("policy", policy), ("speed", speed)):
        known = (
            f"{label} {form.format(metrics[name])}"
            for label, (name, form) in facts.items()
            if name in metrics
        )
        lines.append(f"  {title}: " + ", ".join(known))
    return lines
