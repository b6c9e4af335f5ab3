"""What a source gives: records, with what a benchmark's metrics need of a row beyond its record."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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


class Layout(Protocol):
    """Reads a data set of one public layout."""

    def __call__(
        self,
        path: Path,
        *,
        split: str = "",
        media_root: Path | None = None,
        check_media: bool = True,
        bad: BadRecords | None = None,
    ) -> Iterator[Sample]:
        """The samples of the file or folder `path`, in its order.

        Args:
            path: what the user has: a file, or the data set's folder.
            split: the part to be read; "": all of it, or the only one.
            media_root: the folder that media paths are relative to; by default what the layout's publisher uses,
                beside `path`.
            check_media: False where answers are only scored: media files need not be there.
            bad: what becomes of a malformed row, and where it is counted; default: it is raised.

        Raises SourceError (while iterating): a file or column is missing, no sample is found; or a row is malformed
        and `bad` raises it.
        """
        ...
