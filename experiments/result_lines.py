"""A finished run -> its line of results, and the file of lines: one JSON object a trial, appended whole.

A line holds what tables and pictures need, so that the run's folder may go:

    run, arm, mixture, seed, learning_rate     the trial
    settings                                   the digest of its settings, model and records
    code                                       version and commit
    heldout     {"greedy" | "sampled": {task: [records, accuracy, reward, format]}}, means; accuracy as a share of the
                task's largest. `none` holds the SFT model's
    records     {task: [accuracy]} of every greedy answer, in the order of the held-out records, in percent of the most
    curves      {name: [a number a step]}: reward, sigma, entropy, … ; {"reward/<task>": …}; null where there is none
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.arms import BASELINE
from experiments.trials import Trial
from onethinker_jax.errors import UserError
from onethinker_jax.rewards.score import max_accuracy
from onethinker_jax.tasks import BY_NAME
from onethinker_jax.text_output import json_text
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.log.log import read_metrics

CURVES = (
    *("reward", "accuracy", "format", "response_length", "truncated", "groups_kept", "prompts_drawn"),
    *("advantage_abs", "grad_norm", "entropy", "clipped_low", "clipped_high", "kl_sampled", "kl_reference"),
    *("seconds/step", "seconds/rollout", "seconds/update"),
)
CURVES_BY_TASK = ("reward", "sigma")
DIGITS = 4


class ResultsError(UserError, ValueError):
    """A file of results that cannot be used: a broken line, or one of other settings. One line naming it."""


def result_line(trial: Trial, config: TrainConfig, *, digest: str, code: str) -> dict[str, Any]:
    """The line of a trial whose run has finished."""
    folder, stage = config.folder, "fresh" if trial.arm == BASELINE else "rl"
    rows = [row for row in read_metrics(folder.metrics) if row["stage"] == "rl"]
    scores = {
        kind: _by_task(folder.answers(stage, sampled=kind == "sampled"), config)
        for kind in ("greedy", "sampled")
    }
    return {
        "run": trial.name,
        "arm": trial.arm,
        "mixture": trial.mixture,
        "seed": trial.seed,
        "learning_rate": config.rl.optimizer.learning_rate,
        "settings": digest,
        "code": code,
        "heldout": {kind: _means(of_tasks) for kind, of_tasks in scores.items()},
        "records": {
            task: [round(100 * accuracy) for accuracy, _, _ in rows]
            for task, rows in scores["greedy"].items()
        },
        "curves": _curves(rows),
    }


def _by_task(file: Path, config: TrainConfig) -> dict[str, list[list[float]]]:
    """Task -> accuracy (as a share of the largest), reward and format of its answers, in the order of the file."""
    scores: dict[str, list[list[float]]] = defaultdict(list)
    for row in read_lines(file):
        task, reward = BY_NAME[row["task"]], config.reward
        most = max_accuracy(task.problem_type, task.medium, reward.variant, reward)
        scores[row["task"]].append([row["accuracy"] / most, row["overall"], row["format"]])
    return dict(sorted(scores.items()))


def _means(scores: Mapping[str, list[list[float]]]) -> dict[str, list[float]]:
    """Task -> number of its answers, and the means of accuracy, reward and format."""
    return {
        task: [len(rows), *(round(float(mean), DIGITS) for mean in np.mean(rows, axis=0))]
        for task, rows in scores.items()
    }


def _curves(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    found = {name for row in rows for name in row}
    names = [name for name in CURVES if name in found]
    names += sorted(name for name in found if name.partition("/")[0] in CURVES_BY_TASK and "/" in name)
    return {
        name: [None if row.get(name) is None else float(f"{row[name]:.{DIGITS}g}") for row in rows]
        for name in names
    }


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none where it is missing.

    A last line that a killed process cut short is left out, and `append_line` overwrites it. Raises ResultsError naming
    any other broken line.
    """
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else [""]
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ResultsError(f"{file}: line {number} is not JSON ({error})") from None
    return found


def append_line(file: Path, line: dict[str, Any]) -> None:
    """Adds a line, whole and on the disk, in the place of one that was cut short."""
    with file.open("ab+") as opened:
        opened.seek(0)
        opened.truncate(opened.read().rfind(b"\n") + 1)
        opened.write(json_text(line).encode() + b"\n")
        opened.flush()
        os.fsync(opened.fileno())


def check_lines(file: Path, wanted: Mapping[str, str]) -> set[str]:
    """The names of these runs, to the digests of their settings, that have a line already.

    Raises ResultsError naming a run whose line is of other settings.
    """
    standing = {line["run"]: line["settings"] for line in read_lines(file)}
    for name in wanted.keys() & standing.keys():
        if standing[name] != wanted[name]:
            raise ResultsError(
                f"{file}: the line of run {name} is of other settings, records or another SFT model "
                f"({standing[name]}, not {wanted[name]}): choose another folder, or delete that line"
            )
    return wanted.keys() & standing.keys()
