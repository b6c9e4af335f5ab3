"""Token for token and patch for patch what transformers 4.57 and qwen-vl-utils made of the same media.

Images are equal, bit for bit, to transformers' PIL image processor. Its torchvision processors, which it prefers
and which it alone has for videos, round the filter's weights otherwise. What qwen-vl-utils resizes it resizes in
float32, where nothing is cut to 0-255 between rows and columns: that shows at edges from black to white.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.media.resizing import PixelBounds, VideoTotal, resize
from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer
from onethinker_jax.data_pipeline.processor.example import Example
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaLimits
from tests.golden.processor_cases import CASES, SAMPLED_PATCHES, picture
from tests.places import GOLDEN

# Largest and mean difference of pixels, in levels of 255, by what resized the reference's.
TORCHVISION, QWEN_VL_UTILS, BOTH = (2, 0.005), (20, 0.3), (40, 3.0)


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN / "qwen3_vl_processor.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@lru_cache
def process(name: str) -> Example:
    """A case's example, with the limits that the reference had."""
    case, directory = CASES[name], GOLDEN / "qwen3_vl_processor"
    low, high = case.frame_pixels or (None, None)
    limits = MediaLimits(
        *case.image_pixels,
        video_fps=2.0,
        video_max_frames=128,
        video_min_pixels=low,
        video_max_pixels=high,
        video_total=VideoTotal(*case.video_total),
    )
    videos = [
        Video(frames, np.array(clip.indices) / clip.fps, clip.indices[-1] / clip.fps, clip.fps, Path("made"))
        for clip, frames in zip(case.clips, case.films(), strict=True)
    ]
    return Processor(ChatTokenizer(directory), limits)(
        [{"role": role, "content": content} for role, content in case.messages],
        images=case.pictures(),
        videos=videos,
        add_generation_prompt=case.asks,
    )


def patches_of(name: str, example: Example) -> dict[str, np.ndarray]:
    """The example's patches by the kind of their medium, each kind in order."""
    kinds = re.findall("<(image|video)>", "".join(content for _, content in CASES[name].messages))
    parts = np.split(example.patches, np.cumsum(example.grids.prod(1))[:-1]) if kinds else []
    return {
        kind: np.concatenate([part for part, of in zip(parts, kinds, strict=True) if of == kind])
        for kind in set(kinds)
    }


@pytest.mark.parametrize("name", CASES)
def test_tokens_grids_and_positions_are_equal(reference, name):
    example = process(name)
    ids = reference[f"{name}/ids"]
    count = len(ids) if CASES[name].asks else len(ids) - 1  # after its end an answer has a line break there
    assert example.tokens.tolist() == ids[:count].tolist()
    np.testing.assert_array_equal(example.positions, reference[f"{name}/positions"][:, :count])
    kinds = re.findall("<(image|video)>", "".join(content for _, content in CASES[name].messages))
    for kind in set(kinds):
        grids = [grid for grid, of in zip(example.grids.tolist(), kinds, strict=True) if of == kind]
        assert grids == reference[f"{name}/{kind}/grid"].tolist()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.images])
def test_images_are_those_of_the_pil_image_processor(reference, name):
    patches = patches_of(name, process(name))["image"]
    digest = hashlib.blake2b(patches.tobytes(), digest_size=16).digest()
    assert digest == reference[f"{name}/image/hash"].tobytes()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.images or case.clips])
def test_pixels_are_close_to_those_of_the_torchvision_processors(reference, name):
    for kind, patches in patches_of(name, process(name)).items():
        chosen = np.linspace(0, len(patches) - 1, min(len(patches), SAMPLED_PATCHES)).round().astype(int)
        expected = reference[f"{name}/{kind}/sample"]
        apart = np.abs(patches[chosen].astype(int) - expected)
        most, mean = TORCHVISION
        if CASES[name].frame_pixels and kind == "video":
            most, mean = BOTH if name == "OneThinker, both bounds" else QWEN_VL_UTILS
        assert apart.max() <= most and apart.mean() <= mean


def test_a_frame_pair_alone_and_thin_frames_are_taken():
    """Which transformers refuses: one frame, and sides below 32 pixels."""
    for height, width, frames in ((64, 96, 1), (20, 300, 3)):
        bounds = PixelBounds(32, None, None, VideoTotal(4096, 25165824))
        size = bounds.size(height, width, frames)
        assert size == ((64, 96) if frames == 1 else (32, 288))


def test_rows_are_resized_before_columns():
    """Whatever this Pillow would do by itself."""
    for height, width, size in ((70, 90, (64, 96)), (500, 500, (32, 480)), (1500, 100, (64, 32))):
        image = Image.fromarray(picture(height, width, 0))
        rows = image.resize((size[1], height), Image.Resampling.BICUBIC)
        expected = rows.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(resize(picture(height, width, 0), size), np.asarray(expected))
