"""Lines of results that are made up: numbers that tests can be worked out from, of no run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.arms import METHODS
from experiments.gradients import BINS

RECORDS = {
    "multiple choice (image)": 30,
    "math (video)": 10,
    "open-ended (image)": 20,
    "temporal grounding (video)": 20,
    "tracking (video)": 20,
}


def line(
    arm: str,
    seed: int,
    accuracy: Mapping[str, float],
    *,
    mixture: str = "mixed",
    rate: float = 5e-4,
    steps: int = 12,
) -> dict[str, Any]:
    """A line whose tasks have these accuracies, and 0.3 where none is given; the reward is 0.6 more."""
    tasks = {
        task: [count, accuracy.get(task, 0.3), accuracy.get(task, 0.3) + 0.6, 1.0]
        for task, count in RECORDS.items()
    }
    drawn = np.random.default_rng(seed)
    curves: dict[str, list[float | None]] = {
        name: [
            round(float(value), 3)
            for value in 0.5 + 0.02 * np.arange(steps) + 0.05 * drawn.normal(size=steps)
        ]
        for name in ("reward", "entropy", "sigma/math", "sigma/tracking", "seconds/step")
    }
    curves["sigma/tracking"][0] = None
    name = "none" if arm == "none" else f"{mixture}-{arm}-{rate:g}-seed_{seed}"
    return {
        "run": name,
        "arm": arm,
        "mixture": mixture,
        "seed": seed,
        "learning_rate": rate,
        "settings": "0",
        "code": "made up",
        "heldout": {"greedy": tasks, "sampled": tasks},
        "records": {task: [round(100 * row[1])] * round(row[0]) for task, row in tasks.items()},
        "curves": {} if arm == "none" else curves,
    }


def study(seeds: int = 3) -> list[dict[str, Any]]:
    """The SFT model, every method, sweeps, two mixtures and two learning rates, tracking rising by some points."""
    lines = [line("none", 0, {})]
    for seed in range(seeds):
        for number, arm in enumerate(METHODS):
            gained = {"tracking (video)": 0.4 - 0.02 * number + 0.01 * seed}
            lines.append(line(arm, seed, gained))
            lines.append(line(arm, seed, gained, mixture="sparse"))
            lines.append(line(arm, seed, gained, rate=1e-3))
        lines.append(line("decay_0.9", seed, {"math (video)": 0.35}))
        lines.append(line(METHODS[0], seed, {"math (video)": 0.3 + 0.01 * seed}, mixture="without_tracking"))
    return lines


def gradients() -> list[dict[str, Any]]:
    """Lines as `experiments.gradient_shares` writes them."""
    drawn = np.random.default_rng(0)

    def parts(names: tuple[str, ...]) -> dict[str, dict[str, float]]:
        shares = drawn.dirichlet(np.ones(len(names)))
        return {
            name: {"groups": 4, "norm": 1.0, "share": float(share), "cosine": 0.5, "advantage": 0.7}
            for name, share in zip(names, shares, strict=True)
        }

    return [
        {
            "model": "model",
            "seed": 0,
            "arm": arm,
            "groups": 20,
            "norm": 1.0,
            "sigma": {},
            "tasks": parts(tuple(RECORDS)),
            "bins": parts(BINS),
        }
        for arm in METHODS
    ]
