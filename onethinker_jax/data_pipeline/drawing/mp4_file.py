"""A video file that every browser plays: H.264 of 4:2:0 in MP4, upright, with its index at the front."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.codec import codecs_available
from av.packet import Packet
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image

from onethinker_jax.errors import UserError
from onethinker_jax.files import whole_file

TICKS = 90_000
"""Time units of a second in the files."""

ENCODER = "libx264"
_SETTINGS = {"crf": "20", "preset": "veryfast", "bf": "0", "g": "30"}
"""No frame refers to a later one, so that the last packet is the last frame; a player can start at every thirtieth."""

_BT709 = 1  # of matrix, primaries and transfer alike: what players take for granted


class EncoderError(UserError):
    """This PyAV cannot write H.264."""


def write_mp4(path: Path, pictures: Iterator[Image.Image], times: Sequence[float], duration: float) -> None:
    """Writes one picture for each of `times`; the file appears whole or not at all.

    Args:
        path: the file; an older one is replaced.
        pictures: RGB, all of one size with even sides.
        times: seconds at which each comes on screen, rising from 0.
        duration: seconds at which the last one ends.

    Raises EncoderError: PyAV has no H.264 encoder.
    """
    if ENCODER not in codecs_available:
        raise EncoderError(f"PyAV {av.__version__} has no H.264 encoder ({ENCODER})")
    starts = _ticks(times, duration)
    lengths = {start: end - start for start, end in pairwise(starts)}

    def with_length(packets: list[Packet]) -> list[Packet]:
        for packet in packets:
            packet.duration = lengths[packet.pts or 0]
        return packets

    with (
        whole_file(path) as aside,
        av.open(str(aside), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream(ENCODER, rate=30, options=_SETTINGS)
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        coded = stream.codec_context
        coded.colorspace = coded.color_primaries = coded.color_trc = _BT709
        coded.color_range = ColorRange.MPEG
        for start, picture in zip(starts[:-1], pictures, strict=True):
            if start == starts[0]:
                stream.width, stream.height = picture.size
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = start, Fraction(1, TICKS)
            container.mux(with_length(stream.encode(frame)))
        container.mux(with_length(stream.encode()))


def _ticks(times: Sequence[float], duration: float) -> list[int]:
    """Each frame's start and the last one's end in ticks: every frame lasts at least one."""
    found: list[int] = []
    for time in (*times, duration):
        found.append(max(round(time * TICKS), found[-1] + 1 if found else 0))
    return found
