"""The exported directory in transformers against the checkpoint in this program: the same logits for one prompt.

Our side computes with the checkpoint's parameters, not with those of the directory, so that what is wrong on the way
into the files shows. Both sides compute in float32, one after the other.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.batches.packing import stack_prompts
from onethinker_jax.data_pipeline.processor.example import Example
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.errors import UserError
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.train.export.stored_model import StoredModel

_QUESTION = "<image>What is in the picture? Think, then answer."


class CheckError(UserError):
    """An exported directory that is not what the checkpoint is, or cannot be held against it."""


def check_directory(model: StoredModel, out: Path, tolerance: float) -> str:
    """What the comparison found, in one line.

    `tolerance` is the largest difference that passes, as a share of the largest logit. Raises CheckError where it is
    exceeded, or torch or transformers is not installed.
    """
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckError(f"{out} is written; --check needs {' and '.join(missing)}, not installed here")
    processor = Processor.from_pretrained(out)
    example = _example(processor)
    theirs, version = _their_logits(out, processor, example)
    ours = _our_logits(model, example)
    largest, difference = float(np.abs(theirs).max()), float(np.abs(ours - theirs).max())
    agreeing = float(np.mean(ours.argmax(-1) == theirs.argmax(-1)))
    found = (
        f"largest difference of logits to transformers {version}: {difference:.2e}, of logits up to {largest:.3g}, "
        f"over {len(ours)} tokens; the same best token at {agreeing:.1%}"
    )
    if not difference <= tolerance * largest:  # also where it is NaN
        raise CheckError(f"{out}: {found}; --check-tolerance allows {tolerance * largest:.2e}")
    return found


def _example(processor: Processor) -> Example:
    """A question about a made picture."""
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    messages = [{"role": "user", "content": _QUESTION}]
    return processor(messages, images=[picture], add_generation_prompt=True)


def _our_logits(model: StoredModel, example: Example) -> np.ndarray:
    """float32 [T, vocabulary]."""
    tokens, patches = len(example.tokens), len(example.patches)
    inputs, _ = stack_prompts([example], tokens=-(-tokens // 128) * 128, patches=-(-patches // 128) * 128)
    graphdef, params = nnx.split(model.merged_policy(jnp.float32))

    @jax.jit
    def forward(params: nnx.State, inputs: ModelInputs) -> jax.Array:
        policy = nnx.merge(graphdef, params)
        return policy.logits(policy(inputs))

    return np.asarray(forward(params, inputs))[0, :tokens]


def _their_logits(out: Path, processor: Processor, example: Example) -> tuple[np.ndarray, str]:
    """float32 [T, vocabulary], and the version of transformers that computed them."""
    tokens = example.tokens.astype(np.int64)[None]
    inputs = {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "mm_token_type_ids": (tokens == processor.image_token_id).astype(np.int64),
        "pixel_values": ((example.patches.astype(np.float64) / 255 - 0.5) / 0.5).astype(np.float32),
        "image_grid_thw": example.grids.astype(np.int64),
    }
    with tempfile.TemporaryDirectory() as folder:
        given, logits = Path(folder) / "inputs.npz", Path(folder) / "logits.npy"
        np.savez(given, **inputs)
        command = [
            sys.executable,
            "-m",
            f"{__package__}.transformers_logits",
            str(out),
            str(given),
            str(logits),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            raise CheckError(f"{out} cannot be loaded in transformers: {said}")
        return np.load(logits), done.stdout.split()[-1]
