"""The server's frames by their SHA-256: what callers have uploaded, the longest unused going first.

`capacity` bytes are all that media ever take: what calls under way use or upload counts, and a call for
which there is no room is refused. Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable


class CacheFull(Exception):
    """Media of calls under way take the room; there will be some again once these end."""


class MediaCache:
    """Media by hash, within `capacity` bytes. Counts `hits`, `uploads` and `evictions`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.hits = self.uploads = self.evictions = 0
        self._media: OrderedDict[bytes, memoryview] = OrderedDict()  # last used last
        self._users: Counter[bytes] = Counter()
        self._uploading: dict[bytes, asyncio.Event] = {}

    def hold(self) -> MediaHold:
        """What one call is going to use, as a context manager."""
        return MediaHold(self)

    async def wait_for_upload(self, digests: Iterable[bytes]) -> None:
        """Returns once another call is through with uploading one of these."""
        ended = [asyncio.ensure_future(self._uploading[digest].wait()) for digest in digests]
        try:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in ended:
                wait.cancel()

    def _reserve(self, size: int) -> None:
        unused = [digest for digest in self._media if not self._users[digest]]
        while self.used + size > self.capacity and unused:
            self.used -= len(self._media.pop(unused.pop(0)))
            self.evictions += 1
        if self.used + size > self.capacity:
            raise CacheFull(f"no room for {size} bytes: {self.used} of {self.capacity} are in use")
        self.used += size


class MediaHold:
    """One call's media: `media` stays until the block ends, and so do its unfinished uploads."""

    def __init__(self, cache: MediaCache) -> None:
        self.media: dict[bytes, memoryview] = {}
        self._cache = cache
        self._uploads: dict[bytes, Upload] = {}

    def __enter__(self) -> MediaHold:
        return self

    def __exit__(self, *_: object) -> None:
        for digest, upload in self._uploads.items():
            self._cache.used -= upload.size
            self._cache._uploading.pop(digest).set()
        self._cache._users.subtract(self.media.keys())
        self._cache._users += Counter()  # drops those without users

    def take(self, digest: bytes) -> bool:
        """Whether the medium is there; if so, it is held."""
        if digest not in self.media and digest in self._cache._media:
            self._cache._media.move_to_end(digest)
            self._cache.hits += 1
            self._keep(digest)
        return digest in self.media

    def begin(self, digest: bytes, size: int) -> Upload | None:
        """Room for an upload, or None while another call uploads the same; raises CacheFull."""
        if digest in self._cache._uploading:
            return None
        self._cache._reserve(size)
        self._cache._uploading[digest] = asyncio.Event()
        self._uploads[digest] = Upload(digest, size)
        return self._uploads[digest]

    def finish(self, upload: Upload) -> None:
        """Takes a complete upload into the cache; raises ValueError when the bytes are not those of its hash."""
        data = upload.checked()
        del self._uploads[upload.digest]
        self._cache._media[upload.digest] = data
        self._cache.uploads += 1
        self._keep(upload.digest)
        self._cache._uploading.pop(upload.digest).set()

    def _keep(self, digest: bytes) -> None:
        self.media[digest] = self._cache._media[digest]
        self._cache._users[digest] += 1


class Upload:
    """A medium of `size` bytes on its way."""

    def __init__(self, digest: bytes, size: int) -> None:
        self.digest, self.size = digest, size
        self._data = bytearray(size)
        self._received = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> bool:
        """Whether that was the end; raises ValueError beyond the size."""
        end = self._received + len(data)
        if end > self.size:
            raise ValueError(f"medium {self.digest.hex()}: {end} bytes and more, its frames take {self.size}")
        self._data[self._received : end] = data
        self._hash.update(data)
        self._received = end
        return end == self.size

    def checked(self) -> memoryview:
        """The bytes, read-only."""
        if self._hash.digest() != self.digest:
            raise ValueError(f"medium {self.digest.hex()}: the bytes have the hash {self._hash.hexdigest()}")
        return memoryview(self._data).toreadonly()
