"""Media that a request names: data URLs, files below one folder, and http(s) where it is allowed."""

import asyncio
import base64
import binascii
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Literal, ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from onethinker_jax.data_pipeline.media.decoding import Video, VideoProbe
from onethinker_jax.data_pipeline.media.frame_folder import film_of
from onethinker_jax.data_pipeline.media.media_file import DecoderError, MediaError, MediaFile, MemoryFile
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import GRACE_SECONDS, MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.serve.arguments import Limits
from onethinker_jax.serve.errors import wrong
from onethinker_jax.serve.requests.fetching import Fetcher
from onethinker_jax.serve.requests.fields import FrameCount, FrameTimes

LONGEST_ADDRESS = 4096
FRAMES = "data:video/jpeg;base64,"

logger = logging.getLogger("onethinker_jax.serve")

P = ParamSpec("P")
R = TypeVar("R")


class _Decoders(MediaPool):
    """Processes in which a file that no decoder can take is the file's fault, whatever the decoder says of it."""

    def call(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return super().call(function, *arguments, **keywords)
        except DecoderError as error:
            logger.error("%s: %s", arguments[0], error)
            raise MediaError(f"{arguments[0]}: cannot be decoded") from None


class LimitedReader(MediaReader):
    """Reads media in replaceable processes; what is larger than allowed is refused before it is decoded."""

    def __init__(self, limits: Limits, *, workers: int, time_limit: float):
        self.pool = _Decoders(workers, time_limit=time_limit + GRACE_SECONDS)
        super().__init__(pool=self.pool, time_limit=time_limit)
        self._limits = limits

    def image_size(self, path: MediaFile) -> tuple[int, int]:
        """As `MediaReader`. Raises MediaError also for an image of too many pixels."""
        height, width = super().image_size(path)
        self._check(path, height, width)
        return height, width

    def video_size(
        self, path: MediaFile, *, fps: float, max_frames: int, num_frames: int | None = None
    ) -> VideoProbe:
        """As `MediaReader`. Raises MediaError also for frames of too many pixels, and for too long a video."""
        num_frames = _frames_wanted(path, num_frames)
        probe = super().video_size(path, fps=fps, max_frames=max_frames, num_frames=num_frames)
        self._check(path, probe.height, probe.width)
        if probe.duration > self._limits.video_seconds:
            most = self._limits.video_seconds
            raise MediaError(f"{path}: {probe.duration:.1f} seconds, more than the {most:g} allowed")
        return probe

    def video(
        self,
        path: MediaFile,
        bounds: PixelBounds | None,
        *,
        fps: float,
        max_frames: int,
        num_frames: int | None = None,
        near: tuple[float, ...] = (),
    ) -> Video:
        """As `MediaReader`; of frames that are given, all."""
        num_frames = _frames_wanted(path, num_frames)
        return super().video(path, bounds, fps=fps, max_frames=max_frames, num_frames=num_frames, near=near)

    def _check(self, path: MediaFile, height: int, width: int) -> None:
        if height * width > self._limits.pixels:
            raise MediaError(
                f"{path}: {width} x {height} pixels, more than the {self._limits.pixels} allowed"
            )


def _frames_wanted(path: MediaFile, num_frames: int | None) -> int | None:
    """All of frames that are given; of another film, what the request asks for, or the server by itself."""
    if isinstance(path, GivenFrames):
        return len(path.pictures)
    return path.num_frames if isinstance(path, CountedFilm) else num_frames


@dataclass(frozen=True)
class GivenFrames:
    """A `MediaFile`: JPEG frames that a client has sampled, as a film that holds them."""

    name: str
    pictures: tuple[bytes, ...]
    times: tuple[int, ...]  # when each is shown and when the last one ends, increasing, in ticks
    tick: Fraction  # seconds

    def __str__(self) -> str:
        return self.name

    def is_file(self) -> bool:
        """Always."""
        return True

    def stat(self) -> os.stat_result:
        """Its size alone."""
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, sum(map(len, self.pictures)), 0, 0, 0))

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The film, which the process that decodes puts together. Raises FFmpegError: no pictures."""
        return film_of(self.pictures, self.times, self.tick)


@dataclass(frozen=True)
class CountedFilm:
    """A `MediaFile`: a film, and how many of its frames a request wants."""

    file: MediaFile
    num_frames: int

    def __str__(self) -> str:
        return str(self.file)

    @property
    def name(self) -> str:
        """The film's."""
        return self.file.name

    def is_file(self) -> bool:
        """Whether the film is there."""
        return self.file.is_file()

    def stat(self) -> os.stat_result:
        """The film's."""
        return self.file.stat()

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The film."""
        return self.file.open(mode)


class MediaSource:
    """Turns the addresses of a request into files."""

    def __init__(self, limits: Limits, folder: Path | None, fetcher: Fetcher | None, most_frames: int):
        """`folder`: whose files may be named, without symbolic links in its path; None: none."""
        self._limits, self._folder, self._fetcher, self._most_frames = limits, folder, fetcher, most_frames

    async def video(self, url: str, name: str, settings: FrameTimes | FrameCount | None) -> MediaFile:
        """The film behind an address; `settings` are the times of its frames, or their number. Raises Refused."""
        if not isinstance(settings, FrameCount):
            return await self.file(url, name, settings)
        if settings.num_frames > self._most_frames:
            raise wrong(
                f"media_io_kwargs.video.num_frames: {settings.num_frames}, more than the {self._most_frames} allowed"
            )
        return CountedFilm(await self.file(url, name), settings.num_frames)

    async def file(self, url: str, name: str, times: FrameTimes | None = None) -> MediaFile:
        """The file behind an address; `name` stands for it in errors, `times` are those of frames. Raises Refused."""
        scheme = url[:8].partition(":")[0].lower()
        if url.startswith(FRAMES):
            return await asyncio.to_thread(self._frames, url, name, times)
        if scheme == "data":
            return await asyncio.to_thread(self._data, url, name)
        if len(url) > LONGEST_ADDRESS:
            raise wrong(f"{name}: an address of {len(url)} characters, more than {LONGEST_ADDRESS}")
        if scheme == "file":
            return await asyncio.to_thread(self._local, url, name)
        if scheme not in ("http", "https"):
            raise wrong(f"{name}: its url must be a data URL{self._others()}")
        if self._fetcher is None:
            raise wrong(f"{name}: http(s) addresses are not fetched here; send the file as a data URL")
        return MemoryFile(name, await self._fetcher.get(url))

    def _others(self) -> str:
        known = [("a file:// URL", self._folder), ("an http(s) URL", self._fetcher)]
        return "".join(f" or {what}" for what, allowed in known if allowed is not None)

    def _data(self, url: str, name: str) -> MediaFile:
        head, comma, payload = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise wrong(f"{name}: its data URL must be data:TYPE;base64,…")
        return MemoryFile(name, self._bounded(_decoded(payload, name), name))

    def _frames(self, url: str, name: str, times: FrameTimes | None) -> MediaFile:
        """A video of JPEG frames, one after the other behind one head, as vLLM takes them."""
        if times is None:
            raise wrong(f"{name}: a video of JPEG frames needs their times, in media_io_kwargs.video")
        payloads = url.removeprefix(FRAMES).split(",")
        if len(payloads) > self._most_frames:
            raise wrong(f"{name}: {len(payloads)} frames, more than the {self._most_frames} allowed")
        if len(payloads) != len(times.frames_indices):
            raise wrong(f"{name}: {len(payloads)} frames, and {len(times.frames_indices)} frames_indices")
        pictures = tuple(self._bounded(_decoded(one, name), name) for one in payloads)
        shown, tick = times.frames_indices, 1 / Fraction(times.fps).limit_denominator(10**6)
        # A last frame that lasts much longer than the others would look like a film that is cut off.
        gap = round(shown[-1] / (len(shown) - 1)) if len(shown) > 1 else times.total_num_frames
        return GivenFrames(name, pictures, (*shown, shown[-1] + gap), tick)

    def _bounded(self, content: bytes, name: str) -> bytes:
        if len(content) > self._limits.media_bytes:
            raise wrong(f"{name}: {len(content)} bytes, more than the {self._limits.media_bytes} allowed")
        if not content:
            raise wrong(f"{name}: is empty")
        return content

    def _local(self, url: str, name: str) -> MediaFile:
        """A file below the folder. What lies outside is refused in the same words whether it is there or not."""
        if self._folder is None:
            raise wrong(f"{name}: files of the server are not read; send the file as a data URL")
        nothing = wrong(f"{name}: no such file in the server's folder of media")
        try:
            parts = urlsplit(url)
            path = Path(unquote_to_bytes(parts.path).decode())
            if (
                parts.netloc not in ("", "localhost")
                or parts.query
                or parts.fragment
                or not path.is_absolute()
            ):
                raise nothing
            found = path.resolve(strict=True)
            if not found.is_relative_to(self._folder) or not stat.S_ISREG((status := found.stat()).st_mode):
                raise nothing
        except (OSError, ValueError, RuntimeError):
            raise nothing from None
        if status.st_size > self._limits.media_bytes:
            raise wrong(f"{name}: {status.st_size} bytes, more than the {self._limits.media_bytes} allowed")
        return found


def _decoded(payload: str, name: str) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(f"{name}: its data URL is not base64") from None
