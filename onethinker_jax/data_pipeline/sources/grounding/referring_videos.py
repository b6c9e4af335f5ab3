"""Masks of what an expression says, through a video: MeViS and ReasonVOS.

Both are a folder with `JPEGImages/VIDEO/FRAME.jpg` and `meta_expressions.json`. MeViS has its masks in
`mask_dict.json`, an RLE or null a frame by the number of an annotation; ReasonVOS has them as pictures,
`Annotations/SOURCE_VIDEO_OBJECT/FRAME.png`. Neither says a frame rate: `FPS` is assumed, which a time in a question
or an answer refers to.

Facts of a sample: `fps`, `frames` (the names of all frames, in order; those without a mask show nothing of the
object) and `resolution` (width, height).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from onethinker_jax.data_pipeline.media.decoding import MAX_PIXELS, load_image
from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.media.media_file import MediaError
from onethinker_jax.data_pipeline.sources.reading.rows import Row, plain, samples_of
from onethinker_jax.data_pipeline.sources.reading.whole_files import json_value
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError
from onethinker_jax.rewards.metrics import encode_rle, run_lengths

FPS = 6.0
"""Assumed of the frames. MeViS: about 79 frames a video of about 13 seconds."""

Masks = Callable[[Row], dict[str, dict[str, Any]]]
"""A row's RLE by frame name; frames in which nothing of the object is seen are not among them."""


def read(source: Source) -> Iterator[Sample]:
    """The folder of a split, or that of the data set, which has one a split. Groups: `source` of ReasonVOS' videos.

    Frames are in `media_root/VIDEO`, by default in `JPEGImages` of the folder.
    """
    folder = source.split_folder
    root = source.media_root or folder / "JPEGImages"
    videos = json_value(folder / "meta_expressions.json", dict).get("videos")
    if not isinstance(videos, dict):
        raise SourceError(f"{folder / 'meta_expressions.json'}: videos: must be an object")
    masks = _pictured(folder) if (folder / "Annotations").is_dir() else _encoded(folder)

    def make(row: Row) -> Sample:
        return _sample(row, FrameFolder(root / row.text("video"), FPS), masks)

    yield from samples_of(_rows(folder, videos, source.check_media), make, folder, source.bad)


def _rows(folder: Path, videos: Mapping[str, Any], check_media: bool) -> Iterator[Row]:
    """A row an expression: its own columns and those of its video."""
    number, file = 0, folder / "meta_expressions.json"
    for name, video in videos.items():
        expressions = video.get("expressions") if isinstance(video, dict) else None
        if not isinstance(expressions, dict):
            raise SourceError(f"{file}: {name}: must have expressions, an object")
        for key, expression in expressions.items():
            number += 1
            if not isinstance(expression, dict):
                raise SourceError(f"{file}: {name}: expression {key}: must be an object")
            of_video = {column: video.get(column) for column in ("frames", "source", "is_sent")}
            yield Row(
                file, number, {**of_video, **expression, "video": name, "key": key}, "video", check_media
            )


def _sample(row: Row, film: FrameFolder, masks: Masks) -> Sample:
    frames = [str(name) for name in row.listed("frames")]
    if row.check_media:
        if not film.is_file():
            raise row.error("video", "has no frames", f" in {film}")
        there = [picture.stem for picture in film.frames]
        if lacking := sorted(set(frames) - set(there)):
            raise row.error("frames", "has no picture", f" {lacking[0]!r} in {film}")
        frames = there
    rles = masks(row)
    if not rles:
        raise row.error("expressions", "has no mask in any frame")
    if other := sorted(set(rles) - set(frames)):
        raise row.error("frames", "lacks that of a mask", f": {other[0]!r}")
    height, width = next(iter(rles.values()))["size"]
    column = "exp_text" if "exp_text" in row.cells else "exp"
    said = plain(row.text(column))
    record = {
        "problem_id": f"{row.text('video')}_{row.cells['key']}",
        "problem": f"{said} Segment it."
        if row.cells.get("is_sent")
        else f"Segment this in the video: {said}",
        "problem_type": "segmentation",
        "data_source": "ReasonVOS" if column == "exp_text" else "MeViS",
        "fps": film.fps,
        "resolution": {"width": width, "height": height},
        "segmentation_output": {"segmentation_rle": rles, "frames": frames},
    }
    facts = {"fps": film.fps, "frames": tuple(frames), "resolution": (width, height)}
    groups = {"source": row.text("source", "")}
    return row.sample(record, videos=[film], columns={"problem": column}, groups=groups, facts=facts)


def _encoded(folder: Path) -> Masks:
    """MeViS: the masks of a row's annotations laid over each other."""
    file = folder / "mask_dict.json"
    every = json_value(file, dict)

    def masks(row: Row) -> dict[str, dict[str, Any]]:
        names = [str(name) for name in row.listed("frames")]
        layers: list[list[dict | None]] = []
        for number in row.listed("anno_id"):
            one = every.get(str(number))
            if not isinstance(one, list) or len(one) != len(names):
                raise row.error("anno_id", f"has no mask a frame in {file.name}", f": {number!r:.40}")
            layers.append(one)
        merged = (_union(row, [mask for mask in frame if mask]) for frame in zip(*layers, strict=True))
        return {name: rle for name, rle in zip(names, merged, strict=False) if rle is not None}

    return masks


def _union(row: Row, masks: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not masks:
        return None
    try:
        sizes = {tuple(mask["size"]) for mask in masks if run_lengths(mask)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise row.error("anno_id", "has a mask that is no COCO RLE", f" ({error})") from None
    if len(sizes) > 1:
        raise row.error("anno_id", "has masks of two sizes in one frame")
    ((height, width),) = sizes
    if height * width > MAX_PIXELS:
        raise row.error("anno_id", "has a mask that is too large", f": {width} x {height}")
    coco: Any = coco_mask
    packed = [
        coco.frPyObjects({"size": [height, width], "counts": run_lengths(one)}, height, width)
        for one in masks
    ]
    merged = coco.merge(packed)
    return (
        {"size": [height, width], "counts": merged["counts"].decode("ascii")} if coco.area(merged) else None
    )


def _pictured(folder: Path) -> Masks:
    """ReasonVOS: the pictures of a row's object; what is not black is the object."""

    def masks(row: Row) -> dict[str, dict[str, Any]]:
        name = f"{row.text('source').lower()}_{row.text('video')}_{row.cells.get('obj_id')}"
        try:
            return _masks_in(
                folder / "Annotations" / name, (folder / "Annotations" / name).stat().st_mtime_ns
            )
        except (OSError, MediaError) as error:
            raise row.error("obj_id", "has no masks that can be read", f" in {name} ({error})") from None

    return masks


@lru_cache(maxsize=4)  # an object has several expressions
def _masks_in(folder: Path, _changed: int) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(folder.iterdir()):
        if file.suffix == ".png":
            mask = np.asarray(load_image(file).max(2) > 0)
            if mask.any():
                found[file.stem] = encode_rle(mask)
    return found
