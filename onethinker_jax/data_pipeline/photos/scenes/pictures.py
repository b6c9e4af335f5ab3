"""The files of a library as pixels; what was read last stays in memory."""

from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onethinker_jax.data_pipeline.photos.library import LibraryError

OPAQUE = 128
"""A pixel is of an object where its alpha is at least this."""

_KEPT_SIDE = 720  # pixels of a photograph's longer side: no scene shows more

Size = tuple[int, int]
"""Width and height, pixels."""


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: how Pillow calls a broken PNG
        raise LibraryError(f"{path} cannot be read as a picture: {error}") from error
    return image


@lru_cache(maxsize=512)
def cutout(path: Path) -> Image.Image:
    """A picture with alpha (RGBA), cut to its opaque part.

    Raises LibraryError: it cannot be read, or nothing in it is opaque.
    """
    image = _opened(path).convert("RGBA")
    box = image.getchannel("A").point([255 * (a >= OPAQUE) for a in range(256)]).getbbox()
    if box is None:
        raise LibraryError(f"{path} has no opaque pixel: it is no cut-out")
    return image.crop(box)


@lru_cache(maxsize=96)
def photo(path: Path) -> Image.Image:
    """A photograph (RGB), no larger than scenes need it. Raises LibraryError."""
    image = _opened(path).convert("RGB")
    image.thumbnail((_KEPT_SIDE, _KEPT_SIDE), Image.Resampling.LANCZOS)
    return image


@lru_cache(maxsize=32)
def map_image(path: Path) -> Image.Image:
    """A map in its own colours (RGB). Raises LibraryError."""
    return _opened(path).convert("RGB")


@lru_cache(maxsize=512)
def ink(path: Path) -> Image.Image:
    """A handwritten digit, L: 255 where it is inked. Raises LibraryError."""
    return _opened(path).convert("L")


def scaled(image: Image.Image, size: Size, *, mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A cut-out in this size: RGB uint8 [h, w, 3] and alpha uint8 [h, w]."""
    image = image.resize(size, Image.Resampling.LANCZOS)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image)
    return pixels[..., :3], pixels[..., 3]


def covering(size: Size, frame: Size) -> Size:
    """The size at which a picture covers a frame, with its own aspect."""
    factor = max(frame[0] / size[0], frame[1] / size[1])
    return max(frame[0], round(size[0] * factor)), max(frame[1], round(size[1] * factor))


def fill(image: Image.Image, frame: Size, *, across: float = 0.5, down: float = 1.0) -> np.ndarray:
    """The picture scaled to cover a frame and cut to it, uint8 [H, W, 3].

    `across` and `down` say where it is cut, from 0 (what is left or above stays) to 1.
    """
    width, height = covering(image.size, frame)
    left, top = round((width - frame[0]) * across), round((height - frame[1]) * down)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image.crop((left, top, left + frame[0], top + frame[1])))


@lru_cache(maxsize=64)
def clip_length(path: Path) -> float:
    """Seconds of a clip. Raises LibraryError: it cannot be read, or does not say."""
    try:
        with av.open(str(path)) as container:
            length = container.duration
    except av.FFmpegError as error:
        raise LibraryError(f"{path} cannot be read as a video: {error}") from error
    if not length:
        raise LibraryError(f"{path} does not say how long it is")
    return length / av.time_base


def clip_frames(path: Path, start: float, count: int, fps: int, frame: Size) -> np.ndarray:
    """`count` frames of a clip from `start` seconds on, `fps` a second, cut to a frame: uint8 [N, H, W, 3].

    Each shows what is on screen at its time; past the clip's end the last one stays. Raises LibraryError.
    """
    chosen: list[av.VideoFrame] = []
    last: av.VideoFrame | None = None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            begin = float((stream.start_time or 0) * (stream.time_base or 0))
            container.seek(int((begin + start) * av.time_base))
            for decoded in container.decode(stream):
                time = (decoded.time or 0.0) - begin - 1e-6
                while last is not None and len(chosen) < count and start + len(chosen) / fps < time:
                    chosen.append(last)
                if len(chosen) == count:
                    break
                last = decoded
    except (av.FFmpegError, IndexError) as error:
        raise LibraryError(f"{path} cannot be read as a video: {error}") from error
    if last is None:
        raise LibraryError(f"{path} has no frame after {start:g} s")
    chosen += [last] * (count - len(chosen))
    shown: list[np.ndarray] = []
    for number, one in enumerate(chosen):  # the same one may be on screen several times
        shown.append(shown[-1] if number and one is chosen[number - 1] else _cut(one, frame))
    return np.stack(shown)


def _cut(decoded: av.VideoFrame, frame: Size) -> np.ndarray:
    width, height = covering((decoded.width, decoded.height), frame)
    pixels = decoded.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    left, top = (width - frame[0]) // 2, (height - frame[1]) // 2
    return pixels[top : top + frame[1], left : left + frame[0]]


@lru_cache(maxsize=256)
def font(path: Path | None, height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of this size in pixels; None is Pillow's own. Raises LibraryError."""
    if path is None:
        return ImageFont.load_default(size=height)
    try:
        return ImageFont.truetype(path, height)
    except OSError as error:
        raise LibraryError(f"{path} cannot be read as a font: {error}") from error


def written(
    text: str,
    path: Path | None,
    height: int,
    paint: tuple[int, int, int],
    *,
    halo: tuple[int, int, int] | None = None,
) -> Image.Image:
    """A text in a font, RGBA, cut to its ink; with a `halo` of two pixels around it where asked for."""
    made, stroke = font(path, height), 2 if halo else 0
    left, top, right, bottom = (round(v) for v in made.getbbox(text, stroke_width=stroke))
    image = Image.new("RGBA", (max(1, right - left) + 4, max(1, bottom - top) + 4))
    ImageDraw.Draw(image).text(
        (2 - left, 2 - top), text, font=made, fill=paint, stroke_width=stroke, stroke_fill=halo
    )
    box = image.getbbox()
    return image if box is None else image.crop(box)
