"""Image and video files -> uint8 RGB arrays, upright, with true presentation times.

A video is sampled by time, not by frame number: for each sampling time the frame then on screen is
taken, and its own presentation time is kept. Variable frame rates, offsets and long videos therefore
give true timestamps, where OneThinker's released code assumes 2 frames a second whatever was sampled.
Whatever cannot be decoded is a `MediaError` that names the file.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import av
import numpy as np
from av import FFmpegError
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from onethinker_jax.data_pipeline.media_file import MediaFile
from onethinker_jax.data_pipeline.resizing import PixelBounds

# A picture or frame of more pixels is refused before it is decoded: a file of a few kilobytes may claim any
# size. Pillow's own bound of "decompression bombs", a quarter of a gigabyte as RGB.
MAX_PIXELS = 2**28 // 3

# Container headers often promise a frame or two more than there are; more than that is a truncated file.
_MISSING_FRAMES_TOLERATED = 0.05
# Below this many source pixels a frame, starting decoder threads costs more than they save.
_THREADED_PIXELS = 640 * 360
# Jump to a key frame rather than decode up to it if that saves at least so many frames.
_SEEK_WORTH_FRAMES = 16


class MediaError(ValueError):
    """A media file is missing, empty, truncated or not what it should be. One line, naming the file."""


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


def media_kind(path: Path) -> Literal["image", "video"]:
    """What the file's content is; a GIF of several frames is a video.

    Raises:
        MediaError: there is no such file, or it is neither.
    """
    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            animated = image.format == "GIF" and getattr(image, "is_animated", False)
        return "video" if animated else "image"
    except Image.DecompressionBombError:
        return "image"  # which reading it will refuse
    except (UnidentifiedImageError, OSError):
        pass
    try:
        with av.open(str(path), mode="r") as container:
            if container.streams.video and container.format.name != "tty":  # FFmpeg draws any text
                return "video"
    except (FFmpegError, EOFError):
        pass
    raise MediaError(f"{path}: neither an image nor a video that can be read")


def load_image(path: str | MediaFile, *, bounds: PixelBounds | None = None) -> np.ndarray:
    """Reads an image file as uint8 RGB [H, W, 3], resized if there are `bounds`.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits,
    palettes, greys and CMYK are converted. Of an animation the first frame is taken.

    Raises:
        MediaError: missing, truncated, not an image, of more than `MAX_PIXELS`, or too narrow for the bounds.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_image(path) as image:
        image.load()
        pixels = np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    return _fit(path, pixels, bounds)


def probe_image(path: str | MediaFile) -> tuple[int, int]:
    """Height and width that `load_image` would give without bounds, from the file's header: no pixel is decoded.

    Raises:
        MediaError: missing, not an image, or of more than `MAX_PIXELS`. Damage behind the header is not seen.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_image(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


@contextlib.contextmanager
def _opened_image(path: MediaFile) -> Iterator[Image.Image]:
    """The image file, opened and of a size that may be read; what is raised inside is a MediaError that names it."""
    if not path.is_file():
        raise MediaError(f"{path}: no such image file")
    try:
        with Image.open(_source(path)) as image:
            _check_size(path, image.width, image.height)
            yield image
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: too large to be read ({_first_line(error)})") from None
    except MediaError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise MediaError(f"{path}: not a readable image ({_first_line(error)})") from error


def _check_size(path: MediaFile, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: too large to be read, {width} x {height} pixels (at most {MAX_PIXELS:,})")


def _fit(path: MediaFile, pixels: np.ndarray, bounds: PixelBounds | None, frames: int = 1) -> np.ndarray:
    try:
        return pixels if bounds is None else bounds.fit(pixels, frames)
    except ValueError as error:
        raise MediaError(f"{path}: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        if image.mode.startswith("I;16") or values.max(initial=0) > 255:
            values = values / 257.0  # 65535 -> 255
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def load_video(
    path: str | MediaFile,
    *,
    fps: float,
    max_frames: int,
    bounds: PixelBounds | None = None,
    time_limit: float | None = None,
) -> Video:
    """Samples a video file at `fps` frames a second, at most `max_frames` frames over its whole length.

    Sampling times are 0, 1/fps, 2/fps ... while inside the video; if these are more than `max_frames`,
    `max_frames` times spread evenly over the duration instead. A frame that would be taken twice (a
    source slower than `fps`) is taken once.

    With `bounds` each frame is resized as soon as it is decoded, so that no more than one is held in the
    file's own size. Decoding that takes more than `time_limit` seconds is given up between two frames.

    Raises:
        MediaError: missing, empty, truncated, undecodable, too large, too slow, or without a video stream.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_video(path, fps, max_frames) as container:
        clock = _Clock(path, time_limit)
        plan = _plan(container, path, fps, max_frames, clock)
        chosen_times, frames = [], []
        # A file whose packets have no times was decoded to its end, and may not be able to go back.
        with contextlib.nullcontext(container) if plan.exact else av.open(_source(path), mode="r") as source:
            for at, picture in _decode(source, path, plan, clock):
                chosen_times.append(at)
                frames.append(_fit(path, picture, bounds, len(plan.chosen)))
    timestamps = np.array(chosen_times, np.float64)
    return Video(np.stack(frames), timestamps, plan.duration, plan.source_fps, path)


def probe_video(
    path: str | MediaFile, *, fps: float, max_frames: int, time_limit: float | None = None
) -> VideoProbe:
    """Size, duration and time stamps of the frames that `load_video` would give, without decoding them.

    One frame is decoded for its size; all are where a file has no time stamps.

    Raises:
        MediaError: as `load_video`, but damage of pixels is not seen.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened_video(path, fps, max_frames) as container:
        clock = _Clock(path, time_limit)
        plan = _plan(container, path, fps, max_frames, clock)
        first = replace(plan, chosen=plan.chosen[:1])
        with contextlib.nullcontext(container) if plan.exact else av.open(_source(path), mode="r") as source:
            [(_, picture)] = _decode(source, path, first, clock)
    height, width, _ = picture.shape
    return VideoProbe(height, width, plan.seconds[plan.chosen], plan.duration, path)


@contextlib.contextmanager
def _opened_video(path: MediaFile, fps: float, max_frames: int) -> Iterator[InputContainer]:
    if fps <= 0 or max_frames < 1:
        raise ValueError(f"fps must be positive and max_frames at least 1, got {fps} and {max_frames}")
    if not path.is_file():
        raise MediaError(f"{path}: no such video file")
    try:
        with av.open(_source(path), mode="r") as container:
            yield container
    except (FFmpegError, EOFError) as error:
        raise MediaError(f"{path}: not a readable video ({_first_line(error)})") from error


def _source(path: MediaFile) -> str | IO[bytes]:
    """What the libraries open: the path, which they read by themselves, or the open file of what has none."""
    return str(path) if isinstance(path, Path) else path.open("rb")


class _Clock:
    """Raises once a video's time is over."""

    def __init__(self, path: MediaFile, limit: float | None):
        self.path, self.limit, self.began = path, limit, time.monotonic()

    def check(self) -> None:
        if self.limit is not None and time.monotonic() - self.began > self.limit:
            raise MediaError(f"{self.path}: not decoded within {self.limit:g} s")


@dataclass(frozen=True)
class _Plan:
    """Which frames of a video are taken. M frames of the file."""

    times: np.ndarray  # [M], increasing; ticks of the stream's time base if exact, else seconds
    keys: np.ndarray  # times of the key frames
    exact: bool
    seconds: np.ndarray  # float64 [M], since the first frame
    duration: float
    source_fps: float
    chosen: np.ndarray  # int [N], indices of the M frames


def _plan(container: InputContainer, path: MediaFile, fps: float, max_frames: int, clock: _Clock) -> _Plan:
    stream = _film(container, path)
    times, keys, exact = _presentation_times(container, stream, path, clock)
    if len(times) == 0:
        raise MediaError(f"{path}: holds no video frame")
    tick = float(stream.time_base or 1) if exact else 1.0
    seconds = (times - times[0]) * tick
    spacing = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
    if spacing == 0.0:
        spacing = float(1 / stream.average_rate) if stream.average_rate else 1.0 / fps
    duration = float(seconds[-1] + spacing)
    end = float(times[-1] * tick + spacing)
    promised = _promised_end(container, stream)
    if end < (1 - 2 * _MISSING_FRAMES_TOLERATED) * promised - 0.5:
        raise MediaError(f"{path}: truncated, its frames end at {end:.1f} s of {promised:.1f} s")

    wanted = int(np.ceil(duration * fps - 0.01))  # rounded time stamps must not add a sample
    moments = np.arange(min(wanted, max_frames)) * (
        1 / fps if wanted <= max_frames else duration / max_frames
    )
    chosen = np.unique(np.maximum(np.searchsorted(seconds, moments + 1e-6, side="right") - 1, 0))
    if len(chosen) == 0:
        chosen = np.zeros(1, np.int64)
    return _Plan(times, keys, exact, seconds, duration, 1.0 / spacing, chosen)


def _film(container: InputContainer, path: MediaFile):
    """The first video stream, ready to be decoded; the cover of a song is none."""
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise MediaError(f"{path}: has no video stream")
    stream = films[0]
    if stream.codec_context is None:
        raise MediaError(f"{path}: no decoder for its video stream")
    _check_size(path, stream.codec_context.width, stream.codec_context.height)
    threaded = stream.codec_context.width * stream.codec_context.height > _THREADED_PIXELS
    stream.thread_type = "AUTO" if threaded else "NONE"
    return stream


def _promised_end(container: InputContainer, stream) -> float:
    """When the video stream ends by the header, in seconds; 0 if it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1  # else the container may last longer than its video
    return container.duration / av.time_base if container.duration and alone else 0.0


def _presentation_times(
    container, stream, path: MediaFile, clock: _Clock
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Presentation times of all frames without decoding them: (sorted times, key frames' times, exact).

    Times are in units of the stream's time base if `exact`; else packets carry none, the video is decoded
    once and times are seconds since the first frame.
    """
    shown, keys, missing = [], [], False
    for packet in container.demux(stream):
        clock.check()
        if packet.size == 0:
            continue  # the flushing packet at the end
        if packet.is_corrupt:
            raise MediaError(f"{path}: truncated or damaged after {len(shown)} frames")
        if packet.is_discard:
            continue
        missing = missing or packet.pts is None
        shown.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
    if stream.frames and len(shown) < stream.frames - _tolerated(stream.frames):
        raise MediaError(f"{path}: truncated, {len(shown)} of {stream.frames} frames can be read")
    if not missing:
        return np.unique(np.array(shown, np.int64)), np.unique(np.array(keys, np.int64)), True
    seconds = []
    with av.open(_source(path), mode="r") as again:
        for frame in again.decode(_film(again, path)):
            clock.check()
            seconds.append(frame.time)
    if any(time is None for time in seconds) or np.any(np.diff(np.array(seconds, float)) <= 0):
        seconds = np.arange(len(seconds)) / float(stream.average_rate or 25)
    seconds = np.asarray(seconds, np.float64)
    return seconds - seconds[:1], np.zeros(0, np.int64), False


def _tolerated(frames: int) -> float:
    return max(2, _MISSING_FRAMES_TOLERATED * frames)


def _decode(
    container: InputContainer, path: MediaFile, plan: _Plan, clock: _Clock
) -> Iterator[tuple[float, np.ndarray]]:
    """Decodes the chosen frames; gives their seconds since the first frame and their pixels, upright.

    With exact times it jumps to a later key frame where that skips enough; otherwise frames are counted.
    A film that changes its size is shown in that of its first chosen frame, as a player would.
    """
    times, keys, exact = plan.times, plan.keys, plan.exact
    stream = _film(container, path)
    if exact:
        container.seek(int(times[0]), stream=stream)
    decoder = container.decode(stream)
    converter = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
    position = -1  # index of the last frame decoded
    size: tuple[int, int] | None = None
    for index in plan.chosen.tolist():
        if exact and len(keys):
            key = keys[max(np.searchsorted(keys, times[index], side="right") - 1, 0)]
            if np.searchsorted(times, key) - position >= _SEEK_WORTH_FRAMES:
                container.seek(int(key), stream=stream)
                decoder = container.decode(stream)
        for frame in decoder:
            clock.check()
            position = (
                int(np.searchsorted(times, frame.pts)) if exact and frame.pts is not None else position + 1
            )
            if position >= index:
                break
        else:
            if size and index >= len(times) - _tolerated(len(times)):
                break  # a header that promised a little too much
            raise MediaError(f"{path}: truncated, frame {index} of {len(times)} cannot be decoded")
        if frame.is_corrupt:
            raise MediaError(f"{path}: frame {index} of {len(times)} is damaged")
        size = size or (frame.width, frame.height)
        position = min(position, len(times) - 1)
        yield float(plan.seconds[position]), _upright(frame, converter, size)


def _upright(frame: av.VideoFrame, converter: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    pixels = converter.reformat(frame, *size, format="rgb24", threads=1).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # counterclockwise, from the container's display matrix
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
