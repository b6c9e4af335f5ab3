"""Time of scoring a batch of responses to all eleven kinds of problem, here and in a pool of processes.

    python -m benchmarks.rewards_scoring [--responses 1024] [--workers 2] [--repeats 5]

The batch is drawn from a seed: groups of eight responses to a prompt, half of the prompts with videos; of a
group's answers one is right, some are near, some are malformed. Each batch draws other numbers, so that no
verdict on mathematics is remembered from the one before; within a group answers repeat, as rollouts do.
Open-ended answers are scored by ROUGE in the same processes. Wall time is what a trainer would wait;
processor time is that of this process and its workers together.
"""

import argparse
import functools
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onethinker_jax.rewards.score import RewardSettings, Score, Variant
from onethinker_jax.rewards.score_pool import UNJUDGED, ScorePool, ScoreRequest, score_request
from onethinker_jax.tasks import PROBLEM_TYPES

GROUP = 8
WORDS = ["a", "the", "red", "blue", "circle", "square", "turns", "moves", "left", "right", "slowly", "waits"]


def _box(draw: random.Random) -> list[float]:
    x, y = draw.randint(0, 600), draw.randint(0, 600)
    return [x, y, x + draw.randint(50, 400), y + draw.randint(50, 400)]


def _points(draw: random.Random) -> list[list[float]]:
    return [[draw.randint(0, 1000), draw.randint(0, 1000)] for _ in range(3)]


def _truth(kind: str, video: bool, draw: random.Random) -> Any:
    first, last = draw.randint(0, 9), draw.randint(10, 30)
    if kind == "multiple choice":
        return draw.choice("ABCD")
    if kind in ("numerical", "regression"):
        return f"{draw.uniform(1, 500):.2f}"
    if kind == "math":
        a, b, c = (draw.randint(2, 99) for _ in range(3))
        return draw.choice([f"$\\frac{{{a}}}{{{b}}}$", f"${a}\\sqrt{{{b}}}$", f"${a}x^2+{b}x+{c}$", f"{a}"])
    if kind in ("OCR", "open-ended"):
        return " ".join(draw.choices(WORDS, k=12 if kind == "OCR" else 40))
    by_second = {str(second): _box(draw) for second in range(first, last)}
    return {
        "temporal grounding": {"time": [first, last]},
        "spatial grounding": {"boxes": _box(draw)},
        "spatial-temporal grounding": {"time": [first, last], "boxes": by_second},
        "tracking": {"boxes": by_second},
        "segmentation": {
            "boxes": _box(draw),
            "positive_points": _points(draw),
            "negative_points": _points(draw),
            **({"time": first} if video else {}),
        },
    }[kind]


def _near(value: Any, draw: random.Random) -> Any:
    """The truth with its numbers moved, or words left out; one in eight cut off in the middle."""
    if isinstance(value, dict):
        return {key: _near(inside, draw) for key, inside in value.items()}
    if isinstance(value, list):
        return [_near(inside, draw) for inside in value]
    if isinstance(value, (int, float)):
        return round(value + draw.uniform(-40, 40), 1)
    words = [word for word in value.split() if draw.random() > 0.2]
    return " ".join(words) + draw.choice(["", "", "+1", " 2"])


def batch(responses: int, seed: int) -> list[ScoreRequest]:
    """`responses` requests in groups of eight over all eleven kinds of problem."""
    draw = random.Random(seed)
    requests: list[ScoreRequest] = []
    while len(requests) < responses:
        kind, video = PROBLEM_TYPES[len(requests) // GROUP % len(PROBLEM_TYPES)], draw.random() < 0.5
        truth = _truth(kind, video, draw)
        answers = [truth] + [_near(truth, draw) for _ in range(3)]
        for _ in range(GROUP):
            value = draw.choice(answers)
            text = value if isinstance(value, str) else json.dumps(value)
            text = text[: len(text) // 2] if draw.random() < 0.125 else text
            thoughts = " ".join(draw.choices(WORDS, k=draw.randint(50, 400)))
            requests.append(
                ScoreRequest(
                    f"<think>{thoughts}</think><answer>{text}</answer>",
                    f"<answer>{truth if isinstance(truth, str) else json.dumps(truth)}</answer>",
                    "question",
                    kind,
                    "video" if video else "image",
                )
            )
    return requests[:responses]


def processor_seconds() -> float:
    """The CPU seconds of this process and of all its descendants."""
    ticks, pending = 0, [os.getpid()]
    while pending:
        process = Path("/proc") / str(pending.pop())
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for children in process.glob("task/*/children"):
            pending += [int(child) for child in children.read_text().split()]
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(
    name: str,
    score: Callable[[list[ScoreRequest]], list[Score]],
    arguments: argparse.Namespace,
    seeds: Iterator[int],
) -> None:
    score(batch(arguments.responses, next(seeds)))  # starts workers, imports libraries
    walls, used = [], []
    for _ in range(arguments.repeats):
        requests = batch(arguments.responses, next(seeds))
        before, began = processor_seconds(), time.perf_counter()
        scores = score(requests)
        walls.append(time.perf_counter() - began)
        used.append(processor_seconds() - before)
        assert len(scores) == arguments.responses
    sys.stdout.write(
        f"{name:<28} wall {min(walls):.2f} s best, {statistics.median(walls):.2f} s median;  "
        f"processor {statistics.median(used):.2f} s median\n"
    )


def score_here(requests: list[ScoreRequest], settings: RewardSettings) -> list[Score]:
    return [score_request(request, UNJUDGED, settings) for request in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of scoring a batch of mixed responses.")
    parser.add_argument("--responses", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    variants: tuple[Variant, ...] = ("paper", "released")
    seeds = itertools.count()
    with ScorePool(arguments.workers) as pool:
        for variant in variants:
            here = functools.partial(score_here, settings=RewardSettings(variant=variant))
            measure(f"{variant}, this process", here, arguments, seeds)
            pooled = functools.partial(pool.score, settings=RewardSettings(variant=variant))
            measure(f"{variant}, {arguments.workers} processes", pooled, arguments, seeds)


if __name__ == "__main__":
    main()
