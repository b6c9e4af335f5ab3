"""Benchmarks of tracking: one object's box through a video, given its first."""

from onethinker_jax.evaluate.benchmarks.task_metrics import TRACK
from onethinker_jax.evaluate.benchmarks.types import Benchmark, DataFile

ROWS: tuple[Benchmark, ...] = (
    Benchmark(
        name="eval_got10k",
        title="GOT-10k",
        family="tracking",
        files=(
            DataFile("onethinker", "eval_got10k.json"),
            DataFile("got-10k", "got10k/val", rows=180),
        ),
        split="val",
        metrics=TRACK,
        published={
            "AO": (0.337, 0.730),
            "R@0.3": (0.511, 0.939),
            "R@0.5": (0.289, 0.844),
            "R@0.7": (0.106, 0.688),
        },
        protocol="onethinker",
        note="The truth of GOT-10k's test videos is private, so the paper's rows must be of its validation videos.",
    ),
)
