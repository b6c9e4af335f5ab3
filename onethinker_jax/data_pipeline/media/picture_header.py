"""What a media file's first bytes tell without reading it whole: the size of its pictures, and its frame rate."""

from dataclasses import dataclass
from functools import lru_cache

import av
from av import FFmpegError

from onethinker_jax.data_pipeline.media.decoding import MediaError, probe_image
from onethinker_jax.data_pipeline.media.frame_folder import COMMENT, FrameFolder
from onethinker_jax.data_pipeline.media.media_file import MediaFile


@dataclass(frozen=True)
class PictureHeader:
    """An image, or a video's first frame, upright."""

    height: int
    width: int
    fps: float | None = None  # of a video, where it says so; a folder of frames does not


def picture_header(file: MediaFile, kind: str) -> PictureHeader | None:
    """The header of an "image" or "video"; None where it cannot be read, which decoding the file will say better."""
    try:
        if isinstance(file, FrameFolder):
            return picture_header(file.frames[0], "image")
        found = file.stat()
        return _header(file, kind, found.st_mtime_ns, found.st_size)
    except (MediaError, OSError, FFmpegError, EOFError):
        return None


@lru_cache(maxsize=4096)  # rows that follow each other often ask about one video
def _header(file: MediaFile, kind: str, _changed: int, _size: int) -> PictureHeader | None:
    if kind == "image":
        return PictureHeader(*probe_image(file))
    with file.open("rb") as opened, av.open(opened, mode="r") as container:
        stream = next(iter(container.streams.video), None)
        frame = None if stream is None else next(container.decode(stream), None)
        if stream is None or frame is None:
            return None
        of_a_folder = container.metadata.get("comment") == COMMENT
        fps = float(stream.average_rate) if stream.average_rate and not of_a_folder else None
        sideways = round(frame.rotation / 90) % 2
        sides = (frame.width, frame.height) if sideways else (frame.height, frame.width)
        return PictureHeader(*sides, fps)
