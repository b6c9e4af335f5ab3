"""Decoded and resized pictures on disk: addressed by content, bounded in size, shared by processes.

An entry's key is a hash of the source file's bytes, of how it was sampled and resized, and of the versions of
the decoding libraries: a changed file or setting is another entry, a copied or renamed file the same one.
Entries appear whole (written aside, then renamed); the least recently used ones go when the bound is reached.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL

from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.files import put_file, temporary

logger = logging.getLogger(__name__)

_HEIF = next((found.version for found in metadata.distributions(name="pillow-heif")), "none")
# The number is this code's.
_LIBRARIES = f"3 av {av.__version__} pillow {PIL.__version__} pillow-heif {_HEIF}"
# Eviction goes on to this share of the bound, so that it is not needed again at once.
_LOW_WATER = 0.9
_STALE_SECONDS = 3600  # a file that was being written and is as old as this belongs to a process that died


class FrameCache:
    """Arrays by key in a folder. Safe for threads, and for processes on one file system that has `flock`."""

    def __init__(self, folder: str | Path, max_bytes: int):
        """Opens the cache, which other processes may use at the same time.

        Args:
            folder: made if need be; holds nothing else.
            max_bytes: bound of all entries together.

        Raises ValueError: a bound that is not positive. OSError: the folder cannot be made.
        """
        if max_bytes <= 0:
            raise ValueError(f"a frame cache needs room, max_bytes is {max_bytes}")
        self.folder, self.max_bytes = Path(folder), max_bytes
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._writing = self.folder / "writing"
        self._writing.mkdir(parents=True, exist_ok=True)
        self._failed = False

    def key(self, source: MediaFile, settings: Mapping[str, Any]) -> str:
        """The key of a file decoded with these settings (JSON values). Reads the file once in its life.

        Raises OSError: the file cannot be read.
        """
        stat = source.stat()
        digest = _content_hash(source, stat.st_size, stat.st_mtime_ns)
        text = json.dumps([_LIBRARIES, digest, sorted(settings.items())])
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under a key, or None; a damaged entry is removed and counts as none."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as file:  # its check sums are verified on the way
                arrays = {name: file[name] for name in file.files}
            os.utime(path)  # the time of the last use
        except FileNotFoundError:
            self.misses += 1
            return None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s: removed from the frame cache, it is damaged (%s)", path, error)
            path.unlink(missing_ok=True)
            self.misses += 1
            return None
        self.hits += 1
        return arrays

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays under a key, unless they alone exceed the bound. A full disk is a warning, once."""
        path = self._path(key)
        try:
            with temporary(path, self._writing) as aside:
                with aside.open("wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                size = aside.stat().st_size
                if size > self.max_bytes:
                    return
                path.parent.mkdir(exist_ok=True)
                with self._total() as total:
                    if path.exists():  # another process was quicker
                        return
                    if total[0] + size > self.max_bytes:
                        total[0] = self._evict(self.max_bytes * _LOW_WATER - size)
                    total[0] += size
                    put_file(aside, path)
        except OSError as error:
            if not self._failed:
                logger.warning("%s: frames are not cached (%s)", self.folder, error)
            self._failed = True

    @property
    def size(self) -> int:
        """Bytes of all entries, as they lie on the disk now."""
        return sum(size for _, size, _ in self._entries())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

    @contextlib.contextmanager
    def _total(self) -> Iterator[list[int]]:
        """The recorded size of all entries, to be changed inside: one process and thread at a time."""
        with self._lock, (self.folder / "total").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read().strip()
            total = [int(text) if text.isdecimal() else self.size]
            try:
                yield total
            finally:
                file.truncate(0)
                file.write(str(total[0]))
                file.flush()

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("??/*.npz"):
            with contextlib.suppress(FileNotFoundError):  # evicted or damaged meanwhile
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path

    def _evict(self, target: float) -> int:
        """Removes the least recently used entries until at most `target` bytes are left; how many are left."""
        entries = sorted(self._entries())
        left = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if left <= target:
                break
            path.unlink(missing_ok=True)
            left -= size
        for path in self._writing.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
        return left


@lru_cache(maxsize=1 << 16)
def _content_hash(source: MediaFile, size: int, modified: int) -> str:
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))  # type: ignore[arg-type]
    return digest.hexdigest()
