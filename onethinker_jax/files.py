"""Files and folders that are whole or absent: written beside their place under a name of their own, then renamed.

Whatever ends the process, a reader finds the old content or all of the new. Several processes may write the same
place: each writes beside it by itself, and the last rename stands. What a killed process left beside a place goes
with the next write there.

Nothing is forced onto the disk: when the machine loses its power, what was renamed in its last seconds may be lost.
All that is written here can be made again, or is in a checkpoint, which Orbax writes. A teacher's answers are paid
for: `annotate.candidates` appends them to its file and forces them itself.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onethinker_jax.text_output import encodable

ABANDONED_S = 24 * 3600
"""Nobody writes to a temporary of another machine that was not touched for this long."""


@contextlib.contextmanager
def temporary(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A name that nobody else has, beside `path` or in a `folder` of its file system; gone at the end.

    Whoever has written there puts it in its place with `put_file` or `put_folder`.
    """
    folder = folder or path.parent
    for left in folder.glob(f".{glob.escape(path.name)}.*.writing"):
        if _abandoned(left):
            _remove(left)
    name = f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.writing"
    aside = folder / name
    try:
        yield aside
    finally:
        _remove(aside)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; the file is put in the place of `path` at the end, and removed after an error."""
    with temporary(path) as aside:
        yield aside
        put_file(aside, path)


def write_whole(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, with escapes for what UTF-8 cannot hold."""
    with whole_file(path) as aside:
        aside.write_text(encodable(text), encoding="utf-8")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the place of `path` at the end, and is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    undo_broken_swap(path)
    with temporary(path) as aside:
        aside.mkdir()
        yield aside
        put_folder(aside, path)


def put_file(aside: Path, path: Path) -> None:
    """Renames a finished file into its place; an older one is gone."""
    os.replace(aside, path)


def put_folder(aside: Path, path: Path) -> None:
    """Renames a finished folder into its place; an older one is gone, or back after an error."""
    with _alone(path.parent):
        _undo(path)
        old = _old(path)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(aside, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def rename_folder(folder: Any, name: str) -> Any:
    """Gives a folder another name in its place, where an older one of that name goes; the new path.

    `folder` is a path of `etils`, which may lie in a bucket.
    """
    place = folder.parent / name
    if place.exists():
        place.rmtree()
    folder.rename(place)
    return place


def undo_broken_swap(path: Path) -> None:
    """Puts the old folder back where a process was killed between the two renames of `put_folder`."""
    with _alone(path.parent):
        _undo(path)


def _undo(path: Path) -> None:
    old = _old(path)
    if old.exists() and not path.exists():
        os.rename(old, path)
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process and thread at a time inside, where the file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _abandoned(left: Path) -> bool:
    """Whether the process that wrote there is gone: it ran on this machine, or has long done nothing."""
    host, process, _ = left.name.removesuffix(".writing").rsplit(".", 2)
    if host.endswith(f".{socket.gethostname()}") and process.isdecimal():
        return not _runs(int(process))
    with contextlib.suppress(FileNotFoundError):
        newest = max(file.stat().st_mtime for file in (left, *left.rglob("*")))
        return time.time() - newest > ABANDONED_S
    return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
