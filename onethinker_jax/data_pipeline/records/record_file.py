"""Records of a JSON file by number: all are checked once, then each is read again when it is asked for.

What stays in memory of a large file is where each record lies, 32 bytes a record: 600,000 records take 20 MB
where their objects took gigabytes.
"""

import json
from array import array
from pathlib import Path
from typing import overload

from onethinker_jax.data_pipeline.records.bad_records import OnBadRecord
from onethinker_jax.data_pipeline.records.json_rows import JsonRows, RecordError
from onethinker_jax.data_pipeline.records.record import Purpose, Record, checked_records, parse_record
from onethinker_jax.data_pipeline.records.record_table import IndexedRecords, TableMaker

# Files up to this size are kept as objects: reading a record again and again costs more than that memory.
KEPT_BYTES = 64 * 2**20


class RecordFile(IndexedRecords):
    """The good records of a JSON list or JSON lines file. Thread-safe."""

    def __init__(
        self,
        path: str | Path,
        *,
        media_root: str | Path | None = None,
        purpose: Purpose | None = None,
        on_bad_record: OnBadRecord = "raise",
        quarantine: str | Path | None = None,
        kept_bytes: int = KEPT_BYTES,
    ):
        """Reads and checks the whole file, as `read_records` does with the same arguments.

        A file of at most `kept_bytes` stays in memory.

        Raises RecordError: as `read_records`.
        """
        self.path = Path(path)
        self._purpose: Purpose | None = purpose
        self._root = self.path.parent if media_root is None else Path(media_root)
        rows = JsonRows(self.path)
        keep = self.path.is_file() and self.path.stat().st_size <= kept_bytes
        self._kept: list[Record] | None = [] if keep else None
        self._numbers, self._offsets, self._lengths = array("Q"), array("Q"), array("Q")
        maker = TableMaker()
        for record in checked_records(
            rows,
            media_root=self._root,
            purpose=purpose,
            on_bad_record=on_bad_record,
            quarantine=quarantine,
        ):
            number, offset, length = rows.position
            self._numbers.append(number)
            self._offsets.append(offset)
            self._lengths.append(length)
            maker.add(record)
            if self._kept is not None:
                self._kept.append(record)
        self.table = maker.table()

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """A record by its position among the good ones.

        Raises RecordError: the file or the record's media are no longer as they were.
        """
        if self._kept is not None:
            return self._kept[index]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number, text = self._numbers[index], self.text(index)
        try:
            row = json.loads(text)
        except ValueError as error:
            raise RecordError(
                f"{self.path}: record {number}: has changed since it was checked ({error})"
            ) from None
        return parse_record(row, self._root, file=self.path, number=number, purpose=self._purpose)

    def position(self, index: int) -> tuple[int, int]:
        """Where a record's JSON begins in the file and how long it is, in bytes."""
        return self._offsets[index], self._lengths[index]

    def text(self, index: int) -> str:
        """The JSON of a record. Raises RecordError when the file cannot be read any more."""
        return read_text(self.path, *self.position(index))


def read_text(path: Path, offset: int, length: int) -> str:
    """The text of one row. Raises RecordError when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None
