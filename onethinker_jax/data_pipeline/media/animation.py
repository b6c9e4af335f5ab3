"""Animated GIF, WebP, PNG and AVIF files: frames with durations of their own, read by Pillow.

FFmpeg reads no animated WebP, and of an animated AVIF the still.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.media.film import Clock
from onethinker_jax.data_pipeline.media.grey_levels import to_rgb
from onethinker_jax.data_pipeline.media.heic import is_avif
from onethinker_jax.data_pipeline.media.media_file import MediaError, MediaFile

_FORMATS = {
    "GIF",
    "WEBP",
    "PNG",
    "AVIF",
}  # others of several pictures, such as TIFF and MPO, are no animations
# Browsers show a frame that should last at most 10 ms for 100 ms.
_SHORTEST, _STANDARD = 10.0, 100.0


def may_be_animated(head: bytes) -> bool:
    """Whether a file that begins like this is of a format that has animations."""
    return (
        head.startswith((b"GIF8", b"\x89PNG"))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or is_avif(head)
    )


def is_animated(image: Image.Image) -> bool:
    """Whether the file holds several pictures in a format whose frames have durations."""
    return image.format in _FORMATS and getattr(image, "is_animated", False)


class Animation:
    """The frames of an opened animation. M frames."""

    def __init__(self, path: MediaFile, image: Image.Image, clock: Clock):
        """Goes through all frames for their durations.

        Raises MediaError: truncated, or too slow. OSError, ValueError, SyntaxError, EOFError: damaged.
        """
        self.path, self._image, self._clock = path, image, clock
        self.width, self.height = image.size
        if image.format == "GIF":
            _refuse_truncated_gif(path)
        # A PNG may have a picture for those who cannot show animations, which is none of its frames.
        self._first = 1 if getattr(image, "default_image", False) else 0
        durations = []
        for _ in self._frames(range(self._first, getattr(image, "n_frames", 1))):
            duration = float(image.info.get("duration") or 0)
            durations.append(duration if duration > _SHORTEST else _STANDARD)
        ends = np.cumsum(durations) / 1000
        self.seconds = np.concatenate([[0.0], ends[:-1]])  # float64 [M], when each comes on screen
        self.duration = float(ends[-1])

    def pictures(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3] of the chosen frames, transparency over white."""
        for image in self._frames((chosen + self._first).tolist()):
            yield np.asarray(to_rgb(image.copy()))

    def _frames(self, numbers) -> Iterator[Image.Image]:
        for number in numbers:
            self._clock.check()
            self._image.seek(number)
            self._image.load()
            yield self._image


def _refuse_truncated_gif(path: MediaFile) -> None:
    """A GIF does not count its frames; it ends with a semicolon."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 1024, 0))
        tail = file.read()
    if not tail.rstrip(b"\0\r\n ").endswith(b";"):
        raise MediaError(f"{path}: truncated, its end is missing")
