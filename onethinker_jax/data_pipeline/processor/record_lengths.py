"""Whether every record fits a run's settings, known before the run: tokens and patches without decoding a pixel.

A `Limit` is a setting that bounds a record's tokens or patches. `measure` finds the lengths of a corpus with threads,
in the memory of two numbers a record, and keeps them in a file, so that the same corpus is measured once. `misfits`
holds lengths against limits, and `advice` says which values would do for all.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, overload

import numpy as np

from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.processor.processor import Lengths, Processor
from onethinker_jax.data_pipeline.records.in_order import in_order
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.data_pipeline.records.record_table import IndexedRecords, RecordTable, table_of
from onethinker_jax.files import whole_file

logger = logging.getLogger(__name__)

# Values that are proposed are multiples of this: patches come in merge blocks of 4, and round numbers read better.
STEP = 16
# Lengths are written to their file after this many records.
_WRITTEN_TOGETHER = 5000
_WAITING_A_THREAD = 8
UNKNOWN = -1
"""Length of a record that was not measured."""

CheckLengths = Literal["all", "sample", "none"]
SAMPLED_RECORDS = 1000
"""How many records of a corpus are measured with "sample"."""


@dataclass(frozen=True)
class Limit:
    """A setting that no record may exceed. `beside` tokens must fit beside the record's, such as an answer's."""

    flag: str  # "--sft.batch.tokens"
    of: Literal["tokens", "patches"]
    most: int
    beside: int = 0

    def needed(self, lengths: np.ndarray) -> np.ndarray:
        """The value, int [N], that each of the lengths, int32 [N, 2] of tokens and patches, would need."""
        return lengths[:, 0 if self.of == "tokens" else 1] + self.beside

    def value(self, lengths: np.ndarray) -> int:
        """A value of the setting that would do for all of these lengths."""
        return -(-int(self.needed(lengths).max(initial=1)) // STEP) * STEP


@dataclass(frozen=True)
class Misfit:
    """A record that exceeds a limit."""

    number: int  # among the records
    limit: Limit
    needed: int

    def __str__(self) -> str:
        what = f"{self.needed - self.limit.beside} {self.limit.of}"
        if self.limit.beside:
            what += f" and {self.limit.beside} beside them"
        return f"{what}, more than {self.limit.flag} {self.limit.most}"


def misfits(lengths: np.ndarray, limits: Sequence[Limit]) -> list[Misfit]:
    """The first limit that each too large record exceeds, in the order of the records."""
    found: dict[int, Misfit] = {}
    for limit in limits:
        needed = limit.needed(lengths)
        for number in np.flatnonzero(needed > limit.most).tolist():
            found.setdefault(number, Misfit(number, limit, int(needed[number])))
    return [found[number] for number in sorted(found)]


def advice(lengths: np.ndarray, limits: Sequence[Limit]) -> str:
    """The flags, ready to be pasted, with which all of these lengths fit: one for each limit that is exceeded."""
    exceeded = [limit for limit in limits if (limit.needed(lengths) > limit.most).any()]
    return " ".join(f"{limit.flag} {limit.value(lengths)}" for limit in exceeded)


@dataclass(frozen=True)
class Measured:
    """Lengths of records, int32 [N, 2] of tokens and patches, `UNKNOWN` where a record was not measured.

    `errors` says by number which records could not be, and why.
    """

    lengths: np.ndarray
    errors: dict[int, str]


def chosen_records(count: int, check: CheckLengths, *, host: int = 0, hosts: int = 1) -> range | list[int]:
    """The numbers of the records that a process measures, out of `count`; a sample's lie evenly."""
    if check == "none":
        return []
    if check == "all" or count <= SAMPLED_RECORDS:
        return range(host, count, hosts)
    return np.linspace(0, count - 1, SAMPLED_RECORDS).astype(int).tolist()[host::hosts]


def measure(
    records: Sequence[Record],
    numbers: Sequence[int],
    processor: Processor,
    *,
    training: bool,
    file: Path | None = None,
    threads: int = 1,
    tell: Callable[[int], None] | None = None,
    stop_at_error: bool = False,
) -> Measured:
    """The lengths of the records of these numbers; what `file` holds of them is taken from there, the rest added.

    Args:
        records: of the file, all of them.
        numbers: which of these to measure.
        processor: makes the tokens and patches that are counted.
        training: as `Processor.lengths`.
        file: of lengths, one that belongs to these records and this processor; see `lengths_key`.
        threads: records measured at once.
        tell: called with how many records are done.
        stop_at_error: leave the rest after the first record that cannot be measured.
    """
    positions = np.asarray(numbers, np.int64)
    lengths, errors = np.full((len(records), 2), UNKNOWN, np.int32), {}
    known = _read(file, len(positions))
    lengths[positions] = known
    missing = positions[known[:, 0] == UNKNOWN].tolist()
    before = len(positions) - len(missing)
    size = partial(_lengths, records, processor, training)
    with ThreadPoolExecutor(threads, thread_name_prefix="lengths") as pool:
        for done, (number, found) in enumerate(in_order(pool, size, missing, _WAITING_A_THREAD * threads), 1):
            if isinstance(found, Lengths):
                lengths[number] = found.tokens, found.patches
            else:
                errors[number] = found
            if done % _WRITTEN_TOGETHER == 0:
                _write(file, lengths[positions])
            if tell is not None:
                tell(before + done)
            if errors and stop_at_error:
                break
    if missing:
        _write(file, lengths[positions])
    return Measured(lengths, errors)


def lengths_key(path: Path, processor: Processor, *, training: bool, numbers: Sequence[int]) -> str:
    """A name for the lengths of a corpus: of its file as it is now, the processor's settings, and which records.

    Media that are replaced by others of the same name are not noticed.
    """
    stat = path.stat()
    parts = [
        str(path.absolute()),
        stat.st_size,
        stat.st_mtime_ns,
        processor.fingerprint,
        training,
        len(numbers),
    ]
    parts += [numbers[0], numbers[-1]] if numbers else []
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


class KeptRecords(IndexedRecords):
    """Records without some of them."""

    def __init__(self, records: Sequence[Record], left_out: Sequence[int]):
        """`left_out`: numbers of the records that are not there; at least one."""
        whole = table_of(records)
        kept = np.ones(len(records), bool)
        kept[np.asarray(left_out, np.int64)] = False
        self._records, self._numbers = records, np.flatnonzero(kept)
        checksum = zlib.crc32(np.packbits(kept).tobytes(), whole.checksum)
        self.table = RecordTable(
            whole.task_names, whole.tasks[kept], whole.source_names, whole.sources[kept], checksum
        )

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """A record by its position among those that are there; raises what the records do."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._records[int(self._numbers[index])]


def _lengths(records: Sequence[Record], processor: Processor, training: bool, number: int) -> Lengths | str:
    """The lengths of a record, or what is wrong with it."""
    record = None
    try:
        record = records[number]
        return processor.lengths(record, training=training)
    except (MediaError, RecordError) as error:
        return _named(record, str(error))


def _named(record: Record | None, error: str) -> str:
    """The error, opened by the name of its record and file."""
    if record is None or error.startswith(f"{record}:"):
        return error
    return f"{record}: {error}"


def _read(file: Path | None, count: int) -> np.ndarray:
    """int32 [count, 2]: what was written, unknown where that is not this many."""
    unknown = np.full((count, 2), UNKNOWN, np.int32)
    if file is None or not file.is_file():
        return unknown
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s: cannot be read, the records are measured again (%s)", file, error)
        return unknown
    return found if found.shape == unknown.shape else unknown


def _write(file: Path | None, lengths: np.ndarray) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as aside, aside.open("wb") as target:
        np.save(target, lengths)
