"""A reward of one's own: the right answer earns more when it comes after less reasoning.

    python -m onethinker_jax.train qwen3_vl_2b_rl --name brief --model.init-from runs/cold/model \
        --data.rl-file rl.json --data.heldout-file eval.json --reward.module examples/own_reward.py:brief_and_right

The function is asked once for each response, in processes of its own; docs/rewards.md says what it is given.
"""

from typing import Any

from onethinker_jax.rewards import Score, score_response

FREE = 400  # characters of a response that cost nothing
LONG = 4000  # from here on a right answer earns half


def brief_and_right(record: dict[str, Any], response: str) -> Score:
    """The released code's accuracy, half of it lost with length; 0.1 of the reward is the form."""
    plain = score_response(
        response,
        record["answer"],
        problem_type=record["problem_type"],
        data_type=record["data_type"],
        options=record["options"],
        variant="released",  # whose accuracy is in [0, 1] for every task
    )
    too_long = min(max(len(response) - FREE, 0) / (LONG - FREE), 1.0)
    reward = 0.9 * plain.accuracy * (1 - too_long / 2) + 0.1 * plain.format
    return Score(reward, plain.accuracy, plain.format, structure=float(plain.structure > 0))
