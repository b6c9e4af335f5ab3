"""A model is asked about an image (or a video): reasoning and answer on the screen.

    hf download Qwen/Qwen3-VL-2B-Instruct --local-dir Qwen3-VL-2B-Instruct     # 4 GB; pip install huggingface_hub
    python examples/ask.py Qwen3-VL-2B-Instruct street.jpg "What is on the bench?"

Any Qwen3-VL or OneThinker directory will do, and what `train` exported: runs/NAME/model.
"""

import sys

import onethinker_jax

model, medium, question = sys.argv[1:4]
assistant = onethinker_jax.load(model, dtype="bfloat16", max_new_tokens=256)
answer = assistant.answer(medium, question)
sys.stdout.write(f"{answer.reasoning or ''}\n\n{answer}\n")
