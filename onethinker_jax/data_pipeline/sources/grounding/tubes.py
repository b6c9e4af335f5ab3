"""When and where something is in a video: HC-STVG (version 1 and 2) and VidSTG.

The answer has the box of every whole second within the time; where there is none, of the second nearest to its
middle. Facts of a sample: `fps` and `frame_count` of the video, `first_frame` (from 0) and `boxes`, one
(x1, y1, x2, y2) in pixels a frame from that frame on (None where it has none), and `resolution` (width, height).
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from onethinker_jax.answer_forms import finite_number
from onethinker_jax.data_pipeline.sources.reading.pixels import Box, corners, resolution, thousandths
from onethinker_jax.data_pipeline.sources.reading.rows import Row, json_objects, plain, samples_of
from onethinker_jax.data_pipeline.sources.reading.video_names import video
from onethinker_jax.data_pipeline.sources.reading.whole_files import json_value
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError
from onethinker_jax.text_output import json_text

CLIP_SECONDS = 20.0
"""How long every clip of HC-STVG is: its frame rate is its number of frames divided by this."""
_SLOWEST, _FASTEST = 0.1, 1000.0  # frames a second of what is a video
VIDOR = "vidor"
"""The folder beside VidSTG's annotations with those of VidOR, which have the boxes: `GROUP/VIDEO.json`."""


def read_hc_stvg(source: Source) -> Iterator[Sample]:
    """An object by video; a file is one split.

    `{video: {"bbox": [[x, y, w, h], …], "st_time", "ed_time", "st_frame" (from 1), "img_num", "width", "height",
    "caption" or "English"}}`. Videos are beside the file, or in `media_root`, or in folders there.
    """
    path = source.path
    root = source.media_root or path.parent

    def rows() -> Iterator[Row]:
        for number, (name, value) in enumerate(json_value(path, dict).items(), start=1):
            if not isinstance(value, dict):
                raise SourceError(f"{path}: {name}: must be an object, is {type(value).__name__}")
            caption = value.get("caption") or value.get("English")
            yield Row(path, number, {**value, "video": name, "caption": caption}, "video", source.check_media)

    def make(row: Row) -> Sample:
        frames, first = row.whole("img_num"), row.whole("st_frame") - 1
        if frames < 1 or first < 0:
            raise row.error("img_num and st_frame", "must be from 1 on")
        boxes = [corners(box) for box in row.listed("bbox")]
        if None in boxes:
            raise row.error(
                "bbox", "must be boxes [x, y, width, height]", f", number {boxes.index(None)} is not"
            )
        tube = _Tube(resolution(row), frames / CLIP_SECONDS, frames, first, boxes)
        span = [_second(row, "st_time"), _second(row, "ed_time")]
        asked = f"When and where in the video is this: {plain(row.text('caption'))}"
        record = {"problem_id": Path(row.text("video")).stem, "problem": asked, "data_source": "HC-STVG"}
        return tube.sample(row, record, span, "bbox", video(row, "video", root))

    yield from samples_of(rows(), make, path, source.bad)


def read_vidstg(source: Source) -> Iterator[Sample]:
    """Rows of `…_annotations.json`, a sample a caption and a question of each; groups: `sentence`.

    The boxes are VidOR's, in the folder `vidor` beside the file. A row is about a part of its video: where that
    is not the whole, the question says from when to when. Videos are in `media_root`, or in folders there.
    """
    path = source.path
    root = source.media_root or path.parent

    def rows() -> Iterator[Row | SourceError]:
        for whole in json_objects(path, "vid"):
            if isinstance(whole, SourceError):
                yield whole
                continue
            for kind in ("captions", "questions"):
                yield from _sentences(whole, kind, source.check_media)

    def make(row: Row) -> Sample:
        frames, fps = row.whole("frame_count"), _second(row, "fps")
        if frames < 1 or not _SLOWEST <= fps <= _FASTEST:
            raise row.error("frame_count and fps", "must be those of a video", f", are {frames} and {fps:g}")
        used, asked = (_frames(row, column) for column in ("used_segment", "temporal_gt"))
        boxes = _trajectory(row, asked, path.parent / VIDOR)
        tube = _Tube(resolution(row), fps, frames, asked[0], boxes)
        sentence, kind = plain(row.text("description")), row.text("kind").removesuffix("s")
        where = "" if used[0] == 0 and used[1] >= frames - 1 else _part(used, fps)
        question = (
            f"When and where in the video{where} is this: {sentence}"
            if kind == "caption"
            else f"When and where in the video{where} is the answer to this: {sentence}"
        )
        identity = f"{row.text('vid')}_{row.number}_{kind}_{row.cells['index']}"
        record = {"problem_id": identity, "problem": question, "data_source": "VidSTG"}
        span = [asked[0] / fps, asked[1] / fps]
        film = video(row, "vid", root)
        return tube.sample(row, record, span, "temporal_gt", film, groups={"sentence": kind})

    yield from samples_of(rows(), make, path, source.bad)


def _sentences(whole: Row, kind: str, check_media: bool) -> Iterator[Row | SourceError]:
    """A row of VidSTG's for each of its captions or questions."""
    try:
        entries = whole.listed(kind)
    except SourceError as error:
        yield error
        return
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield whole.error(f"{kind}[{index}]", "must be an object")
            continue
        cells = {**whole.cells, **entry, "kind": kind, "index": index}
        yield Row(whole.file, whole.number, cells, "vid", check_media)


class _Tube:
    """The boxes of an object in the frames of a video, from the `first` on."""

    def __init__(
        self, size: tuple[int, int], fps: float, frames: int, first: int, boxes: Sequence[Box | None]
    ):
        self.size, self.fps, self.frames, self.first, self.boxes = size, fps, frames, first, boxes

    def sample(
        self,
        row: Row,
        record: dict[str, Any],
        span: list[float],
        column: str,
        film: Path,
        groups: dict[str, str] | None = None,
    ) -> Sample:
        boxes = {str(second): box for second in self._seconds(span) if (box := self._at(second)) is not None}
        if not boxes:
            raise row.error(column, "has no box in the picture at a whole second of the time")
        record |= {
            "problem_type": "spatial-temporal grounding",
            "answer": json_text({"time": [round(second, 3) for second in span], "boxes": boxes}),
        }
        facts = {
            "fps": self.fps,
            "frame_count": self.frames,
            "first_frame": self.first,
            "boxes": tuple(self.boxes),
            "resolution": self.size,
        }
        sentence = "description" if "description" in row.cells else "caption"
        columns = {"answer.time": "time", "answer.boxes": column, "problem": sentence}
        return row.sample(record, videos=[film], columns=columns, groups=groups, facts=facts)

    def _seconds(self, span: Sequence[float]) -> Iterator[int]:
        """The whole seconds of the time, a second around the tube's at most; the nearest to its middle if none."""
        if not self.boxes:
            return
        first, last = self.first / self.fps - 1, (self.first + len(self.boxes)) / self.fps + 1
        low, high = math.ceil(max(span[0], first)), math.floor(min(span[1], last))
        yield from range(low, high + 1) if low <= high else [round(sum(span) / 2)]

    def _at(self, second: int) -> list[int] | None:
        """The box on screen at a second: of the tube's first or last frame where that is less than a second away."""
        index = round(second * self.fps) - self.first
        if not -self.fps < index < len(self.boxes) + self.fps:
            return None
        box = self.boxes[min(max(index, 0), len(self.boxes) - 1)]
        return None if box is None else thousandths(box, *self.size)


def _second(row: Row, column: str) -> float:
    number = finite_number(row.cells.get(column))
    if number is None:
        raise row.error(column, "must be a number", f", is {row.cells.get(column)!r:.40}")
    return number


def _part(used: tuple[int, int], fps: float) -> str:
    return f" from {used[0] / fps:.1f} to {used[1] / fps:.1f} seconds"


def _frames(row: Row, column: str) -> tuple[int, int]:
    """(first frame, the frame behind the last) of a part of the video."""
    value = row.cells.get(column)
    first, end = (value.get("begin_fid"), value.get("end_fid")) if isinstance(value, dict) else (None, None)
    if not isinstance(first, int) or not isinstance(end, int) or not 0 <= first < end:
        raise row.error(column, "must have begin_fid < end_fid", f", is {value!r:.60}")
    return first, end


def _trajectory(row: Row, frames: tuple[int, int], folder: Path) -> list[Box | None]:
    """The target's box in each of these frames, out of VidOR's annotation of the video."""
    name, target = row.text("vid"), row.whole("target_id")
    files = sorted(folder.glob(f"*/{name}.json")) or [folder / f"{name}.json"]
    every = _trajectories(files[0], _changed(files[0]))
    if frames[1] > len(every):
        raise row.error("temporal_gt", f"goes beyond the frames of {files[0].name}", f": {len(every)}")
    found: list[Box | None] = []
    for frame in every[frames[0] : frames[1]]:
        box = next((one["bbox"] for one in frame if one.get("tid") == target), None)
        found.append(None if box is None else _corners(row, box))
    if not any(found):
        raise row.error("target_id", f"has no box in {files[0].name}", f": {target}")
    return found


def _corners(row: Row, box: Any) -> Box:
    numbers = (
        [finite_number(box.get(k)) for k in ("xmin", "ymin", "xmax", "ymax")] if isinstance(box, dict) else []
    )
    x1, y1, x2, y2 = numbers or [None] * 4
    if x1 is None or y1 is None or x2 is None or y2 is None:
        raise row.error("bbox", "must have xmin, ymin, xmax and ymax", f", is {box!r:.60}")
    return x1, y1, x2, y2


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=8)  # rows of one video follow each other
def _trajectories(path: Path, _changed: int) -> list[list[dict]]:
    value = json_value(path, dict).get("trajectories")
    good = isinstance(value, list) and all(
        isinstance(frame, list) and all(isinstance(one, dict) and "bbox" in one for one in frame)
        for frame in value
    )
    if not good or not isinstance(value, list):
        raise SourceError(f"{path}: trajectories: must be a list of the boxes of every frame")
    return value
