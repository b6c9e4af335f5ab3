"""Records as rows of OneThinker's JSON layout: what `read_records` makes the same records of.

Media that are files stay where they are. Pictures that a data set holds in its own files (base64, Parquet) are
written beside the training file, each once, named by its content.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder, row_rate
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.records.conversation import media_kinds
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.files import whole_file

_PICTURES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}


class RecordRows:
    """Makes rows whose media paths are relative to the training file's folder, or absolute."""

    def __init__(self, out: Path, *, absolute: bool = False):
        """Of the training file `out`: pictures go to the folder `OUT_media` beside it. `absolute`: from the root."""
        self._folder, self._absolute = out.parent, absolute
        self._media = out.with_name(f"{out.stem}_media")

    def row(self, record: Record, answer: str = "") -> dict[str, Any]:
        """The row of a record; `answer` where the record itself has none. Raises OSError: a file cannot be written."""
        problem = record.problem
        if not media_kinds(problem):  # rows of evaluation files leave the media out
            problem = "<video>" * len(record.videos) + "<image>" * len(record.images) + problem
        media = {"images": record.images, "videos": record.videos}
        return {
            "problem_id": record.problem_id,
            "problem": problem,
            "data_type": record.data_type,
            "problem_type": record.problem_type,
            "options": list(record.options),
            "data_source": record.data_source,
            "answer": record.answer or answer,
            **{name: [self._path(file) for file in files] for name, files in media.items() if files},
            **row_rate(record.videos),
            **({} if record.segmentation is None else _masks(record.segmentation)),
        }

    def _path(self, file: MediaFile) -> str:
        if isinstance(file, FrameFolder):
            file = file.folder
        elif not isinstance(file, Path):
            file = self._written(file)
        return str(file.absolute()) if self._absolute else os.path.relpath(file, self._folder)

    def _written(self, file: MediaFile) -> Path:
        with file.open("rb") as opened:
            content = opened.read()
        ending = next(
            (end for head, end in _PICTURES.items() if content.startswith(head)), Path(file.name).suffix
        )
        path = self._media / f"{hashlib.sha256(content).hexdigest()[:24]}{ending}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as aside:
                aside.write_bytes(content)
        return path


def _masks(masks: TrueMasks) -> Mapping[str, Any]:
    """The fields of a row's masks; frames that are not all named are named by their number."""
    height, width = masks.size
    resolution = {"width": width, "height": height}
    if masks.fps is None:
        return {"resolution": resolution, "segmentation_output": {"segmentation_rle": masks.rles[0]}}
    names = masks.frame_names()
    if sorted(names) != list(range(len(names))):
        names = {number: f"{number:05}" for number in range(max(names) + 1)}
    rles = {names[number]: rle for number, rle in zip(masks.frames, masks.rles, strict=True)}
    return {
        "fps": masks.fps,
        "resolution": resolution,
        "segmentation_output": {"segmentation_rle": rles, "frames": [names[n] for n in range(len(names))]},
    }
