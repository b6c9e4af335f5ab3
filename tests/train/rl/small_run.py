"""A small RL run whose rewards are made up by a rule: its settings, the rule, and what a run leaves."""

import json
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.rewards.score import Score
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.log.log import read_metrics
from tests.train import making

SETTINGS = replace(
    shapes().rl,
    steps=4,
    prompts_per_step=4,
    num_minibatches=2,
    max_generation_rounds=6,
    accuracy_low=0.35,
    accuracy_high=0.65,
    rollout=SamplerSettings(prompt_tokens=96, prompt_patches=16, max_new_tokens=6, group_size=3),
    batch=BatchSettings(rows=2, tokens=160, patches=32),
    optimizer=OptimizerSettings(learning_rate=3e-3, schedule="constant", warmup=0.0),
    loss=PolicyLossSettings(kl_coefficient=0.05),
    save_every=3,
)
FIRST = 10  # number of the last checkpoint before RL
SEED = 7  # with which some groups are dropped and some wait for the next step


def luck(text: str) -> float:
    """A number in [0, 1) that depends on every byte of the text."""
    return zlib.crc32(text.encode()) / 2**32


class Rule:
    """Scores by `luck`; calls `then` when it is asked for the `at`-th time."""

    reward_weights = (1.0, 1.0, 0.0)

    def __init__(self, at: int = -1, then: Callable[[], Any] = lambda: None):
        self.count, self.at, self.then = 0, at, then
        self.given_up = threading.Event()

    def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        self.count += 1
        if self.count == self.at:
            self.then()
        shares = [[luck(text) for text in texts_of_prompt] for texts_of_prompt in texts]
        return [
            [Score(1 + share, share, 1.0, 0.0) for share in shares_of_prompt] for shares_of_prompt in shares
        ]

    def give_up(self) -> None:
        self.given_up.set()

    def max_accuracy(self, record: Record) -> float:
        return 1.0


def metrics(directory: Path) -> list[dict]:
    rows = read_metrics(directory / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not is_timed(name)} for row in rows]


def is_timed(name: str) -> bool:
    return name.startswith(("time", "prompts_per_second", "tokens_per_second", "seconds/", "host/"))


def same(ours: Any, theirs: Any) -> None:
    for name, values in making.named(ours).items():
        np.testing.assert_array_equal(values, making.named(theirs)[name], err_msg=name)


def saved(directory: Path, number: int) -> dict[str, Any]:
    """What a checkpoint keeps of the loop."""
    host = json.loads((directory / "checkpoints" / str(number) / "host" / "metadata").read_text())
    return host["hosts"][0]


def numbers(directory: Path) -> list[int]:
    """Of the checkpoints."""
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())
