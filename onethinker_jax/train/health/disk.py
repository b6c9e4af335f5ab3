"""The run's disk: it can be written and has the space before step 1, and one line says when it is full later."""

import errno
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from onethinker_jax.errors import UserError
from onethinker_jax.files import temporary
from onethinker_jax.train.health.host_resources import GIB, free_disk
from onethinker_jax.train.run_folder import RunFolder

_OF_THE_DISK = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "it may not be written",
    errno.EIO: "the disk does not answer",
}
# how TensorStore, which writes the arrays of a checkpoint, says the same
_TOLD = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system|Input/output error")
ROLLOUTS = "saved rollouts"
"""Their name among what a run writes."""
_PROBE = b"\0" * 65_536


class DiskError(UserError, OSError):
    """The run's folder cannot be written, or what the run writes does not fit. The error is one line."""


def check_writable(folder: RunFolder) -> None:
    """Writes a file where the run's folder is or will be, and removes it; raises DiskError where that fails."""
    path = folder.path
    while not path.exists():
        path = path.parent
    try:
        with temporary(path / "probe") as probe:
            probe.write_bytes(_PROBE)
    except OSError as error:
        raise DiskError(f"{folder.path}: {_reason(error)}: nothing was begun") from error


def check_space(
    folder: RunFolder, *, checkpoints: float, count: int, largest: float, beside: Mapping[str, float]
) -> None:
    """Raises DiskError where what a run keeps at a time does not fit, naming the parts; all sizes are in bytes.

    `checkpoints` is what `count` of them have together, the one that is being written among them, `largest` what the
    largest of them has, and `beside` what else the run writes. What checkpoints and saved rollouts stand in the folder
    is counted as theirs.
    """
    rollouts = max(beside.get(ROLLOUTS, 0) - _size(folder.saved_rollouts), 0)
    others = {name: size for name, size in {**beside, ROLLOUTS: rollouts}.items() if size}
    needed = max(checkpoints - _size(folder.checkpoints), largest) + sum(others.values())
    free = free_disk(folder.path)
    if free < needed:
        parts = {f"{count} checkpoints at a time": checkpoints} | others if count else others
        said = ", ".join(f"{name} {size / GIB:,.3g}" for name, size in parts.items())
        raise DiskError(
            f"{folder.path}: {free / GIB:,.3g} GiB free, and the run needs {needed / GIB:,.3g} more: {said}"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def disk_errors(folder: RunFolder) -> Iterator[None]:
    """Within the block a disk that is full, read-only or gone raises DiskError, which names the newest checkpoint.

    What Orbax says of it in its own words, with a traceback a thread, is not shown.
    """
    absl = logging.getLogger("absl")
    absl.addFilter(_of_something_else)
    try:
        yield
    except (
        UserError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # the last two are TensorStore's and Orbax'
        reason = None if isinstance(error, DiskError) else _reason_of_the_disk(error, folder)
        if reason is None:
            raise
        numbers = [int(path.name) for path in _listed(folder.checkpoints) if path.name.isdecimal()]
        newest = f"checkpoint {max(numbers)} is whole" if numbers else "there is no checkpoint yet"
        raise DiskError(
            f"{folder.path}: {reason}; {newest}, and the same command goes on from there once it can be written"
        ) from error
    finally:
        absl.removeFilter(_of_something_else)


def _of_something_else(record: logging.LogRecord) -> bool:
    """Whether a record does not tell of the disk."""
    raised = record.exc_info[1] if record.exc_info else None
    return (raised is None or _reason_of_the_disk(raised) is None) and not _TOLD.search(record.getMessage())


def _below(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())


def _listed(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def _reason(error: OSError) -> str:
    return _OF_THE_DISK.get(error.errno or 0, error.strerror or str(error))


def _reason_of_the_disk(error: BaseException, folder: RunFolder | None = None) -> str | None:
    """What the disk has, if this error or one that it came from tells of it; nothing of a file outside `folder`."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            inside = folder is None or seen.filename is None or _below(Path(str(seen.filename)), folder.path)
            return _OF_THE_DISK[seen.errno] if inside else None
        if told := _TOLD.search(str(seen)):
            return told[0][0].lower() + told[0][1:]
        seen = seen.__cause__ or seen.__context__
    return None
