"""Responses to records -> scores: the one way for rollouts, held-out answers and evaluation.

Open-ended answers are judged and masks are made by the reward service; the formulas of `rewards/score.py` run in
this process or in a pool of them. All samples of a prompt are scored in one call, as normalisation by group needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS, Prompts, question_text
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.rewards.answers import StructuredAnswer, extract_answer, parse_structured, unwrap_answer
from onethinker_jax.rewards.batch import score_batch
from onethinker_jax.rewards.client.client import MaskItem, RewardClient
from onethinker_jax.rewards.metrics import mean_mask_iou
from onethinker_jax.rewards.score import (
    DEFAULT_SETTINGS,
    RewardSettings,
    Score,
    max_accuracy,
    reward_weights,
)
from onethinker_jax.rewards.score_pool import ScorePool, ScoreRequest, try_reward
from onethinker_jax.tasks import TABLE

MASK_FPS = 2.0
MASK_FRAMES = 16


class Scorer:
    """Scores responses by one set of settings, which name the variant, and one reward service. Thread-safe."""

    def __init__(
        self,
        client: RewardClient,
        *,
        settings: RewardSettings = DEFAULT_SETTINGS,
        pool: ScorePool | None = None,
        media: MediaReader | None = None,
        prompts: Prompts = OWN_PROMPTS,
    ):
        """Scores by `settings`, in the processes of `pool` where there is one, and by the service behind `client`.

        `media` reads the pictures that masks are made on; by default in this process, without a cache.
        `prompts` is the wording of the questions that a judge of text is shown with the answers.
        """
        self.client, self.settings = client, settings
        self._pool, self._media, self._prompts = pool, media or MediaReader(), prompts

    def __call__(self, records: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """The score of each record's every response.

        A segmentation record that has masks and no answer is scored by its masks, whatever the settings say.

        Raises RewardUnavailable when the service cannot be reached, RecordError naming a record without the masks
        that its reward needs.
        """
        if self.settings.segmentation_reward == "mask" or self.settings.module is not None:
            return self._scores(records, texts, self.settings)
        groups: dict[bool, list[int]] = {False: [], True: []}
        for number, record in enumerate(records):
            groups[record.segmentation is not None and not record.answer].append(number)
        scores: dict[int, list[Score]] = {}
        for by_mask, numbers in groups.items():
            settings = replace(self.settings, segmentation_reward="mask") if by_mask else self.settings
            chosen = [records[number] for number in numbers], [texts[number] for number in numbers]
            if numbers:
                scores.update(zip(numbers, self._scores(*chosen, settings), strict=True))
        return [scores[number] for number in range(len(records))]

    def _scores(
        self, records: Sequence[Record], texts: Sequence[Sequence[str]], settings: RewardSettings
    ) -> list[list[Score]]:
        owners = [
            record
            for record, samples_of_prompt in zip(records, texts, strict=True)
            for _ in samples_of_prompt
        ]
        requests = [
            ScoreRequest(
                text,
                record.answer,
                question_text(record, prompts=self._prompts),
                record.problem_type,
                record.data_type,
                group,
                record.options,
                None if settings.module is None else _own_fields(record),
            )
            for group, (record, samples_of_prompt) in enumerate(zip(records, texts, strict=True))
            for text in samples_of_prompt
        ]

        def judge_masks(prompts: Sequence[tuple[int, StructuredAnswer]]) -> list[float]:
            masks = self.masks([(owners[number], annotations) for number, annotations in prompts])
            return [one.iou for one in masks]

        scores = iter(
            score_batch(
                requests,
                self.client,
                settings=settings,
                pool=self._pool,
                judge_masks=judge_masks,
            )
        )
        return [[next(scores) for _ in samples_of_prompt] for samples_of_prompt in texts]

    def single(self) -> "Scorer":
        """One for responses without a group: what is normalised by group is put through a sigmoid instead."""
        if self.settings.text_normalisation != "released":
            return self
        settings = replace(self.settings, text_normalisation="sigmoid")
        return Scorer(
            self.client,
            settings=settings,
            pool=self._pool,
            media=self._media,
            prompts=self._prompts,
        )

    def give_up(self) -> None:
        """Ends the waiting for the reward service.

        Scores under way, and later ones that need it, raise RewardGivenUp at once.
        """
        self.client.give_up()

    def max_accuracy(self, record: Record) -> float:
        """The largest accuracy that a response to the record can have."""
        return max_accuracy(record.problem_type, record.data_type, self.settings.variant, self.settings)

    @property
    def reward_weights(self) -> tuple[float, float, float]:
        """What the reward multiplies accuracy, format and structure with."""
        return reward_weights(self.settings)

    def masks(
        self,
        prompts: Sequence[tuple[Record, StructuredAnswer]],
        pictures_of: "Callable[[Record, MediaReader], MaskPictures] | None" = None,
    ) -> list["PredictedMasks"]:
        """Masks that boxes and points prompt on the pictures of records with true masks, in order.

        `pictures_of` chooses a record's pictures, by default `mask_pictures`; they are read, and cross to the
        service, once. Raises MediaError, RewardUnavailable, and
        RecordError naming a record without true masks.
        """
        asked = {id(record): record for record, _ in prompts}  # the samples of a prompt share its pictures
        choose = pictures_of or mask_pictures
        truths = {key: _true_masks(record, choose, self._media) for key, record in asked.items()}
        items: dict[bool, list[MaskItem]] = {False: [], True: []}
        for record, annotations in prompts:
            items[bool(record.videos)].append(truths[id(record)].pictures.item(annotations))
        made = {
            False: iter(mask[None] for mask in self.client.segment_images(items[False])),
            True: iter(self.client.segment_videos(items[True])),
        }
        results = []
        for record, _ in prompts:
            truth, masks = truths[id(record)], next(made[bool(record.videos)])
            try:
                iou = truth.iou(masks)
            except ValueError as error:
                raise RecordError(f"{record}: its masks cannot be compared: {error}") from error
            results.append(PredictedMasks(truth.pictures.times, masks, iou))
        return results

    def predict_masks(self, record: Record, response: str) -> "PredictedMasks | None":
        """The masks that a segmentation answer prompts; None when the answer does not hold box and points."""
        annotations = mask_prompt(record, response)
        return None if annotations is None else self.masks([(record, annotations)])[0]


def mask_prompt(record: Record, response: str) -> StructuredAnswer | None:
    """What a segmentation answer prompts masks with; None when it does not hold a box, or there are no true masks."""
    annotations = parse_structured(extract_answer(response), record.problem_type, record.data_type)
    if annotations is None or annotations.box is None or record.segmentation is None:
        return None
    return annotations


@dataclass(frozen=True)
class PredictedMasks:
    """Masks made from a predicted box and points: bool [N, H, W] at `times` (seconds; 0 for an image)."""

    times: list[float]
    masks: np.ndarray
    iou: float  # mean over frames against the record's masks


@dataclass(frozen=True)
class MaskPictures:
    """What masks are made on: uint8 [N, H, W, 3] at `times` (seconds; 0 for an image)."""

    frames: np.ndarray
    times: list[float]

    def item(self, annotations: StructuredAnswer) -> MaskItem:
        """What the service is asked: the prompt belongs to the frame nearest to its time."""
        assert annotations.box is not None
        key_frame = int(np.argmin(np.abs(np.array(self.times) - (annotations.key_time or 0.0))))
        return MaskItem(
            self.frames, annotations.box, annotations.positive_points, annotations.negative_points, key_frame
        )


def mask_pictures(record: Record, media: MediaReader) -> MaskPictures:
    """A record's image, or frames of its video, of frames with a true mask where it has them. Raises MediaError."""
    if not record.videos:
        return MaskPictures(media.image(record.images[0], None)[None], [0.0])
    truth = record.segmentation
    near = () if truth is None or truth.whole else truth.moments()
    video = media.video(record.videos[0], None, fps=MASK_FPS, max_frames=MASK_FRAMES, near=near)
    return MaskPictures(video.frames, video.timestamps.tolist())


@dataclass(frozen=True)
class _Truth:
    """The pictures, and the record's masks of them as COCO RLEs; None of a picture without one."""

    pictures: MaskPictures
    rles: list[dict | None]

    def iou(self, masks: np.ndarray) -> float:
        """Mean over the pictures that have a true mask; `masks` is bool [N, H, W]."""
        there = [number for number, rle in enumerate(self.rles) if rle is not None]
        return mean_mask_iou(masks[there], [rle for rle in self.rles if rle is not None])


def check_masks(records: Sequence[Record]) -> None:
    """Raises RecordError naming the first segmentation record without true masks."""
    for record in records:
        if TABLE[record.problem_type].judged_by == "mask" and record.segmentation is None:
            raise RecordError(
                f"{record}: segmentation_output is missing, which reward.segmentation_reward mask needs"
            )


def check_truths(records: Sequence[Record], settings: RewardSettings) -> None:
    """Raises RecordError naming the first segmentation record that its reward cannot be computed of.

    The reward of masks needs true masks, the reward of points an answer, one of one's own what it asks for itself.
    """
    if settings.module is not None:
        return
    if settings.segmentation_reward == "mask":
        check_masks(records)
        return
    for record in records:
        if TABLE[record.problem_type].judged_by == "mask" and not record.answer:
            raise RecordError(
                f"{record}: answer: is missing, which reward.segmentation_reward points needs; mask needs none"
            )


def check_reward(settings: RewardSettings, records: Sequence[Record] = ()) -> None:
    """Tries a reward of one's own, if the settings name one: that it is there, and what it gives the first record.

    Two responses are scored, an empty one and the true answer. Raises RewardFunctionError, ScoringError.
    """
    if settings.module is None:
        return
    requests = [
        ScoreRequest(
            text, record.answer, "", record.problem_type, record.data_type, record=_own_fields(record)
        )
        for record in records[:1]
        for text in ("", f"<think></think><answer>{unwrap_answer(record.answer)}</answer>")
    ]
    try_reward(settings, requests)


def _own_fields(record: Record) -> dict[str, Any]:
    """What a reward of one's own is given of a record, as JSON."""
    return {
        "problem_id": record.problem_id,
        "problem": record.problem,
        "problem_type": record.problem_type,
        "data_type": record.data_type,
        "options": list(record.options),
        "answer": unwrap_answer(record.answer),
        "images": [str(file) for file in record.images],
        "videos": [str(file) for file in record.videos],
        "data_source": record.data_source,
        "origin": str(record),
    }


def _true_masks(
    record: Record, choose: "Callable[[Record, MediaReader], MaskPictures]", media: MediaReader
) -> _Truth:
    check_masks([record])
    assert record.segmentation is not None
    pictures = choose(record, media)
    return _Truth(pictures, record.segmentation.at(pictures.times))
