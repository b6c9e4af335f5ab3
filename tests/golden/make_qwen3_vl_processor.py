"""Writes qwen3_vl_processor.npz and the folder qwen3_vl_processor beside this file: transformers' own processing.

The reference is the Qwen3-VL processor of transformers 4.57, and for OneThinker's cases qwen-vl-utils before it,
each on the inputs of `processor_cases`. It has an environment of its own, in which torchvision (CUDA builds only)
stands beside a CPU torch:

    python -m venv reference
    reference/bin/pip install transformers==4.57.3 torch==2.13.0 pillow==12.0.0 av
    reference/bin/pip install --no-deps torchvision==0.28.0 qwen-vl-utils==0.0.14
    PYTHONPATH=. reference/bin/python -m tests.golden.make_qwen3_vl_processor

Of each case the file holds token ids, grids, M-RoPE positions, a hash of the image patches that the PIL image
processor gives, and some patches of the torchvision ones. It says how far those two are apart.
"""

import contextlib
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

_operators = torch.library.Library("torchvision", "DEF")
for _operator in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor a) -> Tensor",
):
    with contextlib.suppress(RuntimeError):  # already there in a torchvision that fits
        _operators.define(_operator)

from PIL import Image  # noqa: E402
from qwen_vl_utils import vision_process  # type: ignore[import-not-found]  # noqa: E402
from transformers import AutoImageProcessor, AutoProcessor  # noqa: E402
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel  # noqa: E402

from tests.data_pipeline.making import write_tokenizer  # noqa: E402
from tests.golden.processor_cases import CASES, IMAGE_PIXELS, SAMPLED_PATCHES, Case  # noqa: E402

FILE = Path(__file__).with_name("qwen3_vl_processor.npz")
DIRECTORY = Path(__file__).with_name("qwen3_vl_processor")
PACKAGES = ("transformers", "qwen-vl-utils", "torch", "torchvision", "tokenizers", "pillow", "numpy")


def levels(values: torch.Tensor) -> np.ndarray:
    """Normalised pixel values as levels 0-255; what was resized as float32 is rounded to them."""
    return np.rint((values.double().numpy() * 0.5 + 0.5) * 255).clip(0, 255).astype(np.uint8)


def sampled(patches: np.ndarray) -> np.ndarray:
    """Some patches, spread over all."""
    return patches[np.linspace(0, len(patches) - 1, min(len(patches), SAMPLED_PATCHES)).round().astype(int)]


def films(case: Case) -> list[torch.Tensor]:
    """Frames [N, 3, H, W] as the processor is given them: bounded by the recipe if the case says so."""
    given = [torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in case.films()]
    if case.frame_pixels is None:
        return given
    bounds = dict(zip(("min_pixels", "max_pixels"), case.frame_pixels, strict=True))
    made = []
    for frames in given:
        vision_process.VIDEO_READER_BACKENDS["made"] = lambda _, frames=frames: (frames, {}, 2.0)
        made.append(vision_process.fetch_video({"video": "made", **bounds}, image_patch_size=16))
    return made


def process(processor: Any, case: Case) -> tuple[Any, Any]:
    """What the processor gives for a case, and its positions."""
    text = processor.tokenizer.apply_chat_template(
        case.typed_messages(), tokenize=False, add_generation_prompt=case.asks
    )
    metadata = [
        {"fps": clip.fps, "frames_indices": list(clip.indices), "total_num_frames": max(clip.indices) + 1}
        for clip in case.clips
    ]
    names = ("min_pixels", "max_pixels"), ("shortest_edge", "longest_edge")
    output = processor(
        text=[text],
        images=[Image.fromarray(pixels) for pixels in case.pictures()] or None,
        videos=films(case) or None,
        images_kwargs=dict(zip(names[0], case.image_pixels, strict=True)),
        videos_kwargs={
            "size": dict(zip(names[1], case.video_total, strict=True)),
            "video_metadata": metadata,
            "do_sample_frames": False,
        },
        return_tensors="pt",
    )
    token = processor.tokenizer.convert_tokens_to_ids
    ids = {name: token(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    config = SimpleNamespace(
        vision_config=SimpleNamespace(spatial_merge_size=2),
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
    )
    positions, _ = Qwen3VLModel.get_rope_index(
        SimpleNamespace(config=config),  # type: ignore[arg-type]
        output["input_ids"],
        output.get("image_grid_thw"),
        output.get("video_grid_thw"),
        attention_mask=output["attention_mask"],
    )
    return output, positions


def main() -> None:
    torch.set_num_threads(1)
    vision_process.get_video_reader_backend = lambda: "made"
    write_tokenizer(DIRECTORY, image_pixels=IMAGE_PIXELS)
    processor = AutoProcessor.from_pretrained(DIRECTORY, use_fast=True)
    pil = AutoImageProcessor.from_pretrained(DIRECTORY, use_fast=False)
    made_with: dict[str, Any] = {name: version(name) for name in PACKAGES}
    made_with["python"] = platform.python_version()
    arrays: dict[str, np.ndarray] = {}
    worst, differences = 0, []
    for name, case in CASES.items():
        output, positions = process(processor, case)
        arrays[f"{name}/ids"] = output["input_ids"][0].numpy().astype(np.int32)
        arrays[f"{name}/positions"] = positions[:, 0].numpy().astype(np.int32)
        for kind, values in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if f"{kind}_grid_thw" not in output:
                continue
            arrays[f"{name}/{kind}/grid"] = output[f"{kind}_grid_thw"].numpy().astype(np.int32)
            arrays[f"{name}/{kind}/sample"] = sampled(levels(output[values]))
        if case.images:
            bounds = dict(zip(("min_pixels", "max_pixels"), case.image_pixels, strict=True))
            pictures = [Image.fromarray(pixels) for pixels in case.pictures()]
            settings = {"input_data_format": "channels_last", "return_tensors": "pt"}
            exact = levels(pil(pictures, **bounds, **settings)["pixel_values"])
            digest = hashlib.blake2b(exact.tobytes(), digest_size=16).digest()
            arrays[f"{name}/image/hash"] = np.frombuffer(digest, np.uint8)
            apart = np.abs(exact.astype(int) - levels(output["pixel_values"]))
            worst = max(worst, int(apart.max()))
            differences.append(float(apart.mean()))
    made_with["PIL and torchvision image processor apart, levels"] = {
        "most": worst,
        "mean of cases": round(float(np.mean(differences)), 4),
    }
    arrays["made_with"] = np.array(json.dumps(made_with))
    np.savez_compressed(FILE, allow_pickle=False, **arrays)
    print(json.dumps(made_with, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
