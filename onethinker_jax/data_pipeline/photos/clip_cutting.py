"""Cuts films into short clips, encoded anew as small H.264 files without sound that any player reads."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av import FFmpegError, VideoFrame

from onethinker_jax.data_pipeline.media.h264_file import H264File
from onethinker_jax.data_pipeline.photos.library import LibraryError

CLIP_SIDE = 640
"""Longest side of a clip, in pixels."""

_EARLY = 1e-3
"""Seconds: a frame that is this much before a piece's start or end counts as at it; time stamps are rounded."""


@dataclass(frozen=True)
class Piece:
    """Seconds of a film, and what they show."""

    start: float
    end: float
    name: str


def seconds_of(film: bytes, *, name: str) -> float:
    """How long a film lasts; raises LibraryError naming a file `name` that is none."""
    try:
        with av.open(io.BytesIO(film), "r") as source:
            if source.streams.video and source.duration:
                return source.duration / av.time_base
    except FFmpegError as error:
        raise LibraryError(f"{name} cannot be decoded: {error}") from error
    raise LibraryError(f"{name} is no film: it has no pictures, or no duration")


def cut(film: bytes, pieces: Sequence[tuple[Piece, Path]], *, name: str) -> None:
    """Writes pieces of a film, which follow each other, to their paths.

    Raises LibraryError naming the film `name`: it cannot be decoded, or has no frame in a piece. EncoderError.
    """
    waiting = list(pieces)
    clip: _Clip | None = None
    try:
        with av.open(io.BytesIO(film), "r") as source:
            rate = (source.streams.video[0].average_rate or Fraction(25)).limit_denominator(1001)
            for frame in source.decode(video=0):
                time = (frame.time or 0.0) + _EARLY
                while waiting and time >= waiting[0][0].end and clip:
                    clip.file.close()
                    clip = None
                    waiting.pop(0)
                if not waiting:
                    break
                if waiting[0][0].start <= time < waiting[0][0].end:
                    clip = clip or _Clip(waiting[0][1], frame, rate)
                    clip.add(frame)
            if clip:
                clip.file.close()
                clip = None
                waiting.pop(0)
    except (FFmpegError, IndexError) as error:
        raise LibraryError(f"{name} cannot be decoded: {error}") from error
    finally:
        if clip:
            clip.file.close(whole=False)
    if waiting:
        piece = waiting[0][0]
        raise LibraryError(f"{name} has no frame from {piece.start:g} to {piece.end:g} s")


class _Clip:
    """A clip that is being written."""

    def __init__(self, path: Path, first: VideoFrame, rate: Fraction):
        self.file = H264File(path, rate, {"crf": "21"}, index_first=True)
        scale = min(1.0, CLIP_SIDE / max(first.width, first.height))
        self.width, self.height = (round(side * scale / 2) * 2 for side in (first.width, first.height))
        self.written = 0

    def add(self, frame: VideoFrame) -> None:
        self.file.add(frame.reformat(self.width, self.height, "yuv420p"), self.written)
        self.written += 1
