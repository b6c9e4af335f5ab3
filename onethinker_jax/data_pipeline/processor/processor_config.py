"""What a Qwen3-VL directory and the user's settings say about processing, checked."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.media.resizing import PixelBounds, VideoTotal
from onethinker_jax.data_pipeline.processor.chat import ProcessorError, read_json
from onethinker_jax.data_pipeline.processor.patches import QWEN3_VL, PatchSizes
from onethinker_jax.model.config import family_error

logger = logging.getLogger(__name__)

PROMPTS = "prompts.json"
"""File of a model directory: the prompt templates that the model was trained with, where they are not our own."""

# The values of the released models, for a directory that does not say.
_IMAGE_PIXELS = 65536, 16777216
_VIDEO_TOTAL = VideoTotal(4096, 25165824)
_GRID_SIDE = 48

_FILES = {"image": "preprocessor_config.json", "video": "video_preprocessor_config.json"}
_THEIRS = {"merge_size": "spatial_merge_size"}  # our patch sizes' names in vision_config where they differ
_EDGES = {"shortest_edge", "longest_edge", "min_pixels", "max_pixels"}
_READ = ("size", "min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size")
_STEPS = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "do_center_crop": False,
    "do_pad": False,
    "resample": 3,  # bicubic
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""What is done to every medium, as the released models were trained; a directory may say it, and nothing else."""


@dataclass(frozen=True)
class MediaLimits:
    """How large media may be when they reach the model. Pixels are height times width after resizing."""

    image_min_pixels: int
    image_max_pixels: int
    video_fps: float
    video_max_frames: int
    video_min_pixels: int | None  # of one frame; None, as the next: only the total counts
    video_max_pixels: int | None  # of one frame
    video_total: VideoTotal = _VIDEO_TOTAL  # of all frames
    video_num_frames: int | None = None  # sampled evenly by their number; None: by `video_fps`

    def __post_init__(self):
        for kind in ("image", "video"):
            low, high = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
            if kind == "video" and low is None and high is None:
                continue
            if low is None or high is None or not 0 < low <= high:
                raise ValueError(f"{kind} pixel bounds must be 0 < min <= max, got {low} and {high}")
        if self.video_fps <= 0 or self.video_max_frames < 1:
            raise ValueError(
                f"video_fps {self.video_fps} and video_max_frames {self.video_max_frames}: too small"
            )
        if self.video_num_frames is not None and self.video_num_frames < 1:
            raise ValueError(f"video_num_frames {self.video_num_frames}: too small")

    def image_bounds(self, factor: int) -> PixelBounds:
        """Bounds of an image whose sides must be multiples of `factor`."""
        return PixelBounds(factor, self.image_min_pixels, self.image_max_pixels)

    def video_bounds(self, factor: int) -> PixelBounds:
        """The same of a video's frames."""
        return PixelBounds(factor, self.video_min_pixels, self.video_max_pixels, self.video_total)


@dataclass(frozen=True)
class DirectorySettings:
    """A directory's own settings."""

    sizes: PatchSizes
    image_pixels: tuple[int, int]  # smallest and largest height x width
    video_total: VideoTotal
    grid_side: int  # of the position embedding table, in patches


RELEASED = DirectorySettings(QWEN3_VL, _IMAGE_PIXELS, _VIDEO_TOTAL, _GRID_SIDE)
"""The settings of the released models' directories."""


@dataclass(frozen=True)
class MediaBounds:
    """The bounds of media that a caller chooses; pixels are height times width after resizing."""

    image_min_pixels: int | None = None  # None: the directory's, as the next
    image_max_pixels: int | None = None
    video_fps: float = 2.0
    video_max_frames: int = 128
    video_num_frames: int | None = None  # sampled evenly by their number, whatever the two before say
    video_min_pixels: int | None = 4 * 32 * 32  # of a frame: OneThinker's RL settings, as the next
    video_max_pixels: int | None = 64 * 32 * 32  # both None: frames are bounded together only
    video_total_pixels: int | None = None  # of all sampled frames together; None: the directory's

    def limits(self, own: DirectorySettings) -> MediaLimits:
        """The limits of a processor of that directory. Raises ValueError naming bounds that cannot be."""
        total = own.video_total
        if self.video_total_pixels is not None:
            total = VideoTotal(min(total.min_pixels, self.video_total_pixels), self.video_total_pixels)
        return MediaLimits(
            image_min_pixels=self.image_min_pixels or own.image_pixels[0],
            image_max_pixels=self.image_max_pixels or own.image_pixels[1],
            video_fps=self.video_fps,
            video_max_frames=self.video_max_frames,
            video_min_pixels=self.video_min_pixels,
            video_max_pixels=self.video_max_pixels,
            video_total=total,
            video_num_frames=self.video_num_frames,
        )


def read_settings(path: Path) -> DirectorySettings:
    """Reads the processor files of a directory, in transformers 4's or 5's layout.

    Where one is missing the released models' values stand for it, and a warning says so.

    Raises ProcessorError: they ask for processing that the model was not made for.
    """
    vision = _vision_config(path)
    found = _processor_configs(path)
    for kind, (low, high) in (
        ("image", _IMAGE_PIXELS),
        ("video", (_VIDEO_TOTAL.min_pixels, _VIDEO_TOTAL.max_pixels)),
    ):
        if kind not in found:
            logger.warning(
                "%s: has no %s; the released models' values stand for it (%d to %d pixels)",
                *(path, _FILES[kind], low, high),
            )
    configs = {kind: found.get(kind, (path / name, {})) for kind, name in _FILES.items()}
    image, video = (_checked(*configs[kind]) for kind in _FILES)
    values = {}
    for field in fields(PatchSizes):
        model = vision.get(_THEIRS.get(field.name, field.name))
        named = {
            "config.json": model,
            **{name: config[field.name] for name, config in _named(image, video) if field.name in config},
        }
        said = {name: value for name, value in named.items() if value is not None}
        if len({json.dumps(value) for value in said.values()}) > 1:
            differing = ", ".join(f"{value!r} in {name}" for name, value in said.items())
            raise ProcessorError(f"{path}: {field.name} is {differing}")
        values[field.name] = _whole(path, field.name, next(iter(said.values()), field.default))
    low, high = _pixels(configs["image"][0], image, _IMAGE_PIXELS)
    side = math.isqrt(vision.get("num_position_embeddings", _GRID_SIDE**2))
    try:
        bounds = _pixels(configs["video"][0], video, (_VIDEO_TOTAL.min_pixels, _VIDEO_TOTAL.max_pixels))
        total = VideoTotal(*bounds)
    except ProcessorError:
        raise
    except ValueError as error:
        raise ProcessorError(f"{path}: {error}") from None
    return DirectorySettings(PatchSizes(**values), (low, high), total, side)


def write_missing_configs(path: Path, sizes: PatchSizes, limits: MediaLimits) -> None:
    """Completes a directory with the processor files that it lacks, so that others read the same values."""
    found = _processor_configs(path)
    total = limits.video_total
    for kind, config in (
        ("image", image_config((limits.image_min_pixels, limits.image_max_pixels), sizes)),
        ("video", video_config((total.min_pixels, total.max_pixels), sizes)),
    ):
        if kind not in found:
            (path / _FILES[kind]).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def image_config(pixels: tuple[int, int], sizes: PatchSizes = QWEN3_VL) -> dict[str, Any]:
    """A preprocessor_config.json; `pixels` are the smallest and the largest height x width."""
    return {
        "size": {"shortest_edge": pixels[0], "longest_edge": pixels[1]},
        "patch_size": sizes.patch_size,
        "temporal_patch_size": sizes.temporal_patch_size,
        "merge_size": sizes.merge_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }


def video_config(pixels: tuple[int, int], sizes: PatchSizes = QWEN3_VL) -> dict[str, Any]:
    """A video_preprocessor_config.json; `pixels` bound all frames of a video together."""
    config = image_config(pixels, sizes)
    del config["image_processor_type"]
    return {
        **config,
        "fps": 2,
        "min_frames": 4,
        "max_frames": 768,
        "video_processor_type": "Qwen3VLVideoProcessor",
    }


def _vision_config(path: Path) -> dict[str, Any]:
    """The vision part of config.json, empty where there is no file. Raises ProcessorError for another family's."""
    file = path / "config.json"
    config = read_json(file) if file.is_file() else {}
    if "model_type" in config and (error := family_error(config)):
        raise ProcessorError(f"{file}: {error}")
    vision = config.get("vision_config", {})
    return vision if isinstance(vision, dict) else {}


def _processor_configs(path: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The file and settings of "image" and "video" processing, each where the directory holds it."""
    both = path / "processor_config.json"
    joint = read_json(both) if both.is_file() else {}
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for kind, name in _FILES.items():
        config = joint.get(f"{kind}_processor")
        within = config if isinstance(config, dict) else {}
        if within:
            found[kind] = both, within
        if not (path / name).is_file():
            continue
        alone = read_json(path / name)
        for field in _READ:
            if field in alone and field in within and alone[field] != within[field]:
                raise ProcessorError(
                    f"{path}: {field} is {alone[field]!r} in {name}, but {within[field]!r} in {both.name}"
                )
        found[kind] = path / name, alone
    return found


def _named(*configs: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(zip(_FILES.values(), configs, strict=True))


def _checked(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The settings that say something. Raises ProcessorError for a step that is done here in another way."""
    said = {name: value for name, value in config.items() if value is not None}
    for name, expected in _STEPS.items():
        value = said.get(name, expected)
        if isinstance(expected, float) and isinstance(value, int | float):
            same = math.isclose(value, expected, rel_tol=1e-6)
        else:
            same = value == expected
        if not same:
            raise ProcessorError(
                f"{file}: {name} is {value!r}, but media are processed with {expected!r} here"
            )
    return said


def _pixels(file: Path, config: Mapping[str, Any], default: tuple[int, int]) -> tuple[int, int]:
    """Smallest and largest area: `min_pixels` and `max_pixels`, else the edges of `size`."""
    size = config.get("size", {})
    if not isinstance(size, dict) or {name for name in size if size[name] is not None} - _EDGES:
        raise ProcessorError(f"{file}: size is {size!r}; expected shortest_edge and longest_edge")
    low, high = (
        next((value for value in values if value is not None), unsaid)
        for values, unsaid in (
            ((config.get("min_pixels"), size.get("min_pixels"), size.get("shortest_edge")), default[0]),
            ((config.get("max_pixels"), size.get("max_pixels"), size.get("longest_edge")), default[1]),
        )
    )
    return _whole(file, "smallest area", low), _whole(file, "largest area", high)


def _whole(file: Path, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProcessorError(f"{file}: {name} is {value!r}, not a whole number")
    return value
