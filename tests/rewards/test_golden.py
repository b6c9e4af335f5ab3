"""The released variant against 600 inputs and the published code's own numbers for them."""

import json
from functools import partial
from typing import Any

import pytest

from onethinker_jax.rewards import score_response
from onethinker_jax.tasks import PROBLEM_TYPES
from tests.places import GOLDEN
from tests.waiting import is_quick

ROWS = [json.loads(line) for line in (GOLDEN / "rewards_released.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_released_numbers(problem_type):
    rows = [row for row in ROWS if row["problem_type"] == problem_type]
    assert rows
    for row in rows:
        score = score_response(
            row["response"],
            row["ground_truth"],
            problem_type=problem_type,
            data_type=row["data_type"],
            variant="released",
        )
        wanted = row["released"]
        found = (score.overall, score.accuracy, score.format, score.structure)
        names = ("overall", "accuracy", "format", "structure_reward")
        assert found == pytest.approx([wanted[name] for name in names], abs=1e-5), row


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_batch_of_128_is_quick(variant):
    def score_all(rows):
        for row in rows:
            task: dict[str, Any] = {"problem_type": row["problem_type"], "data_type": row["data_type"]}
            score_response(row["response"], row["ground_truth"], variant=variant, **task)

    score_all(ROWS[128:256])  # imports, and the worker that compares mathematics
    assert is_quick(partial(score_all, ROWS[:128]), 0.3)
