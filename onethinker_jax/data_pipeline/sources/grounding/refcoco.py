"""RefCOCO, RefCOCO+ and RefCOCOg: `refs(…).p`, a pickle, beside COCO's `instances.json`, on pictures of COCO.

A sample is one sentence about one object, its `problem_id` the sentence's number: its box (`read_boxes`) or its mask
(`read_masks`). Facts: `box` (x1, y1, x2, y2) in pixels and `resolution` (width, height).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask

from onethinker_jax.answer_forms import finite_numbers
from onethinker_jax.data_pipeline.sources.reading.pixels import corners, resolution, thousandths
from onethinker_jax.data_pipeline.sources.reading.plain_pickle import named, read_plain
from onethinker_jax.data_pipeline.sources.reading.rows import Row, plain, samples_of
from onethinker_jax.data_pipeline.sources.reading.whole_files import json_value
from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError
from onethinker_jax.rewards.metrics import run_lengths
from onethinker_jax.text_output import json_text

_NAMES = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
"""The folder of the files -> the data set's name."""


def read_boxes(source: Source) -> Iterator[Sample]:
    """Spatial grounding: the object's box. Pictures are in `media_root`, by default in `train2014` beside `path`."""

    def make(row: Row) -> Sample:
        width, height = resolution(row)
        answer = thousandths(_box(row), width, height)
        if answer is None:
            raise row.error("bbox", "is outside the picture")
        record = {
            "problem": f"Locate this in the image: {plain(row.text('sent'))}",
            "problem_type": "spatial grounding",
            "answer": json_text({"boxes": answer}),
        }
        return _sample(row, record, source.media_root or source.path.parent / "train2014")

    yield from samples_of(_rows(source.path, source.split, source.check_media), make, source.path, source.bad)


def read_masks(source: Source) -> Iterator[Sample]:
    """Segmentation: the object's mask, of COCO's polygons or RLE, by pycocotools. Pictures as for `read_boxes`."""

    def make(row: Row) -> Sample:
        width, height = resolution(row)
        record = {
            "problem": f"Segment this in the image: {plain(row.text('sent'))}",
            "problem_type": "segmentation",
            "resolution": {"width": width, "height": height},
            "segmentation_output": {"segmentation_rle": _rle(row, height, width)},
        }
        return _sample(row, record, source.media_root or source.path.parent / "train2014")

    yield from samples_of(_rows(source.path, source.split, source.check_media), make, source.path, source.bad)


def _sample(row: Row, record: dict[str, Any], root: Path) -> Sample:
    source = _NAMES.get(row.file.parent.name, row.file.parent.name)
    return row.sample(
        {"problem_id": row.cells.get("sent_id"), "data_source": source, **record},
        images=[row.media("file_name", root / row.text("file_name"))],
        columns={"problem": "sent", "problem_id": "sent_id", "answer.boxes": "bbox"},
        groups={"split": row.text("split")},
        facts={"box": _box(row), "resolution": resolution(row)},
    )


def _rows(path: Path, split: str, check_media: bool) -> Iterator[Row | SourceError]:
    """A row a sentence, by the number of its ref: the columns of both, of the annotation and of the picture."""
    refs = [
        Row(path, number, _named(path, number, ref), "ref_id", check_media)
        for number, ref in enumerate(_list(path, read_plain(path), "refs"), start=1)
    ]
    splits = {ref.text("split") for ref in refs}
    if split and split not in splits:
        raise SourceError(f"{path}: has no split {split!r} (has: {', '.join(sorted(splits))})")
    refs = [ref for ref in refs if not split or ref.text("split") == split]
    instances = path.with_name("instances.json")
    annotations, pictures = _instances(instances, {ref.whole("ann_id") for ref in refs})
    for ref in refs:
        found = annotations.get(ref.whole("ann_id"))
        if found is None:
            yield ref.error("ann_id", f"is not in {instances.name}", f": {ref.whole('ann_id')}")
            continue
        picture = pictures.get(found["image_id"])
        if picture is None:
            yield ref.error("image_id", f"is not in {instances.name}", f": {found['image_id']}")
            continue
        about = {name: picture.get(name) for name in ("file_name", "width", "height")}
        about |= {name: found.get(name) for name in ("bbox", "segmentation")}
        for sentence in _list(path, ref.cells.get("sentences"), f"row {ref.number}: sentences"):
            cells = {**ref.cells, **_named(path, ref.number, sentence), **about}
            yield Row(path, ref.number, cells, "sent_id", check_media)


def _list(path: Path, value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise SourceError(f"{path}: {where}: must be a list, is {type(value).__name__}")
    return value


def _named(path: Path, number: int, value: Any) -> dict[str, Any]:
    """A dict of the pickle with its names and texts as texts."""
    try:
        found = named(value)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: row {number}: holds text that is not UTF-8 ({error.reason})") from None
    if found is None:
        raise SourceError(f"{path}: row {number}: must be a dict, is {type(value).__name__}")
    return found


def _instances(path: Path, wanted: set[int]) -> tuple[dict[int, dict], dict[int, dict]]:
    """COCO's annotations that are wanted and all pictures, each by its number."""
    value = json_value(path, dict)
    found = []
    for name, numbered in (("annotations", ("id", "image_id")), ("images", ("id",))):
        entries = _list(path, value.get(name), name)
        for number, entry in enumerate(entries, start=1):
            if not isinstance(entry, dict) or not all(isinstance(entry.get(one), int) for one in numbered):
                what = f"must be an object with numbers for {' and '.join(numbered)}"
                raise SourceError(f"{path}: {name} {number}: {what}")
        found.append({entry["id"]: entry for entry in entries if name == "images" or entry["id"] in wanted})
    return found[0], found[1]


def _box(row: Row) -> tuple[float, float, float, float]:
    box = corners(row.cells.get("bbox"))
    if box is None:
        raise row.error(
            "bbox", "must be [x, y, width, height] with an extent", f", is {row.cells.get('bbox')!r:.60}"
        )
    return box


def _rle(row: Row, height: int, width: int) -> dict[str, Any]:
    """One RLE of all parts of a COCO segmentation: polygons, or an RLE."""
    shape = row.cells.get("segmentation")
    if isinstance(shape, dict):
        try:
            runs = run_lengths(shape)
        except ValueError as error:
            raise row.error("segmentation", "is no COCO RLE", f" ({error})") from None
        if list(shape["size"]) != [height, width]:
            raise row.error("segmentation", "is of another size than the picture", f": {shape['size']!r:.40}")
        return {"size": [height, width], "counts": runs}
    if not isinstance(shape, list) or not shape or not all(map(_is_polygon, shape)):
        raise row.error("segmentation", "must be polygons of at least 3 points, or a COCO RLE")
    # pycocotools reads and writes beyond its buffers where a polygon leaves the picture by far.
    beyond = [
        number
        for polygon in shape
        for start, side in ((0, width), (1, height))
        for number in polygon[start::2]
        if not -side <= number <= 2 * side
    ]
    if beyond:
        raise row.error("segmentation", "leaves the picture", f": {beyond[0]:g}")
    coco: Any = mask
    merged = coco.merge(coco.frPyObjects(shape, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def _is_polygon(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 6 and finite_numbers(value, len(value)) is not None
