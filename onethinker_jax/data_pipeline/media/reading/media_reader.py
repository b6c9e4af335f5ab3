"""The one way from a media file to the pixels a model sees: from the cache, else decoded and resized.

SFT, rollouts, held-out answers and the frames that masks are made on are read through here, with the same
settings and so with the same entries. Decoding happens in this process, or in those of a `MediaPool`: a file
that crashes or hangs its decoder then takes down no more than one of them.
"""

from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from onethinker_jax.data_pipeline.media.decoding import (
    MediaError,
    Video,
    VideoProbe,
    load_image,
    load_video,
    media_kind,
    probe_image,
    probe_video,
)
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.resizing import PixelBounds

# Seconds beyond the time limit of a video that decoding keeps itself, before its process is ended.
GRACE_SECONDS = 15.0


class MediaReader:
    """Reads images and videos in the size they reach the model. Thread-safe."""

    def __init__(
        self,
        *,
        cache: FrameCache | None = None,
        pool: MediaPool | None = None,
        time_limit: float | None = None,
    ):
        """Reads as `load_image` and `load_video` do.

        Args:
            cache: of frames on disk; default: none.
            pool: processes that decode; default: this one.
            time_limit: seconds that decoding one video may take, where it can be stopped between two frames;
                the pool's own limit ends what hangs inside a frame.
        """
        self._cache, self._pool, self._time_limit = cache, pool, time_limit

    @classmethod
    def in_processes(cls, count: int, *, time_limit: float, cache: FrameCache | None = None) -> "MediaReader":
        """A reader that decodes in `count` processes, which end with this one; 0: in this one."""
        pool = MediaPool(count, time_limit=time_limit + GRACE_SECONDS) if count else None
        return cls(cache=cache, pool=pool, time_limit=time_limit)

    @property
    def workers(self) -> int:
        """Processes that decode, and so how many threads may well read at once; 0: none but this one."""
        return 0 if self._pool is None else len(self._pool)

    def kind(self, path: MediaFile) -> Literal["image", "video"]:
        """What the file's content is, as `media_kind` has it. Raises MediaError."""
        return media_kind(path) if self._pool is None else self._pool.call(media_kind, path)

    def image(self, path: MediaFile, bounds: PixelBounds | None) -> np.ndarray:
        """uint8 [H, W, 3] within the bounds; None: in the file's own size.

        Raises MediaError: missing, damaged, too large, or one side is more than 200 times the other.
        """
        key = self._key(path, bounds, kind="image")
        if key and (found := self._cached(key)):
            return found["pixels"]
        if self._pool is None:
            pixels = load_image(path, bounds=bounds)
        else:
            pixels = self._pool.call(load_image, path, bounds=bounds)
        if self._cache and key:
            self._cache.put(key, {"pixels": pixels})
        return pixels

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
        """Frames sampled at `fps`, at most `max_frames`, each within the bounds; None: in the file's own size.

        `num_frames` is their number instead, `near` are seconds that sampling times move to: see `load_video`.

        Raises MediaError: as `load_video`; or its worker died or ran out of time.
        """
        more: dict[str, Any] = {"near": near} if near else {}  # entries of older runs have no such keys
        more |= {"num_frames": num_frames} if num_frames is not None else {}
        named = {name: repr(value) for name, value in more.items()}
        key = self._key(path, bounds, kind="video", fps=fps, max_frames=max_frames, **named)
        if key and (found := self._cached(key)):
            duration, source_fps = found["times"].tolist()
            return Video(found["frames"], found["timestamps"], duration, source_fps, path)
        sampling = {"fps": fps, "max_frames": max_frames, "bounds": bounds, **more}
        sampling["time_limit"] = self._time_limit
        if self._pool is None:
            video = load_video(path, **sampling)
        else:
            video = self._pool.call(load_video, path, **sampling)
        if self._cache and key:
            times = np.array([video.duration, video.source_fps])
            self._cache.put(key, {"frames": video.frames, "timestamps": video.timestamps, "times": times})
        return video

    def image_size(self, path: MediaFile) -> tuple[int, int]:
        """Height and width of `image` without bounds; no pixel is decoded.

        Raises MediaError: missing, no image, too large.
        """
        return probe_image(path) if self._pool is None else self._pool.call(probe_image, path)

    def video_size(
        self, path: MediaFile, *, fps: float, max_frames: int, num_frames: int | None = None
    ) -> VideoProbe:
        """Size and times of the frames of `video` without bounds; no pixel is decoded.

        Raises MediaError: as `probe_video`; or its worker died or ran out of time.
        """
        sampling: dict[str, Any] = {"fps": fps, "max_frames": max_frames, "num_frames": num_frames}
        sampling["time_limit"] = self._time_limit
        if self._pool is None:
            return probe_video(path, **sampling)
        return self._pool.call(probe_video, path, **sampling)

    def close(self) -> None:
        """Ends the pool's processes."""
        if self._pool is not None:
            self._pool.close()

    def _key(self, path: MediaFile, bounds: PixelBounds | None, **settings: str | float) -> str | None:
        if self._cache is None:
            return None
        try:
            return self._cache.key(path, {**settings, **(asdict(bounds) if bounds else {})})
        except OSError as error:
            raise MediaError(f"{path}: cannot be read ({error.strerror or error})") from None

    def _cached(self, key: str) -> dict[str, np.ndarray] | None:
        return self._cache.get(key) if self._cache else None
