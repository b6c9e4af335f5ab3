"""What the pipeline asks of a media file: a path gives it, a file kept in an ArrayRecord corpus, and one in memory."""

import io
import os
import stat
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol

from onethinker_jax.errors import SkippableError


class MediaError(SkippableError, ValueError):
    """A media file is missing, empty, truncated or not what it should be. One line, naming the file."""


class DecoderError(RuntimeError):
    """A file met an error of a library, or of ours, that no decoder should make; holds its traceback."""


class MediaFile(Protocol):
    """A file to be read: a `Path`, or something that behaves like one. Its text names it in errors."""

    @property
    def name(self) -> str:
        """Its last part, such as `sign.jpg`."""
        ...

    def is_file(self) -> bool:
        """Whether it is there."""
        ...

    def stat(self) -> os.stat_result:
        """Size and time, which change when the content does."""
        ...

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """Opens it; the caller closes it. Raises OSError."""
        ...


class MediaFolder(Protocol):
    """Where the media paths of a record begin: `folder / "images/sign.jpg"` is a `MediaFile`."""

    def __truediv__(self, entry: Any, /) -> MediaFile: ...


@dataclass(frozen=True)
class MemoryFile:
    """A file that is on no disk; as text, its name."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    def is_file(self) -> bool:
        """Always."""
        return True

    def stat(self) -> os.stat_result:
        """Its size alone: the content never changes."""
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, len(self.content), 0, 0, 0))

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The content."""
        return io.BytesIO(self.content)
