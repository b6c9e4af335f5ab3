"""A video file that every browser plays: H.264 of 4:2:0 in MP4, upright, with its index at the front."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from onethinker_jax.data_pipeline.media.h264_file import H264File
from onethinker_jax.files import whole_file

TICKS = 90_000
"""Time units of a second in the files."""

_SETTINGS = {"crf": "20", "preset": "veryfast", "bf": "0", "g": "30"}
"""No frame refers to a later one, so that the last packet is the last frame; a player can start at every thirtieth."""

_BT709 = 1  # of matrix, primaries and transfer alike: what players take for granted


def write_mp4(path: Path, pictures: Iterator[Image.Image], times: Sequence[float], duration: float) -> None:
    """Writes one picture for each of `times`; the file appears whole or not at all.

    Args:
        path: the file; an older one is replaced.
        pictures: RGB, all of one size with even sides.
        times: seconds at which each comes on screen, rising from 0.
        duration: seconds at which the last one ends.

    Raises EncoderError: PyAV has no H.264 encoder.
    """
    starts = _ticks(times, duration)
    with (
        whole_file(path) as aside,
        H264File(aside, 30, _SETTINGS, time_base=Fraction(1, TICKS), index_first=True) as film,
    ):
        coded = film.stream.codec_context
        coded.colorspace = coded.color_primaries = coded.color_trc = _BT709
        coded.color_range = ColorRange.MPEG
        for (start, end), picture in zip(pairwise(starts), pictures, strict=True):
            frame = VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            film.add(frame, start, end - start)


def _ticks(times: Sequence[float], duration: float) -> list[int]:
    """Each frame's start and the last one's end in ticks: every frame lasts at least one."""
    found: list[int] = []
    for time in (*times, duration):
        found.append(max(round(time * TICKS), found[-1] + 1 if found else 0))
    return found
