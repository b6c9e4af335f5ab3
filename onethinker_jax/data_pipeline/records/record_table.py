"""What is known of records without reading them: their tasks, sources and purposes, a few bytes a record."""

import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from onethinker_jax.data_pipeline.records.record import Purpose, Record, purpose_error, task_of
from onethinker_jax.files import whole_file

PURPOSES: tuple[Purpose, ...] = ("sft", "rl", "heldout")


@dataclass(frozen=True)
class RecordTable:
    """Tasks and sources of N records, and a checksum that tells them from other records."""

    task_names: tuple[str, ...]
    tasks: np.ndarray  # uint32 [N], index into task_names
    source_names: tuple[str, ...]
    sources: np.ndarray  # uint32 [N], index into source_names
    checksum: int  # of problem ids and questions, in order
    purposes: np.ndarray | None = (
        None  # uint8 [N], a bit for each of PURPOSES; None of a file of older versions
    )

    def __len__(self) -> int:
        return len(self.tasks)

    def save(self, path: Path) -> None:
        """Writes it as one file of numpy's `npz` format."""
        with whole_file(path) as aside, aside.open("wb") as file:
            arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "RecordTable":
        """What `save` wrote. Raises OSError, or ValueError where it is no such file."""
        with np.load(path, allow_pickle=False) as file:
            task_names, source_names = (tuple(file[name].tolist()) for name in ("task_names", "source_names"))
            purposes = file["purposes"] if "purposes" in file.files else None
            return cls(
                task_names, file["tasks"], source_names, file["sources"], int(file["checksum"]), purposes
            )

    def first_unfit(self, purpose: Purpose | None) -> int | None:
        """The first record that does not serve a purpose; None if all do, or nothing is known of them."""
        if purpose is None or self.purposes is None:
            return None
        unfit = np.flatnonzero(self.purposes & (1 << PURPOSES.index(purpose)) == 0)
        return int(unfit[0]) if len(unfit) else None


class TableMaker:
    """Takes records one at a time and keeps only what the table needs."""

    def __init__(self) -> None:
        self._names: tuple[dict[str, int], dict[str, int]] = {}, {}
        self._codes = array("I"), array("I")
        self._purposes = array("B")
        self._checksum = 0

    def add(self, record: Record) -> None:
        """The next record."""
        tasks, sources = self._names
        self._codes[0].append(tasks.setdefault(str(task_of(record)), len(tasks)))
        self._codes[1].append(sources.setdefault(record.data_source, len(sources)))
        serves = [purpose_error(record, purpose) is None for purpose in PURPOSES]
        self._purposes.append(sum(bit << index for index, bit in enumerate(serves)))
        identity = f"{record.problem_id}\0{record.problem}\0"
        self._checksum = zlib.crc32(identity.encode("utf-8", "surrogatepass"), self._checksum)

    def table(self) -> RecordTable:
        """The table of all records that were added."""
        tasks, sources = (np.array(codes, np.uint32) for codes in self._codes)
        purposes = np.array(self._purposes, np.uint8)
        return RecordTable(
            tuple(self._names[0]), tasks, tuple(self._names[1]), sources, self._checksum, purposes
        )


class IndexedRecords(Sequence[Record]):
    """Records that are read when they are asked for; `table` is known without reading any."""

    table: RecordTable

    def __len__(self) -> int:
        return len(self.table)


def table_of(records: Sequence[Record] | Iterable[Record]) -> RecordTable:
    """The table of any records."""
    if isinstance(records, IndexedRecords):
        return records.table
    maker = TableMaker()
    for record in records:
        maker.add(record)
    return maker.table()
