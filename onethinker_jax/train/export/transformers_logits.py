"""transformers' logits of a prompt, in a process of its own: the only one of the export that imports torch.

python -m onethinker_jax.train.export.transformers_logits MODEL INPUTS.npz LOGITS.npy

INPUTS holds the arrays that the model is called with; LOGITS gets float32 [T, vocabulary], computed in float32.
Prints the version of transformers.
"""

import sys
from typing import Any

import numpy as np
import torch
import transformers


def main(model: str, inputs: str, logits: str) -> None:
    """Raises SystemExit naming tensors that do not find their place."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loaded: Any = transformers.AutoModelForImageTextToText.from_pretrained(
        model, dtype=torch.float32, output_loading_info=True
    )
    found, info = loaded
    wrong = [f"{kind} {sorted(info[kind])[0]}" for kind in ("missing_keys", "unexpected_keys") if info[kind]]
    if wrong:
        raise SystemExit(f"transformers: {', '.join(wrong).replace('_keys', '')}")
    with np.load(inputs) as arrays, torch.no_grad():
        given = {name: torch.tensor(arrays[name]) for name in arrays.files}
        np.save(logits, found.eval()(**given).logits[0].numpy())
    sys.stdout.write(f"{transformers.__version__}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
