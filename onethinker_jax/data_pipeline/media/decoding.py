"""Image and video files -> uint8 RGB arrays, upright, with true presentation times.

A video is sampled by time, not by frame number: for each sampling time the frame then on screen is
taken, and its own presentation time is kept. Variable frame rates, offsets and long videos therefore
give true timestamps, where OneThinker's released code assumes 2 frames a second whatever was sampled.
Whatever cannot be decoded is a `MediaError` that names the file.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av import FFmpegError
from av.video.frame import VideoFrame
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from onethinker_jax.data_pipeline.media.animation import Animation, is_animated, may_be_animated
from onethinker_jax.data_pipeline.media.film import Clock, Film, source
from onethinker_jax.data_pipeline.media.grey_levels import set_clear_value, to_rgb
from onethinker_jax.data_pipeline.media.heic import HeicPicture, first_bytes, is_avif, is_heic
from onethinker_jax.data_pipeline.media.media_file import MediaError, MediaFile
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.media.video_frames import WrongTimeline, pictures
from onethinker_jax.data_pipeline.media.video_timeline import (
    Timeline,
    choose_frames,
    decoded_timeline,
    read_timeline,
)

# A picture or frame of more pixels is refused before it is decoded: a file of a few kilobytes may claim any
# size. Pillow's own bound of "decompression bombs", a quarter of a gigabyte as RGB.
MAX_PIXELS = 2**28 // 3


@dataclass(frozen=True)
class Video:
    """Sampled frames of one video. N frames, H x W pixels."""

    frames: np.ndarray  # uint8 [N, H, W, 3]
    timestamps: np.ndarray  # float64 [N], seconds since the first frame of the stream, increasing
    duration: float  # seconds, from the first frame's start to the last frame's end
    source_fps: float  # average frames a second of the file
    path: MediaFile


@dataclass(frozen=True)
class VideoProbe:
    """What `load_video` would give, without its pixels."""

    height: int  # upright, in the file's own size
    width: int
    timestamps: np.ndarray  # float64 [N], seconds since the first frame of the stream, increasing
    duration: float  # seconds, from the first frame's start to the last frame's end
    path: MediaFile


def media_kind(path: MediaFile) -> Literal["image", "video"]:
    """What the file's content is; a GIF, WebP, PNG or AVIF of several frames is a video, a HEIC an image.

    Raises MediaError: there is no such file, or it is neither.
    """
    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    head = first_bytes(path)
    if is_heic(head):
        return "image"
    try:
        with path.open("rb") as opened, Image.open(opened) as image:
            return "video" if is_animated(image) else "image"
    except Image.DecompressionBombError:
        return "image"  # which reading it will refuse
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError):
        if is_avif(head):
            return "image"
    try:
        with av.open(source(path), mode="r") as container:
            if container.streams.video and container.format.name != "tty":  # FFmpeg draws any text
                return "video"
    except (FFmpegError, EOFError):
        pass
    raise MediaError(f"{path}: neither an image nor a video that can be read")


def load_image(path: str | MediaFile, *, bounds: PixelBounds | None = None) -> np.ndarray:
    """Reads an image file as uint8 RGB [H, W, 3], resized if there are `bounds`.

    EXIF orientation is applied, transparency is laid over white, 16-bit, 32-bit and float greys are scaled to
    8 bits (`grey_levels.to_rgb` says how), palettes, greys and CMYK are converted. The first frame of an animation is
    taken. HEIC needs the extra `heic`.

    Raises MediaError: missing, truncated, not an image, of more than `MAX_PIXELS`, of values that are no greys, or
    too narrow for the bounds.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_image(path) as image:
        picture = image.decode() if isinstance(image, HeicPicture) else image
        set_clear_value(picture)
        picture.load()
        pixels = np.asarray(to_rgb(ImageOps.exif_transpose(picture)))
    return _fit(path, pixels, bounds)


def probe_image(path: str | MediaFile) -> tuple[int, int]:
    """Height and width that `load_image` would give without bounds, from the file's header: no pixel is decoded.

    Raises MediaError: missing, not an image, or of more than `MAX_PIXELS`. Damage behind the header is not seen.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_image(path) as image:
        width, height = image.size
        if isinstance(image, HeicPicture):
            return height, width
        # Pillow gives the size of a TIFF upright.
        turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened_image(path: MediaFile) -> Iterator[Image.Image | HeicPicture]:
    """The image file, opened and of a size that may be read; what is raised inside is a MediaError that names it."""
    if not path.is_file():
        raise MediaError(f"{path}: no such image file")
    head = first_bytes(path)
    try:
        if is_heic(head):
            picture = HeicPicture(path)
            _check_size(path, *picture.size)
            yield picture
            return
        with Image.open(source(path)) as image:
            _check_size(path, image.width, image.height)
            yield image
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: too large to be read ({_first_line(error)})") from None
    except MediaError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if is_avif(head) and not features.check("avif"):
            raise MediaError(f"{path}: an AVIF picture, which needs Pillow 11.3 or later") from None
        raise MediaError(f"{path}: not a readable image ({_first_line(error)})") from error


def _check_size(path: MediaFile, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: too large to be read, {width} x {height} pixels (at most {MAX_PIXELS:,})")


def _fit(path: MediaFile, pixels: np.ndarray, bounds: PixelBounds | None, frames: int = 1) -> np.ndarray:
    try:
        return pixels if bounds is None else bounds.fit(pixels, frames)
    except ValueError as error:
        raise MediaError(f"{path}: {error}") from None


def load_video(
    path: str | MediaFile,
    *,
    fps: float,
    max_frames: int,
    bounds: PixelBounds | None = None,
    time_limit: float | None = None,
    num_frames: int | None = None,
    near: tuple[float, ...] = (),
) -> Video:
    """Samples a video file at `fps` frames a second, at most `max_frames` frames over its whole length.

    Sampling times are 0, 1/fps, 2/fps ... while inside the video; if these are more than `max_frames`,
    `max_frames` times spread evenly over the duration instead. A sampling time moves to the nearest of the seconds
    `near`, which increase, where one lies within half the distance of two sampling times. For each the frame on
    screen is taken: the last one whose presentation time is not later (a microsecond aside), in a decode of the whole
    file from its start by FFmpeg, which obeys edit lists; times count from the first frame shown. A frame that would
    be taken twice (a source slower than `fps`) is taken once. Frames before the first key frame cannot be decoded and
    are not shown.

    With `num_frames`, that many frames are taken instead, evenly by their number from the first to the last, as
    transformers' video processor takes them; a shorter video gives all of its frames once.

    With `bounds` each frame is resized as soon as it is decoded, so that only a video's first few are held in the
    file's own size. Decoding that takes more than `time_limit` seconds is given up between two frames.

    Raises MediaError: missing, empty, truncated, undecodable, too large, too slow, or without a video stream.
    """
    path = Path(path) if isinstance(path, str) else path
    choose = partial(choose_frames, fps=fps, max_frames=max_frames, num_frames=num_frames, near=near)
    with _opened_film(path, fps, max_frames, time_limit) as film:
        if isinstance(film, Animation):
            return _load_animation(film, choose, bounds)
        timeline, decoded = read_timeline(film)
        try:
            return _load(film, timeline, decoded, choose, bounds)
        except WrongTimeline:
            timeline, decoded = decoded_timeline(film, timeline.packets)
        try:
            return _load(film, timeline, decoded, choose, bounds)
        except WrongTimeline:
            raise MediaError(f"{path}: damaged, two decodes of it give different frames") from None


def _load(
    film: Film,
    timeline: Timeline,
    decoded: Iterator[VideoFrame],
    choose: Callable[[np.ndarray, float], np.ndarray],
    bounds: PixelBounds | None,
) -> Video:
    chosen = choose(timeline.seconds, timeline.duration)
    frames = [
        _fit(film.path, frame, bounds, len(chosen)) for frame in pictures(film, timeline, decoded, chosen)
    ]
    return Video(
        np.stack(frames), timeline.seconds[chosen], timeline.duration, 1 / timeline.spacing, film.path
    )


def _load_animation(
    film: Animation, choose: Callable[[np.ndarray, float], np.ndarray], bounds: PixelBounds | None
) -> Video:
    chosen = choose(film.seconds, film.duration)
    frames = [_fit(film.path, frame, bounds, len(chosen)) for frame in film.pictures(chosen)]
    rate = len(film.seconds) / film.duration
    return Video(np.stack(frames), film.seconds[chosen], film.duration, rate, film.path)


def probe_video(
    path: str | MediaFile,
    *,
    fps: float,
    max_frames: int,
    time_limit: float | None = None,
    num_frames: int | None = None,
) -> VideoProbe:
    """Size, duration and time stamps of the frames that `load_video` would give, by the same code.

    A few frames are decoded; all are where packets do not tell the times of frames (see `video_timeline`), and of an
    animation.

    Raises MediaError: as `load_video`, but damage of pixels is not seen.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_film(path, fps, max_frames, time_limit) as film:
        timeline = film if isinstance(film, Animation) else read_timeline(film)[0]
    chosen = choose_frames(
        timeline.seconds, timeline.duration, fps=fps, max_frames=max_frames, num_frames=num_frames
    )
    return VideoProbe(timeline.height, timeline.width, timeline.seconds[chosen], timeline.duration, path)


@contextlib.contextmanager
def _opened_film(
    path: MediaFile, fps: float, max_frames: int, time_limit: float | None
) -> Iterator[Film | Animation]:
    """The video, opened; what is raised inside is a MediaError that names it."""
    if fps <= 0 or max_frames < 1:
        raise ValueError(f"fps must be positive and max_frames at least 1, got {fps} and {max_frames}")
    if not path.is_file():
        raise MediaError(f"{path}: no such video file")
    head = first_bytes(path)
    if is_heic(head):
        raise MediaError(f"{path}: a HEIC picture, no video")
    try:
        if may_be_animated(head):
            with Image.open(source(path)) as image:
                if is_animated(image):
                    _check_size(path, image.width, image.height)
                    yield Animation(path, image, Clock(path, time_limit))
                    return
        with Film(path, partial(_check_size, path), time_limit) as film:
            yield film
    except MediaError:
        raise
    except (FFmpegError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: not a readable video ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
