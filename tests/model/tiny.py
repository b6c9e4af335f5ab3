"""Tiny Qwen3-VLs and inputs for the tests of this folder: weights by an exact formula, none at its default.

Weights come from an integer hash of the tensor's Hugging Face name and element number, inputs from the same
hash, so that both are the same bits on every machine and with every library version. Norm weights are not 1
and biases not 0, so that no parameter can be left out unseen.
"""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from onethinker_jax.model.config import MoEConfig, Qwen3VLConfig, TextConfig, VisionConfig
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.inputs import ModelInputs, VisionInputs, mrope_positions, patch_geometry
from onethinker_jax.model.qwen3_vl import Qwen3VL

IMAGE, VIDEO, START, END = 150, 151, 152, 153
SUPPRESSED = (IMAGE, VIDEO, START, END)
ROWS, TOKENS, PATCHES = 3, 96, 128  # the shape of most batches: one compilation a config

BASE = Qwen3VLConfig(
    text=TextConfig(
        vocab_size=160,
        hidden_size=64,
        intermediate_size=96,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        mrope_section=(4, 2, 2),
    ),
    vision=VisionConfig(
        depth=3,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        out_hidden_size=64,
        num_position_embeddings=64,
        deepstack_layers=(0, 2),
    ),
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
    tie_word_embeddings=True,
)


def variant(
    *, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **top: Any
) -> Qwen3VLConfig:
    """`BASE` with other fields in its parts."""
    return replace(
        BASE, text=replace(BASE.text, **(text or {})), vision=replace(BASE.vision, **(vision or {})), **top
    )


MOE = "experts, untied"
CONFIGS = {
    "tied": BASE,
    "untied, 3 queries a key, DeepStack into every layer": variant(
        text={"num_layers": 2, "num_heads": 6, "head_dim": 24, "mrope_section": (4, 4, 4), "rope_theta": 1e4},
        vision={
            "depth": 2,
            "hidden_size": 48,
            "num_heads": 4,
            "num_position_embeddings": 25,
            "deepstack_layers": (0, 1),
        },
        tie_word_embeddings=False,
    ),
    "one key head, one DeepStack layer, text eps 1e-5": variant(
        text={
            "num_kv_heads": 1,
            "head_dim": 32,
            "mrope_section": (6, 5, 5),
            "rms_norm_eps": 1e-5,
            "num_layers": 4,
        },
        vision={"depth": 4, "num_heads": 1, "num_position_embeddings": 144, "deepstack_layers": (1,)},
    ),
    "as many key as query heads, no DeepStack, untied": variant(
        text={"num_kv_heads": 4, "mrope_section": (2, 3, 3), "rope_theta": 5e5, "intermediate_size": 40},
        vision={"num_heads": 8, "intermediate_size": 20, "deepstack_layers": ()},
        tie_word_embeddings=False,
    ),
    MOE: variant(
        text={"moe": MoEConfig(num_experts=6, experts_per_token=2, intermediate_size=24)},
        tie_word_embeddings=False,
    ),
    "experts, tied, 3 of 4 chosen": variant(
        text={
            "moe": MoEConfig(num_experts=4, experts_per_token=3, intermediate_size=24),
            "num_layers": 2,
            "intermediate_size": 40,
        },
        vision={"depth": 2, "deepstack_layers": (1,)},
    ),
    "head sizes, rotary and position table of the released 8B": variant(
        text={
            "head_dim": 128,
            "mrope_section": (24, 20, 20),
            "rope_theta": 5e6,
            "num_layers": 2,
            "num_heads": 2,
            "num_kv_heads": 1,
        },
        vision={"depth": 2, "hidden_size": 144, "num_position_embeddings": 2304, "deepstack_layers": (1,)},
        tie_word_embeddings=False,
    ),
}


def hashed(name: str, count: int) -> np.ndarray:
    """uint64 [count]: SplitMix64 of (name, element number)."""
    counter = np.arange(1, count + 1, dtype=np.uint64) + (
        np.uint64(zlib.crc32(name.encode())) << np.uint64(32)
    )
    bits = counter * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values of the tensor `name`, uniform, scaled by its role."""
    uniform = (hashed(name, int(np.prod(shape))) >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
    values = uniform.reshape(shape)
    if name.endswith("bias"):
        values = 0.3 * values
    elif "norm" in name.split(".")[-2]:
        values = 1.0 + 0.3 * values
    elif "embed_tokens" in name:  # small, or a tied model would only repeat what it reads
        values = 0.2 * values
    elif "pos_embed" in name:
        values = 0.5 * values
    else:
        inputs = shape[1] if ".experts." in name else np.prod(shape[1:])
        values = values * np.sqrt(3.0 / inputs)
    return values.astype(np.float32)


def write_checkpoint(config: Qwen3VLConfig, directory: Path) -> Path:
    """A Hugging Face directory with the formula's weights."""
    shapes = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(shapes)
    save_hf(
        nnx.merge(graphdef, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), state)), directory
    )
    file = directory / "model.safetensors"
    tensors = {name: formula(name, array.shape) for name, array in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def noisy_model(config: Qwen3VLConfig, directory: Path, dtype: Any = jnp.float32) -> Qwen3VL:
    return load_hf(write_checkpoint(config, directory), dtype=dtype)


@dataclass(frozen=True)
class Sample:
    """One example: text and media in order, as token ids and patches of random pixels."""

    tokens: np.ndarray  # int32 [T]
    positions: np.ndarray  # int32 [3, T]
    visual_index: np.ndarray  # int32 [T]
    patches: np.ndarray  # uint8 [P, 1536]
    grids: np.ndarray  # int64 [n, 3], in order of appearance
    is_video: np.ndarray  # bool [n]

    @property
    def next_position(self) -> int:
        return int(self.positions.max()) + 1

    def extended(self, tokens: np.ndarray) -> "Sample":
        """With generated text behind."""
        positions = self.next_position + np.arange(len(tokens), dtype=np.int32)
        return replace(
            self,
            tokens=np.concatenate([self.tokens, tokens]).astype(np.int32),
            positions=np.concatenate([self.positions, np.broadcast_to(positions, (3, len(tokens)))], axis=1),
            visual_index=np.concatenate([self.visual_index, np.full(len(tokens), -1, np.int32)]),
        )


def sample(seed: int, *parts: tuple[Any, ...]) -> Sample:
    """From ("text", tokens), ("image", rows, columns), ("video", frames, rows, columns); sizes in patches."""

    def draw(count: int, below: int) -> np.ndarray:
        return hashed(f"{seed}, {len(tokens)} of {parts}", count) % np.uint64(below)

    tokens: list[int] = []
    media: list[tuple[int, tuple[int, int, int]]] = []
    for kind, *size in parts:
        if kind == "text":
            tokens += draw(size[0], IMAGE).tolist()
            continue
        frames, rows, columns = (1, *size) if kind == "image" else size
        pad = IMAGE if kind == "image" else VIDEO
        for _ in range(frames):
            stamp = draw(3, IMAGE).tolist() if kind == "video" else []  # "<0.5 seconds>"
            tokens += [*stamp, START, *[pad] * (rows * columns // 4), END]
        media.append((pad, (frames, rows, columns)))
    ids = np.array(tokens, np.int32)
    grids = np.array([grid for _, grid in media], np.int64).reshape(-1, 3)
    is_video = np.array([pad == VIDEO for pad, _ in media], bool)
    visual = (ids == IMAGE) | (ids == VIDEO)
    return Sample(
        tokens=ids,
        positions=mrope_positions(
            ids,
            grids[~is_video],
            grids[is_video],
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            merge=2,
        ),
        visual_index=np.where(visual, np.cumsum(visual) - 1, -1).astype(np.int32),
        patches=draw(int(grids.prod(1).sum()) * 1536, 256).astype(np.uint8).reshape(-1, 1536),
        grids=grids,
        is_video=is_video,
    )


def rows(
    packed: list[list[Sample]],
    *,
    batch: int = ROWS,
    tokens: int = TOKENS,
    patches: int = PATCHES,
    left: bool = False,
    side: int = 8,
    branches: list[list[np.ndarray]] | None = None,
) -> ModelInputs:
    """`batch` rows of any number of examples, padded at the right or `left`; `side` of the table."""
    packed = [*packed, *([] for _ in range(batch - len(packed)))]
    out = ModelInputs(
        tokens=np.zeros((batch, tokens), np.int32),
        positions=np.zeros((batch, 3, tokens), np.int32),
        segment_ids=np.zeros((batch, tokens), np.int32),
        branch_ids=np.zeros((batch, tokens), np.int32),
        visual_index=np.full((batch, tokens), -1, np.int32),
        vision=vision_rows(packed, patches, side),
    )
    for row, samples in enumerate(packed):
        at = tokens - sum(len(s.tokens) for s in samples) if left else 0
        merged = 0
        for number, one in enumerate(samples):
            place = (row, slice(at, at + len(one.tokens)))
            out.tokens[place] = one.tokens
            out.positions[row, :, place[1]] = one.positions
            out.segment_ids[place] = number + 1
            out.visual_index[place] = np.where(one.visual_index < 0, -1, one.visual_index + merged)
            if branches is not None:
                out.branch_ids[place] = branches[row][number]
            at, merged = at + len(one.tokens), merged + len(one.patches) // 4
    return out


def vision_rows(packed: list[list[Sample]], patches: int, side: int) -> VisionInputs:
    batch = len(packed)
    vision = VisionInputs(
        patches=np.zeros((batch, patches, 1536), np.uint8),
        frame_ids=np.zeros((batch, patches), np.int32),
        coords=np.zeros((batch, patches, 2), np.int32),
        embed_index=np.zeros((batch, patches, 4), np.int32),
        embed_weight=np.zeros((batch, patches, 4), np.float32),
    )
    for row, samples in enumerate(packed):
        count = sum(len(s.patches) for s in samples)
        if not count:
            continue
        vision.patches[row, :count] = np.concatenate([s.patches for s in samples])
        geometry = patch_geometry(np.concatenate([s.grids for s in samples]), 2, side)
        for into, array in zip(
            (vision.frame_ids, vision.coords, vision.embed_index, vision.embed_weight), geometry, strict=True
        ):
            into[row, :count] = array
    return vision


def hf_inputs(samples: list[Sample], *, left: bool = False) -> dict[str, Any]:
    """The same as a batch for transformers, padded with token 0."""
    import torch

    length = max(len(s.tokens) for s in samples)
    ids, mask = np.zeros((2, len(samples), length), np.int64)
    for row, one in enumerate(samples):
        place = slice(length - len(one.tokens), None) if left else slice(len(one.tokens))
        ids[row, place], mask[row, place] = one.tokens, 1
    inputs = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "mm_token_type_ids": torch.tensor((ids == IMAGE) + 2 * (ids == VIDEO)),
    }
    for video, pixels, grid in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        parts = [
            part
            for s in samples
            for part, is_video in zip(
                np.split(s.patches, s.grids.prod(1).cumsum()[:-1]), s.is_video, strict=False
            )
            if is_video == video and len(s.grids)
        ]
        if parts:
            inputs[pixels] = torch.tensor(
                (np.concatenate(parts).astype(np.float64) / 255 - 0.5) / 0.5, dtype=torch.float32
            )
            inputs[grid] = torch.tensor(np.concatenate([s.grids[s.is_video == video] for s in samples]))
    return inputs


KINDS = {
    "text": [("text", 30)],
    "one image": [("text", 5), ("image", 4, 6), ("text", 9)],
    "two images of different sizes": [("image", 2, 10), ("text", 4), ("image", 8, 4), ("text", 7)],
    "video": [("text", 3), ("video", 3, 4, 6), ("text", 8)],
    "image and video": [("text", 2), ("image", 6, 4), ("text", 3), ("video", 2, 4, 4), ("text", 5)],
}


def example(kind: str, seed: int = 0) -> Sample:
    return sample(seed, *KINDS[kind])
