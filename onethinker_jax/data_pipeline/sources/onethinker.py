"""OneThinker's own JSON files, and those of a user in their layout: rows as docs/data.md has them.

Facts of a sample, where its row has them: `fps`, `frames` (the names of all frames of the video, in order) and
`resolution` ((width, height) in pixels) of a segmentation row.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows, RecordError
from onethinker_jax.data_pipeline.records.record import Record, parse_record, task_of
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError

_LETTER = re.compile(r"\s*(?:<answer>\s*)?([A-Za-z])\s*(?:$|</answer>|[.):])")
"""The letter of an option in a true answer, alone or before its text."""


def read(source: Source) -> Iterator[Sample]:
    """The rows of a JSON list or of JSON lines, in the groups `task` and, where rows name it, `source`.

    A file is one split as a rule: `split` leaves out only rows whose own field `split` names another one. A row
    without a `problem_id` has its number in the file as one.

    Raises RecordError (while iterating): as `read_records`, or two rows have one `problem_id` and `bad` raises it.
    """
    path = source.path
    root = path.parent if source.media_root is None else source.media_root
    bad, numbers = source.bad, dict[str, int]()
    for number, row in JsonRows(path):
        if source.split and isinstance(row, dict) and row.get("split", source.split) != source.split:
            continue
        if isinstance(row, dict) and row.get("problem_id") in (None, ""):
            row = {**row, "problem_id": number}
        row = _with_letter(row)
        try:
            record = parse_record(
                row, root, file=path, number=number, purpose="heldout", check_media=source.check_media
            )
            if (first := numbers.setdefault(str(record.problem_id), number)) != number:
                raise SourceError(f"{record.origin}: problem_id: is that of record {first} too")
        except RecordError as error:
            kept = row.text if isinstance(row, BrokenRow) else row
            bad.report(error, file=str(path), record=number, row=kept)
            continue
        if record.doubt:
            bad.doubt(record.doubt, record.origin)
        yield Sample(record, groups=_groups(record), facts=_facts(row))
    if not numbers:
        raise SourceError(
            f"{path}: holds no record" + (f" of split {source.split!r}" if source.split else "")
        )


def _with_letter(row: Any) -> Any:
    """The row; where the true choice is written as "b" or as "B. blue", as its letter: all that the script reads."""
    if not isinstance(row, dict) or row.get("problem_type") != "multiple choice":
        return row
    letters = {
        key: f"<answer>{found[1].upper()}</answer>"
        for key in ("solution", "answer")
        if isinstance(text := row.get(key), str)
        and (found := _LETTER.match(text))
        and text != found[1].upper()
    }
    return {**row, **letters}


def _groups(record: Record) -> dict[str, str]:
    source = {"source": record.data_source} if record.data_source else {}
    return {"task": str(task_of(record)), **source}


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What parsing the row has checked already, in plain types."""
    output = row.get("segmentation_output")
    if not isinstance(output, dict):
        return {}
    frames, resolution = output.get("frames", row.get("frames")), row.get("resolution")
    facts: dict[str, Any] = {} if row.get("fps") is None else {"fps": float(row["fps"])}
    if frames is not None:
        facts["frames"] = tuple(frames)
    if resolution is not None:
        facts["resolution"] = resolution["width"], resolution["height"]
    return facts
