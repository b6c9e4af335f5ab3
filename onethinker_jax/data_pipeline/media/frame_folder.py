"""A folder of a video's frames as one video file, as data sets of tracking and segmentation come.

What is opened is a QuickTime file that holds the pictures' own bytes, one a frame at a constant rate: nothing is
encoded anew, so reading, probing, sampling and caching such a video are those of any other. FFmpeg decodes the
pictures; where a JPEG halves its colours, they may differ from Pillow's by a few levels along edges.
"""

import io
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Literal

import av
from av import FFmpegError

from onethinker_jax.data_pipeline.media.media_file import MediaFile

COMMENT = "each frame a picture of a folder"
"""What the file says of itself: its rate is the folder's, so that a list of its frames names all of them."""

_ENDINGS = (".jpg", ".jpeg", ".png")
_NUMBER = re.compile(r"(\d+)\D*$")
# The largest denominator of a rate: 30000/1001 frames a second are kept exactly.
_DENOMINATOR = 100_000


@dataclass(frozen=True)
class FrameFolder:
    """A `MediaFile`: the JPEG or PNG pictures of a folder, in the order of their numbers, at `fps` frames a second.

    As text, the folder. All pictures must be of one format.
    """

    folder: Path
    fps: float

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def frames(self) -> list[Path]:
        """The pictures in order. Raises OSError: the folder cannot be read."""
        found = [path for path in self.folder.iterdir() if path.suffix.lower() in _ENDINGS]
        return sorted(found, key=_place)

    def is_file(self) -> bool:
        """Whether there are pictures."""
        return self.folder.is_dir() and bool(self.frames)

    def stat(self) -> os.stat_result:
        """The size of all pictures together, and the time of the newest. Raises OSError."""
        found = [path.stat() for path in self.frames]
        newest = max((one.st_mtime_ns for one in found), default=0)
        size, time = sum(one.st_size for one in found), newest // 10**9
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, size, time, time, time), {"st_mtime_ns": newest})

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The video, in memory. Raises OSError: there are no pictures, one cannot be read, or they differ in format."""
        frames = self.frames
        if not frames:
            raise FileNotFoundError(f"{self.folder}: holds no picture ({', '.join(_ENDINGS)})")
        if other := next((f for f in frames if f.suffix.lower()[:3] != frames[0].suffix.lower()[:3]), None):
            raise OSError(f"{self.folder}: {other.name} is of another format than {frames[0].name}")
        tick = 1 / Fraction(self.fps).limit_denominator(_DENOMINATOR)
        pictures = (frame.read_bytes() for frame in frames)
        try:
            return film_of(pictures, range(len(frames) + 1), tick, comment=COMMENT)
        except FFmpegError as error:
            raise OSError(f"{frames[0]}: not a readable picture ({error.strerror})") from error


def film_of(
    pictures: Iterable[bytes], times: Sequence[int], tick: Fraction, *, comment: str = ""
) -> IO[bytes]:
    """A QuickTime file of pictures of one format, in memory.

    `times` are when each comes on screen, increasing, and when the last one leaves it, in units of `tick` seconds.
    Raises FFmpegError: the first one is no picture.
    """
    pictures = iter(pictures)
    first, file = next(pictures), io.BytesIO()
    with av.open(io.BytesIO(first)) as model, av.open(file, "w", format="mov") as container:
        stream = container.add_stream_from_template(model.streams.video[0])
        stream.time_base = tick
        if comment:
            container.metadata["comment"] = comment
        for (time, following), picture in zip(pairwise(times), chain([first], pictures), strict=True):
            packet = av.Packet(picture)
            packet.stream, packet.time_base, packet.is_keyframe = stream, tick, True
            packet.pts = packet.dts = time
            packet.duration = following - time
            container.mux(packet)
    file.seek(0)
    return file


def row_rate(files: Iterable[MediaFile]) -> dict[str, float]:
    """`{"fps": rate}` for the row that names these videos, where one is a folder of frames; else nothing."""
    rates = [file.fps for file in files if isinstance(file, FrameFolder)]
    return {"fps": rates[0]} if rates else {}


def _place(path: Path) -> tuple[int, str]:
    """By the number that a name ends with, so that 10.jpg follows 9.jpg; names without a number come first."""
    found = _NUMBER.search(path.stem)
    return int(found[1]) if found else -1, path.name
