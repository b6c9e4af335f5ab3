"""Records and their media from the ArrayRecord files that `tfds_builder` writes, read at random positions.

A corpus is a folder of two TensorFlow Datasets and a table:

    records.npz                       task and source of every record: nothing need be read to begin
    corpus_records/1.0.0/…            each row's JSON as it was, and the numbers of its media
    corpus_media/1.0.0/…              every file that records name, once, in its own encoding

Records that come from here differ from those of the JSON file in nothing but where their media lie. TensorFlow is
not needed.
"""

import functools
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, overload

from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.records.bad_records import OnBadRecord
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import Purpose, Record, parse_record
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from onethinker_jax.data_pipeline.records.record_table import IndexedRecords, RecordTable
from onethinker_jax.errors import MissingLibrary

TABLE, RECORDS, MEDIA, VERSION, SPLIT = "records.npz", "corpus_records", "corpus_media", "1.0.0", "train"


def open_records(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    purpose: Purpose | None = None,
    on_bad_record: OnBadRecord = "raise",
    quarantine: str | Path | None = None,
) -> IndexedRecords:
    """The records of a JSON file, or of a folder that `tfds_builder` made, read when they are asked for.

    The other arguments are those of `RecordFile`; a folder holds only records that were checked.

    Raises RecordError: as `RecordFile` and `RecordArchive`.
    """
    if Path(path).is_dir():
        return RecordArchive(path, purpose=purpose)
    return RecordFile(
        path, media_root=media_root, purpose=purpose, on_bad_record=on_bad_record, quarantine=quarantine
    )


class RecordArchive(IndexedRecords):
    """The records of an ArrayRecord corpus. Thread-safe."""

    def __init__(self, folder: str | Path, *, purpose: Purpose | None = None):
        """Opens the folder; a record is read when it is asked for.

        Args:
            folder: what `tfds_builder` made.
            purpose: what the records are for, see `read_records`.

        Raises RecordError: it is no such folder, or its parts do not belong together; or a record does not serve
        the purpose.
        Raises ImportError: tensorflow_datasets is not installed.
        """
        self.folder = Path(folder)
        self._purpose: Purpose | None = purpose
        try:
            self.table = RecordTable.load(self.folder / TABLE)
        except (OSError, ValueError, KeyError) as error:
            raise RecordError(f"{self.folder}: is not a corpus made by tfds_builder ({error})") from None
        found = len(_source(self.folder / RECORDS / VERSION))
        if found != len(self.table):
            raise RecordError(f"{self.folder}: holds {found} records, its table {len(self.table)}")
        if (unfit := self.table.first_unfit(purpose)) is not None:
            self[unfit]  # whose reading says what it lacks

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """A record by its position in the corpus.

        Raises RecordError: the files cannot be read any more.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder}: record {index} of {len(self)}")
        index %= len(self)
        example = _read(self.folder, RECORDS, index)
        row = json.loads(example["row"])
        entries = dict(zip(media_entries(row), map(int, example["media"]), strict=True))
        root = _StoredFolder(self.folder, entries)
        return parse_record(row, root, file=self.folder, number=index + 1, purpose=self._purpose)


@dataclass(frozen=True)
class StoredMedia:
    """A media file in the corpus; as text, the corpus' folder and the path that the record gives."""

    folder: Path
    number: int
    entry: str

    def __str__(self) -> str:
        return f"{self.folder / self.entry}"

    @property
    def name(self) -> str:
        """The last part of the record's path."""
        return Path(self.entry).name

    def is_file(self) -> bool:
        """Always: the corpus was made of files that were there."""
        return True

    def stat(self) -> os.stat_result:
        """That of the corpus' table, which is written with every corpus anew."""
        return (self.folder / TABLE).stat()

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The file's bytes, in memory. Raises OSError when the corpus cannot be read any more."""
        try:
            return io.BytesIO(_read(self.folder, MEDIA, self.number)["data"])
        except RecordError as error:
            raise OSError(str(error)) from None


@dataclass(frozen=True)
class _StoredFolder:
    """Where the paths of one record lead."""

    folder: Path
    numbers: Mapping[str, int]

    def __truediv__(self, entry: str, /) -> MediaFile:
        return StoredMedia(self.folder, self.numbers[entry], entry)


def media_entries(row: Mapping[str, Any]) -> list[str]:
    """The media paths that a good row names, each once."""
    fields = (row.get(name) or () for name in ("images", "videos", "path", "additional_path"))
    return list({entry: None for field in fields for entry in ([field] if isinstance(field, str) else field)})


def _read(folder: Path, part: str, index: int) -> dict[str, Any]:
    """One example, decoded: texts as bytes, numbers as arrays."""
    try:
        return _source(folder / part / VERSION)[index]
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        raise RecordError(f"{folder / part}: example {index} cannot be read ({error})") from None


@functools.lru_cache(maxsize=16)
def _source(folder: Path) -> Any:
    """The open files of a dataset, once a process."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingLibrary(f"{folder}: to read it, pip install 'onethinker_jax[tfds]' ({error})") from error
    try:
        builder = tfds.builder_from_directory(folder)
        return builder.as_data_source(split=SPLIT)  # type: ignore[call-arg]
    except (OSError, ValueError, AssertionError) as error:
        raise RecordError(f"{folder}: cannot be opened ({error})") from None
