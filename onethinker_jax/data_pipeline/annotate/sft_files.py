"""SFT files in OneThinker's layout, and one with the rows of all.

`sft_image.json`, `sft_video.json` and, of records without media, `sft_text.json` hold the set, `…_unsampled.json` the
same before caps, `sft.json` all rows. Rows are written one by one; a file appears, whole, when all are written.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from onethinker_jax.data_pipeline.annotate.filters import KEPT, Judged
from onethinker_jax.data_pipeline.annotate.teacher_prompt import asked_turns
from onethinker_jax.data_pipeline.media.frame_folder import row_rate
from onethinker_jax.data_pipeline.records.json_rows import JsonRows
from onethinker_jax.files import put_file, temporary
from onethinker_jax.rewards.answers import extract_answer, extract_thinking
from onethinker_jax.text_output import json_text

MODALITIES = ("image", "video", "text")


def sft_row(judged: Judged, folder: Path, teacher: str) -> dict[str, Any]:
    """A record with its best candidate as the assistant's turn; media paths relative to `folder`.

    `answer` stays the true one; `annotation` says whose the answer is, how accurate, and how many of the record's
    candidates were good: a measure of how hard it is.
    """
    record, best = judged.record, judged.best
    assert best is not None
    text = best.candidate.text
    turn = f"<think>{extract_thinking(text)}</think>\n<answer>{extract_answer(text)}</answer>"
    media = {"images": record.images, "videos": record.videos}
    return {
        "problem_id": record.problem_id,
        "problem": record.problem,
        "data_type": record.data_type,
        "problem_type": record.problem_type,
        "options": list(record.options),
        "data_source": record.data_source,
        "answer": record.answer,
        "messages": [*asked_turns(record), {"role": "assistant", "content": turn}],
        **{
            name: [os.path.relpath(str(path), folder) for path in paths]
            for name, paths in media.items()
            if paths
        },
        **row_rate(record.videos),
        "annotation": {
            "teacher": teacher,
            "candidate": best.candidate.candidate,
            "accuracy": round(best.accuracy or 0.0, 4),
            "good": sum(verdict.reason == KEPT for verdict in judged.verdicts),
            "candidates": len(judged.verdicts),
        },
    }


class SftFiles:
    """Takes the rows of the full set, then chooses those of the balanced one. Use as a context manager."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._full = {
            modality: _JsonList(folder / f"sft_{modality}_unsampled.json") for modality in MODALITIES
        }

    def __enter__(self) -> "SftFiles":
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._full.values():
            file.abandon()

    def add(self, row: dict[str, Any]) -> None:
        """A row of the full set."""
        self._full[row["data_type"] if row["data_type"] in self._full else "video"].add(row)

    def finish(self, chosen: Callable[[dict[str, Any]], bool]) -> None:
        """Puts the full sets in place and writes the rows that are chosen.

        Files of an earlier run that would now hold nothing are removed.
        """
        all_rows = _JsonList(self.folder / "sft.json")
        for modality, full in self._full.items():
            full.finish()
            balanced = _JsonList(self.folder / f"sft_{modality}.json")
            rows: Iterable[tuple[int, Any]] = JsonRows(full.path) if full.count else ()
            for _, row in rows:
                if chosen(row):
                    balanced.add(row)
                    all_rows.add(row)
            balanced.finish()
        all_rows.finish()


class _JsonList:
    """A JSON list, a row a line, written beside its place until it is whole."""

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        self._open = ExitStack()
        self._part = path
        self._file: TextIO | None = None

    def add(self, row: dict[str, Any]) -> None:
        if self._file is None:
            self._part = self._open.enter_context(temporary(self.path))
            self._file = self._open.enter_context(self._part.open("w", encoding="utf-8"))
        self._file.write(("[\n" if self.count == 0 else ",\n") + json_text(row))
        self.count += 1

    def finish(self) -> None:
        if self._file is None:
            self.path.unlink(missing_ok=True)
            return
        self._file.write("\n]\n")
        self._file.close()
        put_file(self._part, self.path)
        self.abandon()

    def abandon(self) -> None:
        self._open.close()
        self._file = None
