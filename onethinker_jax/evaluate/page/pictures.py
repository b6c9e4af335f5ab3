"""The media of a page's examples, with answers drawn on them, within a bound on their size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.drawing.media_html import media_html
from onethinker_jax.data_pipeline.drawing.views import Masks, View, view_record
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.sources.sample import Sample, Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.benchmarks.table import TABLE, find
from onethinker_jax.evaluate.page.examples import Example
from onethinker_jax.evaluate.results.kept import KeptBenchmark, ResultsError
from onethinker_jax.rewards.answers import StructuredAnswer, extract_answer, parse_structured
from onethinker_jax.rewards.metrics import decode_rle
from onethinker_jax.tasks import TABLE as TABLE_OF_TASKS

logger = logging.getLogger("onethinker_jax.evaluate")

BOUNDS = PixelBounds(1, 1, 512 * 512)
"""Of a picture or frame in memory; it is shown smaller."""
IMAGE_WIDTH, FRAME_WIDTH = 384, 176  # pixels
FRAMES_WITH_TIMES, FRAMES = 128, 8
"""That are decoded of a video: enough to have one near each second that an answer names; or for a look."""
VIDEO_SECONDS = 60.0
"""That decoding a video may take."""
FULL = "no picture: the page's pictures have reached their size"

AllSamples = Callable[[KeptBenchmark], Iterable[Sample]]
"""The samples of a benchmark. Raises UserError, OSError: its file cannot be read."""


@dataclass(frozen=True)
class Reader:
    """Reads the samples of benchmarks again, from where they were read, or from `data`."""

    data: Path | None = None
    media_root: Path | None = None
    known: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """Those that are in memory already, by benchmark."""

    def __call__(self, benchmark: KeptBenchmark) -> Iterable[Sample]:
        """The samples, without a look at whether their media are there."""
        if benchmark.name in self.known:
            return self.known[benchmark.name]
        file = benchmark.facts["files"][0]
        layout, split, path = file["layout"], benchmark.facts["split"], Path(file["path"])
        root = None if file["media"] is None else Path(file["media"])
        if self.data is not None and benchmark.name in TABLE:
            _, found, path = find(benchmark.name, self.data)
            layout, root = found.layout, self.data / found.media if found.media else None
        elif self.data is not None:
            path = self.data / path.name
        if layout not in LAYOUTS:
            raise ResultsError(f"{path}: its layout {layout!r:.60} is not known")
        if not path.exists():
            raise ResultsError(f"{path}: is no longer there; --data says where benchmarks are")
        root = root if self.media_root is None else self.media_root
        return LAYOUTS[layout](
            Source(path, split=split, media_root=root, check_media=False, bad=BadRecords("skip"))
        )


@dataclass(frozen=True)
class Media:
    """The media of an example: shown once, and for each run with its answer drawn; or why there are none."""

    once: str = ""
    """Where no answer has a place or a time."""
    of_runs: tuple[str, ...] = ()
    lacking: str = ""


Pictures = dict[tuple[str, str], Media]
"""By benchmark and problem."""


def pictures_of(
    benchmark: KeptBenchmark,
    examples: Sequence[Example],
    masks: Sequence[Mapping[Any, Any]],
    read: AllSamples,
    *,
    most_bytes: float,
) -> Pictures:
    """The media of a benchmark's examples in their order, until they take `most_bytes`; each has an entry.

    Args:
        benchmark: of one of the runs.
        examples: of it.
        masks: of each run, by `kept.key_of` of the answer.
        read: gives its samples.
        most_bytes: of HTML.
    """
    logger.info("drawing %s examples of %s …", f"{len(examples):,}", benchmark.name)
    wanted = {example.problem_id for example in examples}
    records: dict[str, Record] = {}
    lacking = "no picture: the benchmark's file no longer has this problem"
    try:
        for sample in read(benchmark):
            if (identity := str(sample.record.problem_id)) in wanted:
                records[identity] = sample.record
                if len(records) == len(wanted):
                    break
    except (UserError, OSError) as error:
        lacking = f"no picture: {error}"
        logger.warning("%s: its examples have no pictures: %s", benchmark.name, error)
    found: Pictures = {}
    taken, reader = 0, MediaReader(time_limit=VIDEO_SECONDS)
    for example in examples:
        record = records.get(example.problem_id)
        if record is None:
            media = Media(lacking=lacking)
        elif taken >= most_bytes:
            media = Media(lacking=FULL)
        else:
            media = _media(record, example, masks, reader)
            taken += len(media.once) + sum(map(len, media.of_runs))
        found[benchmark.name, example.problem_id] = media
    return found


def _media(
    record: Record, example: Example, masks: Sequence[Mapping[Any, Any]], reader: MediaReader
) -> Media:
    if not record.images and not record.videos:
        return Media()
    answers: list[StructuredAnswer | None] = []
    made: list[Any] = []
    for problem, of_run in zip(example.problems, masks, strict=True):
        row = problem.answers[0] if problem is not None and problem.answers else None
        text = None if row is None else extract_answer(row["response"])
        answers.append(parse_structured(text, record.problem_type, record.data_type))
        made.append(
            None if row is None else of_run.get((example.benchmark, example.problem_id, row.get("sample")))
        )
    try:
        most = FRAMES_WITH_TIMES if TABLE_OF_TASKS[record.problem_type].answer == "JSON" else FRAMES
        view = view_record(record, *answers, media=reader, bounds=BOUNDS, max_frames=most)
        drawn = view.annotations is not None or view.masks is not None
        if not drawn:
            return Media(once=media_html(view, image_width=IMAGE_WIDTH, frame_width=FRAME_WIDTH))
        return Media(
            of_runs=tuple(
                media_html(
                    view,
                    answer,
                    _masks(record, view, rles),
                    image_width=IMAGE_WIDTH,
                    frame_width=FRAME_WIDTH,
                )
                for answer, rles in zip(answers, made, strict=True)
            )
        )
    except (MediaError, OSError) as error:
        return Media(lacking=f"no picture: {error}")


def _masks(record: Record, view: View, rles: Any) -> Masks | None:
    """An answer's masks near the frames that are shown."""
    if not rles:
        return None
    if "counts" in rles:
        return Masks((0.0,), decode_rle(rles)[None])
    truth = record.segmentation
    if truth is None or view.times is None:
        return None
    times = {name: number / (truth.fps or 1.0) for number, name in truth.frame_names().items()}
    near = {
        name: times[name]
        for name in rles
        if name in times and any(abs(times[name] - time) <= 0.5 for time in view.times)
    }
    if not near:
        return None
    return Masks(tuple(near.values()), np.stack([decode_rle(rles[name]) for name in near]))
