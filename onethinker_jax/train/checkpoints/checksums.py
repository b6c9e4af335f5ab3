"""The SHA-256 of every file of a checkpoint, written into it before it counts as whole.

A file that was cut, lost or changed on the disk is found before anything is made of it. The checksums are those of
what the file system gives back once the checkpoint is written, so they also speak for the way there.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from etils import epath

FILE = "checksums.json"
_THREADS = 8  # the digest of a large file leaves Python to the trainer
_PART = 1 << 22  # bytes read at a time


def write_checksums(checkpoint: epath.Path) -> None:
    """Writes the checksums of all files in the folders of a checkpoint."""
    names = sorted(_files(checkpoint))
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _digest(checkpoint / name), names)
        found = {
            name: {"bytes": size, "sha256": digest}
            for name, (size, digest) in zip(names, digests, strict=True)
        }
    (checkpoint / FILE).write_text(json.dumps(found, indent=1) + "\n")


def has_checksums(checkpoint: epath.Path) -> bool:
    """Whether a checkpoint can be verified: it was written with checksums."""
    return (checkpoint / FILE).exists()


def damage(checkpoint: epath.Path) -> str | None:
    """The first file of a checkpoint that is not as it was written, and how; None where all are, or nothing says."""
    if not has_checksums(checkpoint):
        return None
    try:
        wanted = json.loads((checkpoint / FILE).read_text())
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in sorted(wanted.items())}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{FILE} cannot be read"
    for name, (size, _) in expected.items():
        file = checkpoint / name
        if not file.exists():
            return f"{name} is gone"
        if (length := file.stat().length) != size:
            return f"{name} holds {length:,} of {size:,} bytes" if length < size else f"{name} has grown"
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _digest(checkpoint / name), expected)
        for name, found in zip(expected, digests, strict=True):
            if found != expected[name]:
                return f"{name} is not as it was written (SHA-256)"
    return None


def size_of(checkpoint: epath.Path) -> int:
    """Bytes of all files in the folders of a checkpoint."""
    return sum((checkpoint / name).stat().length for name in _files(checkpoint))


def _digest(file: epath.Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while part := stream.read(_PART):
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _files(folder: epath.Path, prefix: str = "") -> Iterator[str]:
    """Names of the files in the folders of `folder`; its own files are Orbax's, which writes them last."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif prefix:
            yield f"{prefix}{entry.name}"
