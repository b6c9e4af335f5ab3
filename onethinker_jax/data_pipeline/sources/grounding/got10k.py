"""GOT-10k: a folder of sequences, each a folder of frames with one object's box in every frame.

A sequence has `*.jpg`, `groundtruth.txt` (x,y,width,height in pixels, a line a frame), `cover.label` (0 to 8: how much
of the object is seen), `absence.label` (1: it is not in the picture) and `meta_info.ini` (`anno_fps`, `resolution`).
The question gives the box of the first frame; the answer has a box a second in which the object is seen, at most 32,
counted from 1: key k is of the frame at k - 1 seconds, and key 1 has the box that the question gives. The example in
the README of OneThinker has it so. The frames are the video, at the sequence's `anno_fps`.

Facts of a sample: `cover` by the answer's keys ({key: 0 to 8}); and of every frame, for the toolkit's own
metric: `fps`, `frame_boxes` ((x1, y1, x2, y2) in pixels as annotated, None without extent), `frame_cover` and
`resolution` (width, height).
"""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.media.picture_header import picture_header
from onethinker_jax.data_pipeline.sources.reading.pixels import Box, corners, thousandths
from onethinker_jax.data_pipeline.sources.reading.rows import Row, samples_of
from onethinker_jax.data_pipeline.sources.reading.whole_files import text_lines
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError
from onethinker_jax.text_output import json_text

MOST_SECONDS = 32
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:Hz)?$", re.IGNORECASE)
_RESOLUTION = re.compile(r"\(?\s*(\d+)\s*,\s*(\d+)\s*\)?$")


def read(source: Source) -> Iterator[Sample]:
    """The sequences of a split's folder, in the order of its `list.txt`, else of their names.

    `path` is the split's folder, or the data set's, which has one a split. Frames are in `media_root/SEQUENCE` where
    it is given.
    """
    folder = source.split_folder

    def rows() -> Iterator[Row]:
        for number, name in enumerate(_names(folder), start=1):
            yield Row(folder, number, {"sequence": name}, "sequence", source.check_media)

    def make(row: Row) -> Sample:
        return _sample(row, folder / row.text("sequence"), source.media_root or folder)

    yield from samples_of(rows(), make, folder, source.bad)


def _names(folder: Path) -> list[str]:
    if (folder / "list.txt").is_file():
        return [line.strip() for _, line in text_lines(folder / "list.txt")]
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    return sorted(file.parent.name for file in folder.glob("*/groundtruth.txt"))


def _sample(row: Row, folder: Path, media: Path) -> Sample:
    fps, size = _meta(row, folder)
    film = FrameFolder(media / folder.name, fps)
    if row.check_media and not film.is_file():
        raise row.error("sequence", "has no frames", f" in {film}")
    boxes = _boxes(folder / "groundtruth.txt")
    if row.check_media and len(film.frames) != len(boxes):
        raise row.error(
            "groundtruth.txt", "not a line a frame", f": {len(boxes)} for {len(film.frames)} frames"
        )
    cover, absent = _labels(folder / "cover.label", len(boxes)), _labels(folder / "absence.label", len(boxes))
    width, height = size or _first_frame(row, film)
    scaled = [None if box is None else thousandths(box, width, height) for box in boxes]
    at = {key: round((key - 1) * fps) for key in range(1, MOST_SECONDS + 1)}
    seen = {
        key: box
        for key, frame in at.items()
        if frame < len(boxes) and not absent[frame] and (box := scaled[frame])
    }
    if 1 not in seen or len(seen) < 2:
        raise row.error("groundtruth.txt", "has no box in the first frame, or at no whole second after it")
    record = {
        "problem_id": folder.name,
        "problem": f"The object has the box {json_text(seen[1])} in the first frame. Track it: give its box once a "
        f"second from 1, which is the first frame, to {max(seen)}.",
        "problem_type": "tracking",
        "data_source": "GOT-10k",
        "answer": json_text({"boxes": {str(key): box for key, box in seen.items()}}),
    }
    facts = {
        "cover": {key: cover[at[key]] for key in seen},
        "fps": fps,
        "frame_boxes": tuple(boxes),
        "frame_cover": tuple(cover),
        "resolution": (width, height),
    }
    return row.sample(record, videos=[film], columns={"answer.boxes": "groundtruth.txt"}, facts=facts)


def _meta(row: Row, folder: Path) -> tuple[float, tuple[int, int] | None]:
    """Annotated frames a second, and (width, height) where it says so."""
    file = folder / "meta_info.ini"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string("\n".join(line for _, line in text_lines(file)), str(file))
    except configparser.Error as error:
        raise SourceError(f"{file}: cannot be read ({' '.join(str(error).split())})") from None
    meta = parser["METAINFO"] if parser.has_section("METAINFO") else {}
    rate, sides = _RATE.match(meta.get("anno_fps", "")), _RESOLUTION.match(meta.get("resolution", ""))
    if rate is None or float(rate[1]) <= 0:
        raise row.error(
            "meta_info.ini: anno_fps", "must be a rate such as 10Hz", f", is {meta.get('anno_fps')!r:.40}"
        )
    return float(rate[1]), None if sides is None else (int(sides[1]), int(sides[2]))


def _first_frame(row: Row, film: FrameFolder) -> tuple[int, int]:
    header = picture_header(film.frames[0], "image") if film.is_file() else None
    if header is None:
        raise row.error("meta_info.ini: resolution", "is missing, and no frame tells it")
    return header.width, header.height


def _boxes(file: Path) -> list[Box | None]:
    found: list[Box | None] = []
    for number, line in text_lines(file):
        try:
            numbers = [float(cell) for cell in line.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 4:
            raise SourceError(f"{file}: row {number}: must be x,y,width,height, is {line.strip()!r:.60}")
        found.append(corners(numbers))
    return found


def _labels(file: Path, count: int) -> list[int]:
    found = []
    for number, line in text_lines(file):
        if not line.strip().isdecimal():
            raise SourceError(f"{file}: row {number}: must be a whole number, is {line.strip()!r:.40}")
        found.append(int(line))
    if len(found) != count:
        raise SourceError(f"{file}: has {len(found)} rows, groundtruth.txt {count}")
    return found
