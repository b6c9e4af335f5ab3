"""A training step of one small Qwen3-VL on the CPU: speed, memory and loss beside transformers in PyTorch.

    python -m benchmarks.training_step [--tokens 512] [--batch 4] [--rounds 5] [--remat dots]

The model of `benchmarks.generate` and `--batch` conversations of `--tokens` tokens, an image of 256 tokens in each; all
tokens are targets, all weights are trained. Two processes take turns: SFT's own update (`ours`), and
`AutoModelForImageTextToText` with sdpa, cross entropy and torch's fused AdamW (`transformers`). A step is forward,
backward, clipping and AdamW, in float32 unless `--dtype bfloat16`; with `--remat full` torch checkpoints layers too.
Memory is the process's largest resident size, minus that with the weights loaded. Both train the same weights on the
same batches, and their losses are printed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generate import GRID, IMAGE, make_checkpoint, make_prompt, our_example
from benchmarks.turns import answer_rounds, print_table, take_turns

VARIANTS = ("ours", "transformers")
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-4, 0.01, 1.0


def our_step(directory: Path, settings: argparse.Namespace) -> Callable[[int], dict[str, float]]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from onethinker_jax.data_pipeline.batches.packing import pack_rows
    from onethinker_jax.model.hf_weights import load_hf
    from onethinker_jax.model.sharding import make_mesh
    from onethinker_jax.train.advantages import init_moments
    from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings
    from onethinker_jax.train.config.sft import SFTSettings
    from onethinker_jax.train.optimizer import make_optimizer
    from onethinker_jax.train.policy import Policy
    from onethinker_jax.train.sft import sft_update
    from onethinker_jax.train.state import init_state

    mesh = make_mesh()
    jax.set_mesh(mesh)
    graphdef, params = nnx.split(load_hf(directory, dtype=jnp.dtype("float32"), remat=settings.remat))
    patches = int(GRID.prod())
    sft = SFTSettings(
        steps=settings.rounds + 1,
        accumulate=1,
        batch=BatchSettings(settings.batch, settings.tokens, patches),
        optimizer=OptimizerSettings(
            LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            max_grad_norm=MAX_NORM,
            schedule="constant",
            warmup=0.0,
        ),
        train_vision=True,
    )
    optimizer = make_optimizer(sft.optimizer, sft.steps, train_vision=True)
    update = sft_update(Policy(graphdef, mesh, settings.dtype), optimizer, sft)
    state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
    del params

    def call(number: int) -> dict[str, float]:
        nonlocal state
        examples = [our_example(settings.tokens, seed) for seed in seeds(number, settings)]
        batch, left = pack_rows(examples, rows=settings.batch, tokens=settings.tokens, patches=patches)
        assert not left
        gradients, sums = update.accumulate(state.params, None, None, batch, None)
        state, _ = update.apply(state, gradients, sums["tokens"], sums["loss"])
        jax.block_until_ready(state)
        return {"tokens": settings.batch * settings.tokens, "loss": float(sums["loss"] / sums["tokens"])}

    return call


def transformers_step(directory: Path, settings: argparse.Namespace) -> Callable[[int], dict[str, float]]:
    import torch
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    model.train()
    if settings.remat == "full":
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def call(number: int) -> dict[str, float]:
        parts = [make_prompt(settings.tokens, seed) for seed in seeds(number, settings)]
        ids = torch.tensor(np.stack([tokens for tokens, _ in parts]).astype(np.int64))
        pixels = torch.tensor(np.concatenate([pixels for _, pixels in parts])).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16"):
            loss = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == IMAGE).long(),
                pixel_values=(pixels / 255 - 0.5) / 0.5,
                image_grid_thw=torch.tensor(np.concatenate([GRID] * settings.batch)),
                labels=ids,
                use_cache=False,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return {"tokens": settings.batch * settings.tokens, "loss": loss.item()}

    return call


def seeds(number: int, settings: argparse.Namespace) -> range:
    """Of the examples of round `number`."""
    return range(number * settings.batch, (number + 1) * settings.batch)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="A training step on the CPU, against transformers in PyTorch."
    )
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.variant:
        make = our_step if settings.variant == "ours" else transformers_step
        answer_rounds(make(Path(settings.directory), settings))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        make_checkpoint(directory)
        found = take_turns("benchmarks.training_step", VARIANTS, directory, settings.rounds)
    title = f"{settings.batch} x {settings.tokens} tokens, an image in each, {settings.dtype}, remat {settings.remat}"
    print_table(title, found)
    for ours, theirs in zip(*found.values(), strict=True):
        sys.stdout.write(f"loss {ours['loss']:.7f} and {theirs['loss']:.7f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
