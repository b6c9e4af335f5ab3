"""A task of one's own without a change to the package: estimating, where a near number earns a part of the reward.

    python examples/own_task.py runs/own_sft/model

Its questions are records of the problem type whose answer has the same form, here `numerical`; its wording is a prompt
file, its reward the function below. A task with an answer form of its own is an entry in onethinker_jax/tasks.py:
docs/rewards.md, "Adding a task". Flags after the model are the trainer's; the model comes out in
runs/own_task/model, with the wording in its prompts.json.
"""

import re
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "own_data"


def near(record: dict[str, Any], response: str) -> float:
    """1 for the true number, 0 for one that is off by half of it or more; nothing without an answer."""
    answer = re.search(r"<answer>\s*(-?[\d.]+)\s*</answer>", response)
    true = re.search(r"-?[\d.]+", record["answer"])
    if answer is None or true is None:
        return 0.0
    try:
        off = abs(float(answer[1]) - float(true[0]))
    except ValueError:  # such as 1.2.3
        return 0.0
    return max(0.0, 1 - 2 * off / max(abs(float(true[0])), 1.0))


if __name__ == "__main__":
    from onethinker_jax.train.__main__ import main

    model, *flags = sys.argv[1:]
    command = ["qwen3_vl_2b_rl", "--name", "own_task", "--model.init-from", model, "--rl.steps", "10"]
    command += ["--data.rl-file", str(DATA / "estimates.json")]
    command += ["--data.heldout-file", str(DATA / "estimates_eval.json")]
    command += ["--data.prompt-file", str(DATA / "estimates.toml"), "--reward.module", f"{__file__}:near"]
    sys.exit(main([*command, *flags]))
