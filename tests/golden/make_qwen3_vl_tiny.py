"""Writes qwen3_vl_tiny.npz beside this file: what transformers computes for tiny models and fixed inputs.

Run from the root of the repository: `python -m tests.golden.make_qwen3_vl_tiny`. Weights and inputs are
formulas of `tests/model/tiny.py` and are not stored. Of each kind of input the file holds the float32
logits of every second token, and the 32 tokens of the greedy continuation without placeholders.
"""

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.model import tiny

FILE = Path(__file__).with_name("qwen3_vl_tiny.npz")
NAMES = {
    "tied": "tied",
    "untied": "untied, 3 queries a key, DeepStack into every layer",
    "experts": tiny.MOE,
}


def reference(name: str) -> Any:
    """The config's model, float32, eager attention, every parameter by the formula."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(tiny.CONFIGS[name].to_hf()))
        config = transformers.AutoConfig.from_pretrained(directory)
    kind = getattr(transformers, tiny.CONFIGS[name].to_hf()["architectures"][0])
    model = kind._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # experts are turned in the memory of transformers 5, the formula is of the released layout
            turned = parameter.mT if ".experts." in key else parameter
            turned.copy_(torch.tensor(tiny.formula(key, tuple(turned.shape))))
    return model.float().eval()


def main() -> None:
    torch.set_num_threads(1)
    versions = {"python": platform.python_version(), "transformers": transformers.__version__}
    arrays = {
        "made_with": np.array(json.dumps(versions | {"torch": torch.__version__, "numpy": np.__version__}))
    }
    for short, name in NAMES.items():
        model = reference(name)
        for kind in tiny.KINDS:
            one = tiny.example(kind)
            inputs = tiny.hf_inputs([one])
            with torch.no_grad():
                arrays[f"{short}/{kind}/logits"] = model(**inputs).logits[0, ::2].numpy()
            out = model.generate(
                **inputs,
                max_new_tokens=32,
                min_new_tokens=32,
                do_sample=False,
                suppress_tokens=list(tiny.SUPPRESSED),
                eos_token_id=None,
                pad_token_id=0,
            )
            arrays[f"{short}/{kind}/greedy"] = out[0, len(one.tokens) :].numpy().astype(np.int16)
    np.savez_compressed(FILE, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
