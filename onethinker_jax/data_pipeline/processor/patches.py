"""Pictures and frames in their final size -> patches, in transformers' order, and the times of frame pairs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onethinker_jax.data_pipeline.media.decoding import Video


@dataclass(frozen=True)
class PatchSizes:
    """How pictures are cut."""

    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2

    @property
    def factor(self) -> int:
        """What sides must be multiples of, in pixels."""
        return self.patch_size * self.merge_size

    @property
    def patch_bytes(self) -> int:
        """Numbers in one patch."""
        return 3 * self.temporal_patch_size * self.patch_size**2


QWEN3_VL = PatchSizes()


@dataclass(frozen=True)
class MediumSize:
    """How an image or a video is cut, without its pixels: t frame groups of h x w patches."""

    kind: Literal["image", "video"]
    grid: tuple[int, int, int]  # t, h, w
    times: np.ndarray  # float64 [t], seconds, of a video's frame groups; empty for an image


@dataclass(frozen=True)
class Medium(MediumSize):
    """An image or a video, cut."""

    patches: np.ndarray  # uint8 [t h w, 3 x temporal x patch x patch]


def size_image(height: int, width: int, sizes: PatchSizes) -> MediumSize:
    """How `cut_image` cuts an image of this size."""
    return MediumSize("image", (1, height // sizes.patch_size, width // sizes.patch_size), np.zeros(0))


def size_video(height: int, width: int, timestamps: np.ndarray, sizes: PatchSizes) -> MediumSize:
    """How `cut_video` cuts a video whose frames have this size and these times, float [N] in seconds."""
    times = timestamps_of_pairs(timestamps, sizes.temporal_patch_size)
    return MediumSize("video", (len(times), height // sizes.patch_size, width // sizes.patch_size), times)


def cut_image(pixels: np.ndarray, sizes: PatchSizes) -> Medium:
    """An image, uint8 [H, W, 3] with sides that are multiples of `sizes.factor`."""
    patches, grid = _cut(pixels[None], sizes)
    return Medium("image", grid, np.zeros(0), patches)


def cut_video(video: Video, sizes: PatchSizes) -> Medium:
    """A video whose frames have sides that are multiples of `sizes.factor`."""
    patches, grid = _cut(video.frames, sizes)
    return Medium("video", grid, timestamps_of_pairs(video.timestamps, sizes.temporal_patch_size), patches)


def _cut(frames: np.ndarray, sizes: PatchSizes) -> tuple[np.ndarray, tuple[int, int, int]]:
    """uint8 [N, H, W, 3] -> (patches, grid): merge block by merge block; in a patch channel, time, row, column.

    An incomplete last group of frames repeats the last one, as an image repeats itself.
    """
    size, merge, temporal = sizes.patch_size, sizes.merge_size, sizes.temporal_patch_size
    if missing := -len(frames) % temporal:
        frames = np.concatenate([frames, np.broadcast_to(frames[-1:], (missing, *frames.shape[1:]))])
    grid = len(frames) // temporal, frames.shape[1] // size, frames.shape[2] // size
    blocks = frames.reshape(
        grid[0], temporal, grid[1] // merge, merge, size, grid[2] // merge, merge, size, 3
    ).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return blocks.reshape(grid[0] * grid[1] * grid[2], -1), grid


def timestamps_of_pairs(times: np.ndarray, temporal: int = 2) -> np.ndarray:
    """Seconds written before each merged group of `temporal` frames: the mean of its first and last frame.

    Args:
        times: float [N] presentation times; an incomplete last group repeats the last frame.
        temporal: frames of a group.

    Returns:
        float64 [ceil(N / temporal)].
    """
    padded = np.concatenate([times, np.repeat(times[-1:], -len(times) % temporal)])
    groups = padded.reshape(-1, temporal)
    return (groups[:, 0] + groups[:, -1]) / 2


def check_frames(kind: str, frames: np.ndarray) -> None:
    """Raises ValueError unless these are uint8 [N, H, W, 3] with pixels."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"{kind} must be uint8 RGB with pixels, is {frames.dtype} {list(frames.shape[1:])}")
