"""EMA-GRPO of a model on questions of one's own: the four of own_data/rl.json, with their pictures and true answers.

    python examples/rl_own_data.py runs/own_sft/model
    python examples/rl_own_data.py runs/own_sft/model --reward.module examples/own_reward.py:brief_and_right

Needs a model that answers with <think> and <answer> now and then: what SFT made, or a released OneThinker. Four
questions teach nothing: put yours in their place. The preset is for 8 TPU chips; flags after the model are the
trainer's. The model comes out in runs/own_rl/model.
"""

import sys
from pathlib import Path

from onethinker_jax.train.__main__ import main

DATA = Path(__file__).parent / "own_data"

if __name__ == "__main__":
    model, *flags = sys.argv[1:]
    command = ["qwen3_vl_2b_rl", "--name", "own_rl", "--model.init-from", model, "--rl.steps", "10"]
    command += ["--data.rl-file", str(DATA / "rl.json"), "--data.heldout-file", str(DATA / "eval.json")]
    sys.exit(main([*command, *flags]))
