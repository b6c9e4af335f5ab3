"""Where a video is that annotations name: with or without its ending, in a folder or one folder further down."""

import glob
from pathlib import Path

from onethinker_jax.data_pipeline.sources.reading.rows import Row

_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4")


def video(row: Row, column: str, *roots: Path, name: str = "", nested: bool = True) -> Path:
    """The video that a column names, in one of the folders `roots` or, if `nested`, in a folder of them.

    `name` is the video's where the column holds more than that. Raises SourceError: there is none.
    """
    name = name or row.text(column)
    names = [name] if name.endswith(_ENDINGS) else [name + ending for ending in _ENDINGS]
    candidates = [root / one for root in roots for one in names]
    if nested and not any(file.is_file() for file in candidates):
        patterns = [(root, f"*/{glob.escape(one)}") for root in roots for one in names]
        candidates += [file for root, pattern in patterns for file in sorted(root.glob(pattern))]
    return row.media(column, *candidates)
