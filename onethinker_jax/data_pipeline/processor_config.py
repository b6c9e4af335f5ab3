"""What a Qwen3-VL directory and the user's settings say about processing, checked."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

from onethinker_jax.data_pipeline.chat import ProcessorError, read_json
from onethinker_jax.data_pipeline.patches import PatchSizes
from onethinker_jax.data_pipeline.resizing import PixelBounds, VideoTotal

PROMPTS = "prompts.json"
"""File of a model directory: the prompt templates that the model was trained with, where they are not our own."""

# Of the released models, for a directory that does not say.
_IMAGE_PIXELS = 65536, 16777216
_VIDEO_TOTAL = VideoTotal(4096, 25165824)
_GRID_SIDE = 48


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


def read_settings(path: Path) -> DirectorySettings:
    """Reads the processor files of a directory, in transformers 4's or 5's layout.

    Raises:
        ProcessorError: there are none, or they ask for processing that the model was not made for.
    """
    image, video = _processor_configs(path)
    values = {field.name: image.get(field.name, field.default) for field in fields(PatchSizes)}
    for name, value in values.items():
        if video.get(name, value) != value:
            raise ProcessorError(f"{path}: {name} is {value} for images but {video[name]} for videos")
    low, high = _pixels(image, _IMAGE_PIXELS)
    grid_side = _GRID_SIDE
    if (path / "config.json").is_file():
        vision = read_json(path / "config.json").get("vision_config", {})
        grid_side = math.isqrt(vision.get("num_position_embeddings", _GRID_SIDE**2))
    try:
        total = VideoTotal(*_pixels(video, (_VIDEO_TOTAL.min_pixels, _VIDEO_TOTAL.max_pixels)))
    except ValueError as error:
        raise ProcessorError(f"{path}: {error}") from None
    return DirectorySettings(PatchSizes(**values), (low, high), total, grid_side)


def _pixels(config: dict, default: tuple[int, int]) -> tuple[int, int]:
    size = config.get("size", {})
    return (
        config.get("min_pixels") or size.get("shortest_edge", default[0]),
        config.get("max_pixels") or size.get("longest_edge", default[1]),
    )


def _processor_configs(path: Path) -> tuple[dict, dict]:
    """Image and video processor settings; means and deviations are checked."""
    joint = read_json(path / "processor_config.json") if (path / "processor_config.json").is_file() else {}
    configs = []
    for prefix, key in (("", "image_processor"), ("video_", "video_processor")):
        name = f"{prefix}preprocessor_config.json"
        config = read_json(path / name) if (path / name).is_file() else joint.get(key, {})
        for field in ("image_mean", "image_std"):
            if config.get(field, [0.5] * 3) != [0.5] * 3:
                raise ProcessorError(
                    f"{path / name}: {field} is {config[field]}, the model normalises with 0.5"
                )
        configs.append(config)
    if not configs[0]:
        raise ProcessorError(f"{path}: has no preprocessor_config.json")
    return configs[0], configs[1]
