"""Sampling G answers to one long prompt: speed and memory, against no sharing of the prompt and against transformers.

    python -m benchmarks.generate [--prompt 2048] [--response 512] [--samples 8] [--rounds 2]

One Qwen3-VL (512-wide 8-layer text, 384-wide 8-layer vision, vocabulary 8,192, random weights) and one prompt, an
image of 256 tokens and text, in three processes that take turns:

- `shared`: the sampler, the G samples in one row;
- `repeated`: the same sampler, each sample as a prompt of its own;
- `transformers`: `generate(num_return_sequences=G)` in PyTorch, without `--no-transformers`.

Every answer is drawn at temperature 1 and has exactly `--response` tokens. Seconds are those of a whole call,
vision and prefill included, after ours have compiled; memory is the process's largest resident size, minus that
with the weights loaded.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import answer_rounds, print_table, take_turns
from onethinker_jax.data_pipeline.batches.packing import stack_prompts
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.model.inputs import ModelInputs, mrope_positions, patch_geometry

VARIANTS = ("shared", "repeated", "transformers")
IMAGE, VIDEO, START, END = 8188, 8189, 8190, 8191
SUPPRESSED = (IMAGE, VIDEO, START, END)
GRID = np.array([[1, 32, 32]])  # patches of the image: 256 tokens
IMAGE_TOKENS = int(GRID.prod()) // 4
GRID_SIDE = 16


def make_checkpoint(directory: Path) -> None:
    from flax import nnx

    from onethinker_jax.model.config import Qwen3VLConfig, TextConfig, VisionConfig
    from onethinker_jax.model.hf_weights import save_hf
    from onethinker_jax.model.qwen3_vl import Qwen3VL

    config = Qwen3VLConfig(
        text=TextConfig(
            vocab_size=8192,
            hidden_size=512,
            intermediate_size=1536,
            num_layers=8,
            num_heads=8,
            num_kv_heads=4,
            head_dim=64,
            mrope_section=(12, 10, 10),
        ),
        vision=VisionConfig(
            depth=8,
            hidden_size=384,
            intermediate_size=1536,
            num_heads=6,
            out_hidden_size=512,
            num_position_embeddings=GRID_SIDE**2,
            deepstack_layers=(1, 3, 5),
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=True,
    )
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), directory)


def make_prompt(length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [S] of text around one image, and its patches, uint8 [P, 1536]."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, IMAGE, length - IMAGE_TOKENS - 2)
    image = [START, *[IMAGE] * IMAGE_TOKENS, END]
    tokens = np.concatenate([text[:16], image, text[16:]]).astype(np.int32)
    return tokens, rng.integers(0, 256, (int(GRID.prod()), 1536)).astype(np.uint8)


def our_example(length: int, seed: int = 0) -> Example:
    """The prompt as an example whose every token is a target."""
    tokens, patches = make_prompt(length, seed)
    positions = mrope_positions(
        tokens,
        GRID,
        None,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        merge=2,
    )
    frame_ids, coords, index, weight = patch_geometry(GRID, 2, GRID_SIDE)
    visual = tokens == IMAGE
    return Example(
        tokens=tokens,
        positions=positions,
        loss_mask=np.ones(len(tokens), bool),
        visual_index=np.where(visual, np.cumsum(visual) - 1, -1).astype(np.int32),
        patches=patches,
        grids=GRID.astype(np.int32),
        frame_ids=frame_ids,
        coords=coords,
        embed_index=index,
        embed_weight=weight,
        next_position=int(positions.max()) + 1,
    )


def our_sampler(directory: Path, settings: argparse.Namespace) -> Callable[[int], dict[str, float]]:
    """(round) -> {"tokens": how many were drawn}; in round 0 everything is compiled."""
    import jax.numpy as jnp
    from flax import nnx

    from onethinker_jax.model.generation.continuous_batching import ContinuousBatching, Prompts
    from onethinker_jax.model.generation.generate import GenerationShape
    from onethinker_jax.model.generation.sampling import SamplingConfig
    from onethinker_jax.model.hf_weights import load_hf

    prompt = our_example(settings.prompt)
    size = len(prompt.tokens), len(prompt.patches)
    graphdef, params = nnx.split(load_hf(directory, dtype=jnp.dtype(settings.dtype)))
    shared = settings.variant == "shared"
    prompt_slots, sample_slots = (1, settings.samples) if shared else (settings.samples, 1)
    shape = GenerationShape(
        prompt_slots=prompt_slots,
        sample_slots=sample_slots,
        prompt_buckets=(size,),
        prefill_rows=1,
        kv_dtype=settings.kv_dtype or settings.dtype,
    )
    config = SamplingConfig(settings.response, eos_ids=(), suppressed_ids=SUPPRESSED)
    decoding = ContinuousBatching(graphdef, config, shape)

    def stack(numbers: Any, *_: int) -> tuple[ModelInputs, np.ndarray, np.ndarray]:
        inputs, lengths = stack_prompts([prompt] * len(numbers), tokens=size[0], patches=size[1])
        return inputs, lengths, np.full(len(numbers), prompt.next_position, np.int32)

    prompts = Prompts([size] * prompt_slots, stack)

    def call(number: int) -> dict[str, float]:
        if number == 0:
            decoding.warm_up(params)
            return {"tokens": 0}
        parts = decoding(params, prompts, group_size=sample_slots, seed=0, step=number)
        return {"tokens": sum(len(one.tokens) for part in parts for one in part)}

    return call


def transformers_sampler(directory: Path, settings: argparse.Namespace) -> Callable[[int], dict[str, float]]:
    import torch
    from transformers import AutoModelForImageTextToText

    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=getattr(torch, settings.dtype))
    model = model.to(device).eval()
    tokens, patches = make_prompt(settings.prompt)
    pixels = torch.tensor((patches.astype(np.float32) / 255 - 0.5) / 0.5)
    ids = torch.tensor(tokens[None].astype(np.int64))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": pixels.to(getattr(torch, settings.dtype)),
        "image_grid_thw": torch.tensor(GRID),
    }
    inputs = {name: value.to(device) for name, value in inputs.items()}

    def call(number: int) -> dict[str, float]:
        torch.manual_seed(number)
        with torch.no_grad():
            out = model.generate(
                **inputs,
                num_return_sequences=settings.samples,
                max_new_tokens=settings.response,
                min_new_tokens=settings.response,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                suppress_tokens=list(SUPPRESSED),
                eos_token_id=None,
                pad_token_id=0,
            )
        return {"tokens": out.shape[0] * (out.shape[1] - len(tokens))}

    return call


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed and memory of sampling G answers to one long prompt.")
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--response", type=int, default=512)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--kv-dtype", choices=("float32", "bfloat16", "int8"), help="of our KV cache")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.variant:
        make = transformers_sampler if settings.variant == "transformers" else our_sampler
        answer_rounds(make(Path(settings.directory), settings))
        return 0
    if settings.prompt < IMAGE_TOKENS + 32:
        parser.error(f"--prompt {settings.prompt}: the image alone has {IMAGE_TOKENS} tokens")
    names = [name for name in VARIANTS if not (settings.no_transformers and name == "transformers")]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        make_checkpoint(directory)
        found = take_turns("benchmarks.generate", names, directory, settings.rounds)
    print_table(
        f"{settings.samples} samples of {settings.response} tokens, prompt of {settings.prompt}, {settings.dtype}",
        found,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
