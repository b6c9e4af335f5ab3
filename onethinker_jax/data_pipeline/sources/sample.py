"""What a source gives: records, with what a benchmark's metrics need of a row beyond its record."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import Record


class SourceError(RecordError):
    """A file of a data set is missing or malformed. One line naming the file, the row and the column."""

    def __init__(self, message: str, *, kind: str = "malformed"):
        super().__init__(message)
        self.kind = kind
        """The error without what is this row's alone: what rows that are left out are counted under."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One question of a data set. Its record's `problem_id` is unique within the data set."""

    record: Record
    groups: Mapping[str, str] = field(default_factory=dict)
    """What results are also given by, such as {"split": "validation", "category": "counting"}."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the metrics of this data set need beyond the record; the layout's module says which keys there are."""


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as the user has it, and how it is to be read."""

    path: Path
    """A file, or the data set's folder."""
    split: str = ""
    """The part to be read; "": all of it, or the only one."""
    media_root: Path | None = None
    """The folder that media paths are relative to; by default what the layout's publisher uses, beside `path`."""
    check_media: bool = True
    """False where answers are only scored: media files need not be there."""
    bad: BadRecords = field(default_factory=BadRecords)
    """What becomes of a malformed row, and where it is counted; by default it is raised."""

    @property
    def folder(self) -> Path:
        """`path`, or the folder that the file is in."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def split_folder(self) -> Path:
        """The folder of the split, where `path` has one; else `path`."""
        part = self.path / self.split
        return part if self.split and part.is_dir() else self.path


Layout = Callable[[Source], Iterator[Sample]]
"""Reads a data set of one public layout: its samples, in the order of the file or folder.

Raises SourceError (while iterating): a file or column is missing, no sample is found; or a row is malformed and
`Source.bad` raises it.
"""
