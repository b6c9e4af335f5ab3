"""What only the media can tell about a record: whether they decode, and whether the answer lies within them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from onethinker_jax.data_pipeline.media.decoding import MediaError, load_image, load_video
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.rewards.answers import parse_structured, unwrap_answer

# Answers are often rounded to whole seconds.
_SECONDS_TOLERATED = 1.0
# Frames are looked at one by one and not kept in full.
_SMALL = PixelBounds(32, 32 * 32, 64 * 64)


@dataclass(frozen=True)
class MediaFacts:
    """Sizes of a record's media."""

    image_sizes: tuple[tuple[int, int], ...]  # (height, width), upright
    durations: tuple[float, ...]  # seconds, of each video
    frames: tuple[int, ...]  # sampled, of each video


def inspect_media(record: Record, *, fps: float, max_frames: int, time_limit: float) -> MediaFacts:
    """Decodes a record's media as training would, and holds its answer and masks against them.

    Raises RecordError: a medium cannot be decoded within `time_limit` seconds, the answer's times, or the frame of
    a mask, lie behind the video's end.
    """
    try:
        field = "images"
        sizes = tuple(_image_size(path) for path in record.images)
        field = "videos"
        films = [_film(path, fps, max_frames, time_limit) for path in record.videos]
    except MediaError as error:
        raise RecordError(f"{record}: {field}: {error}") from None
    facts = MediaFacts(sizes, tuple(d for d, _ in films), tuple(n for _, n in films))
    for error in _errors(record, facts):
        raise RecordError(f"{record}: {error}")
    return facts


@lru_cache(maxsize=1024)  # records that follow each other often share their media
def _image_size(path: MediaFile) -> tuple[int, int]:
    height, width, _ = load_image(path).shape
    return height, width


@lru_cache(maxsize=1024)
def _film(path: MediaFile, fps: float, max_frames: int, time_limit: float) -> tuple[float, int]:
    video = load_video(path, fps=fps, max_frames=max_frames, bounds=_SMALL, time_limit=time_limit)
    return video.duration, len(video.timestamps)


def _errors(record: Record, facts: MediaFacts) -> Iterator[str]:
    annotations = parse_structured(unwrap_answer(record.answer), record.problem_type, record.data_type)
    if annotations is not None and facts.durations:
        last = {
            "time": annotations.span[1] if annotations.span else annotations.key_time or 0.0,
            "boxes": max(annotations.boxes, default=0),
        }
        for part, second in last.items():
            if second > facts.durations[0] + _SECONDS_TOLERATED:
                yield (
                    f"answer.{part}: goes to {second:g} s, but {record.videos[0].name} lasts "
                    f"{facts.durations[0]:.1f} s"
                )
    truth = record.segmentation
    if truth is not None and facts.durations:
        for name, second in zip(truth.names, truth.times, strict=True):
            if second > facts.durations[0] + _SECONDS_TOLERATED:
                yield (
                    f"segmentation_output: mask {name!r}: is of {second:g} s, but {record.videos[0].name} lasts "
                    f"{facts.durations[0]:.1f} s"
                )
