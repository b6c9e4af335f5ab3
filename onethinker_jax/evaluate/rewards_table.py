"""The mean rewards of the answers by task, as RL sees them: rewards.json, and a table on the console."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.files import write_whole

logger = logging.getLogger("onethinker_jax.evaluate")

NAME = "rewards.json"
ALL = "all tasks"
_VALUES = ("overall", "accuracy", "format", "mask_iou")


def mean_rewards(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Task -> `answers`, `failed`, and the means over its lines of predictions that did not fail; last all tasks."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        short = {name: row.get(name) for name in (*_VALUES, "failed")}
        found.setdefault(row["task"], []).append(short)
    tasks = {task: found[task] for task in sorted(found)}
    return {
        task: _means(some)
        for task, some in {**tasks, ALL: [row for some in found.values() for row in some]}.items()
    }


def _means(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    answered = [row for row in rows if row["failed"] is None]
    values = {name: [row[name] for row in answered if row[name] is not None] for name in _VALUES}
    means = {name: float(np.mean(some)) if some else None for name, some in values.items()}
    return {"answers": len(answered), "failed": len(rows) - len(answered), **means}


def write_rewards(folder: Path, rows: Iterable[Mapping[str, Any]], *, name: str) -> None:
    """Writes rewards.json and prints its lines, under one that names the benchmark."""
    means = mean_rewards(rows)
    logger.info("%s, mean rewards as in training:", name)
    write_whole(folder / NAME, json.dumps(means, indent=2) + "\n")
    for task, one in means.items():
        numbers = [f"{name} {one[name]:.3f}" for name in _VALUES[:3] if one[name] is not None]
        numbers += [f"mask IoU {one['mask_iou']:.3f}"] if one["mask_iou"] is not None else []
        numbers += [f"{one['failed']:,} failed"] if one["failed"] else []
        logger.info("%-36s %5d answers  %s", task, one["answers"], "  ".join(numbers))
