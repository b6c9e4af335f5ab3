"""Masks that segmentation answers prompt, made in batches by the reward service.

Training's held-out answers are measured on a few frames of each video. A benchmark compares the masks of every frame
that its row lists, so these are made and kept as COCO RLEs by the names of the frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.evaluate.answers.scored import MaskResult
from onethinker_jax.rewards.answers import StructuredAnswer
from onethinker_jax.rewards.metrics import encode_rle
from onethinker_jax.scoring import MaskPictures, Scorer, mask_pictures, mask_prompt

PICTURE_BYTES = 512 * 2**20
"""Pictures of one call of the reward service, unless those of a single record are more."""
ALL = 1_000_000
"""More frames than a video has."""


@dataclass(frozen=True)
class SampledMasks:
    """Masks on a few frames of each video: a `MaskMaker` that keeps their overlap alone."""

    scorer: Scorer

    def __call__(self, records: Sequence[Record], responses: Sequence[str]) -> list[MaskResult | None]:
        """The mean IoU of each record's and response's masks; None where a response prompts none."""
        results: list[MaskResult | None] = [None] * len(records)
        prompts = _prompts(records, responses)
        made = self.scorer.masks([(record, prompt) for _, record, prompt in prompts])
        for (number, _, _), masks in zip(prompts, made, strict=True):
            results[number] = MaskResult(masks.iou)
        return results


@dataclass(frozen=True)
class FrameMasks:
    """Masks on every frame that a row lists, or has a mask of: a `MaskMaker` that keeps them."""

    scorer: Scorer

    def __call__(self, records: Sequence[Record], responses: Sequence[str]) -> list[MaskResult | None]:
        """The masks of each record and response with their mean IoU; None where a response prompts none.

        Pictures of at most `PICTURE_BYTES` together are held at a time.
        """
        results: list[MaskResult | None] = [None] * len(records)
        for part in _bounded(_prompts(records, responses)):
            made = self.scorer.masks([(record, prompt) for _, record, prompt in part], frame_pictures)
            for (number, record, _), masks in zip(part, made, strict=True):
                results[number] = MaskResult(masks.iou, _rles(record, masks.masks, masks.times))
        return results


Prompted = tuple[int, Record, StructuredAnswer]


def _prompts(records: Sequence[Record], responses: Sequence[str]) -> list[Prompted]:
    """(position, record, prompt) of the responses that prompt masks."""
    pairs = enumerate(zip(records, responses, strict=True))
    found = ((number, record, mask_prompt(record, response)) for number, (record, response) in pairs)
    return [(number, record, prompt) for number, record, prompt in found if prompt is not None]


def _bounded(prompts: Sequence[Prompted]) -> Iterator[list[Prompted]]:
    """The prompts in order, in parts whose pictures take no more than `PICTURE_BYTES`, or one record's."""
    part: list[Prompted] = []
    held: dict[int, int] = {}
    for one in prompts:
        truth = one[1].segmentation
        assert truth is not None
        size = 3 * truth.size[0] * truth.size[1] * len(truth.frame_names())
        if part and id(one[1]) not in held and sum(held.values()) + size > PICTURE_BYTES:
            yield part
            part, held = [], {}
        part.append(one)
        held[id(one[1])] = size
    if part:
        yield part


def frame_pictures(record: Record, media: MediaReader) -> MaskPictures:
    """A record's image, or the frames of its video that its row lists, else that have a true mask.

    Raises MediaError.
    """
    truth = record.segmentation
    if not record.videos or truth is None or truth.fps is None:
        return mask_pictures(record, media)
    numbers = np.array(sorted(truth.frame_names()))
    gap = int(np.diff(numbers).min()) if len(numbers) > 1 else 1
    near = tuple(((numbers + 0.25) / truth.fps).tolist())
    video = media.video(record.videos[0], None, fps=truth.fps / gap, max_frames=ALL, near=near)
    times = video.timestamps
    wanted = np.isin(np.round(times * truth.fps).astype(int), numbers)
    if not wanted.any():
        return mask_pictures(record, media)
    return MaskPictures(video.frames[wanted], times[wanted].tolist())


def _rles(record: Record, masks: np.ndarray, times: Sequence[float]) -> dict[str, Any]:
    """One COCO RLE for an image, else one a frame by its name; a video's frame without a name is left out."""
    truth = record.segmentation
    assert truth is not None
    if not record.videos:
        return encode_rle(masks[0])
    names = names_at(truth, times)
    return {name: encode_rle(mask) for name, mask in zip(names, masks, strict=True) if name is not None}


def names_at(truth: TrueMasks, times: Sequence[float]) -> list[str | None]:
    """The name of the frame that each picture of a video is, given its time in seconds."""
    names = truth.frame_names()
    return [names.get(round(time * (truth.fps or 1.0))) for time in times]
