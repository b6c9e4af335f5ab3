"""SFT of a pretrained model on conversations of one's own: the three of own_data/sft.json, with their pictures.

    hf download Qwen/Qwen3-VL-2B-Instruct --local-dir Qwen3-VL-2B-Instruct     # 4 GB; pip install huggingface_hub
    python examples/sft_own_data.py Qwen3-VL-2B-Instruct

Three conversations teach nothing: put yours in their place. The preset is for 8 TPU chips; flags after the model are
the trainer's, such as --mesh.fsdp 1 on one chip. The model comes out in runs/own_sft/model.
"""

import sys
from pathlib import Path

from onethinker_jax.train.__main__ import main

DATA = Path(__file__).parent / "own_data"

if __name__ == "__main__":
    model, *flags = sys.argv[1:]
    command = ["qwen3_vl_2b_sft", "--name", "own_sft", "--model.init-from", model, "--sft.steps", "10"]
    command += ["--data.sft-file", str(DATA / "sft.json"), "--data.heldout-file", str(DATA / "eval.json")]
    sys.exit(main([*command, *flags]))
