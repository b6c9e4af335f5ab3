"""Cuts films into short clips, encoded anew as small H.264 files without sound that any player reads."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av import FFmpegError, VideoFrame
from av.video.stream import VideoStream

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

    Raises LibraryError naming the film `name`: it cannot be decoded, or has no frame in a piece.
    """
    waiting = list(pieces)
    clip: _Clip | None = None
    try:
        with av.open(io.BytesIO(film), "r") as source:
            rate = (source.streams.video[0].average_rate or Fraction(25)).limit_denominator(1001)
            for frame in source.decode(video=0):
                time = (frame.time or 0.0) + _EARLY
                while waiting and time >= waiting[0][0].end and clip:
                    clip.close()
                    clip = None
                    waiting.pop(0)
                if not waiting:
                    break
                if waiting[0][0].start <= time < waiting[0][0].end:
                    clip = clip or _Clip(waiting[0][1], frame, rate)
                    clip.add(frame)
            if clip:
                clip.close()
                clip = None
                waiting.pop(0)
    except (FFmpegError, IndexError) as error:
        raise LibraryError(f"{name} cannot be decoded: {error}") from error
    finally:
        if clip:
            clip.container.close()
    if waiting:
        piece = waiting[0][0]
        raise LibraryError(f"{name} has no frame from {piece.start:g} to {piece.end:g} s")


class _Clip:
    """A clip that is being written."""

    def __init__(self, path: Path, first: VideoFrame, rate: Fraction):
        self.container = av.open(str(path), "w", options={"movflags": "faststart"})
        stream = self.container.add_stream("libx264", rate=rate, options={"crf": "21"})
        assert isinstance(stream, VideoStream)
        scale = min(1.0, CLIP_SIDE / max(first.width, first.height))
        stream.width, stream.height = (round(side * scale / 2) * 2 for side in (first.width, first.height))
        stream.pix_fmt = "yuv420p"
        self.stream, self.rate, self.written = stream, rate, 0

    def add(self, frame: VideoFrame) -> None:
        picture = frame.reformat(self.stream.width, self.stream.height, "yuv420p")
        picture.pts, picture.time_base = self.written, 1 / self.rate
        self.container.mux(self.stream.encode(picture))
        self.written += 1

    def close(self) -> None:
        self.container.mux(self.stream.encode())
        self.container.close()
