"""Held-out scoring: masks from answers, means a task, and predictions written and read back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.evaluate.answers.predictions import (
    Prediction,
    over_all,
    read_predictions,
    write_predictions,
)
from onethinker_jax.rewards.client.client import MaskItem, TextItem
from onethinker_jax.rewards.score import RewardSettings, Score
from onethinker_jax.scoring import Scorer
from tests.data_pipeline.making import write_image, write_video


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def image_masks(mask: np.ndarray) -> TrueMasks:
    height, width = mask.shape
    return TrueMasks(("",), (0,), (rle(mask),), (height, width))


class Boxes:
    """A mask back end that fills the box it is given (0-1000 of each side)."""

    def __init__(self) -> None:
        self.key_frames: list[int] = []
        self.judged: list[TextItem] = []

    def segment_images(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        return [self._fill(item)[0] for item in items]

    def segment_videos(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        self.key_frames += [item.key_frame for item in items]
        return [self._fill(item) for item in items]

    def score_text(self, items: Sequence[TextItem]) -> list[float]:
        self.judged += items
        return [float(item.answer) for item in items]

    def _fill(self, item: MaskItem) -> np.ndarray:
        masks = np.zeros(item.frames.shape[:3], bool)
        sides = (*masks.shape[:0:-1],) * 2
        x1, y1, x2, y2 = (round(value / 1000 * side) for value, side in zip(item.box, sides, strict=True))
        masks[:, y1:y2, x1:x2] = True
        return masks


def scorer(client: Any, **settings: Any) -> Scorer:
    return Scorer(client, settings=RewardSettings(**settings))


def record(number: int, problem_type: str, data_type: str, **fields: Any) -> Record:
    base = Record(number, "Where?", data_type, problem_type, (), "<answer>{}</answer>", (), (), "made")
    return replace(base, **fields)


POINTS = '"positive_points": [[500, 500], [400, 400], [600, 600]], "negative_points": [[10, 10], [20, 10], [10, 20]]'


def test_masks_of_an_image(tmp_path: Path) -> None:
    truth = np.zeros((64, 96), bool)
    truth[16:48, 24:72] = True
    image = write_image(tmp_path / "a.png", 64, 96)
    one = record(1, "segmentation", "image", images=(image,), segmentation=image_masks(truth))
    client: Any = Boxes()
    exact = f'<think>a</think><answer>{{"boxes": [250, 250, 750, 750], {POINTS}}}</answer>'
    masks = scorer(client).predict_masks(one, exact)
    assert masks is not None and masks.iou == 1.0 and masks.times == [0.0]
    np.testing.assert_array_equal(masks.masks[0], truth)
    half = exact.replace("750, 750", "750, 500")
    masks = scorer(client).predict_masks(one, half)
    assert masks is not None and abs(masks.iou - 0.5) < 1e-6
    for nothing in ("no answer", "<answer>{}</answer>", "<answer>[1, 2]</answer>"):
        assert scorer(client).predict_masks(one, nothing) is None


def test_masks_of_a_video(tmp_path: Path) -> None:
    """The key frame is the sampled one nearest to the answer's time; the mean is over sampled frames."""
    frames = 20  # 10 a second: sampled at 0, 0.5, 1 and 1.5 s, which are frames 0, 5, 10 and 15
    video = write_video(tmp_path / "a.mp4", [i / 10 for i in range(frames)], size=(64, 96))
    whole, gone = np.zeros((64, 96), bool), np.zeros((64, 96), bool)
    whole[16:48, 24:72] = True
    names = tuple(f"{number:05d}" for number in range(frames))
    rles = tuple(rle(whole if number < 12 else gone) for number in range(frames))
    truth = TrueMasks(names, tuple(range(frames)), rles, (64, 96), 10.0)
    one = record(2, "segmentation", "video", videos=(video,), segmentation=truth)
    client: Any = Boxes()
    answer = f'<answer>{{"boxes": [250, 250, 750, 750], {POINTS}, "time": 1.1}}</answer>'
    masks = scorer(client).predict_masks(one, answer)
    assert masks is not None
    assert client.key_frames == [2]
    np.testing.assert_allclose(masks.times, [0.0, 0.5, 1.0, 1.5], atol=0.01)
    assert masks.masks.shape == (4, 64, 96)
    assert abs(masks.iou - 0.75) < 1e-6


def test_the_overlap_of_masks_as_reward(tmp_path: Path) -> None:
    """Accuracy is the IoU of the prompted mask; two samples of a record and an answer without a prompt."""
    truth = np.zeros((64, 96), bool)
    truth[16:48, 24:72] = True
    image = write_image(tmp_path / "a.png", 64, 96)
    answer = f'{{"boxes": [0, 0, 10, 10], {POINTS}}}'
    one = record(
        1,
        "segmentation",
        "image",
        images=(image,),
        segmentation=image_masks(truth),
        answer=f"<answer>{answer}</answer>",
    )
    exact = f'<think>a</think><answer>{{"boxes": [250, 250, 750, 750], {POINTS}}}</answer>'
    texts = [exact, exact.replace("750, 750", "750, 500"), "<think>a</think><answer>{}</answer>"]
    (scores,) = scorer(Boxes(), segmentation_reward="mask")([one], [texts])
    assert [score.accuracy for score in scores] == pytest.approx([1.0, 0.5, 0.0])
    by_points = scorer(Boxes())([one], [texts])[0]
    assert by_points[0].accuracy != pytest.approx(1.0)  # the box is far from the record's
    with pytest.raises(RecordError, match=r"record 1: segmentation_output is missing"):
        scorer(Boxes(), segmentation_reward="mask")([replace(one, segmentation=None)], [texts])


def test_judged_texts_are_normalised_within_each_prompt() -> None:
    pair = [record(number, "open-ended", "image", answer="<answer>same</answer>") for number in (1, 2)]
    texts = [
        [f"<think>a</think><answer>{score}</answer>" for score in samples_of_prompt]
        for samples_of_prompt in ((1, 3), (-4, 5))
    ]
    judge = Boxes()
    scores = scorer(judge, text_normalisation="released")(pair, texts)
    assert [(item.reference, item.answer) for item in judge.judged[:2]] == [("same", "1"), ("same", "3")]
    assert judge.judged[0].question.startswith("Where?\n")
    assert [[score.accuracy for score in samples_of_prompt] for samples_of_prompt in scores] == [
        pytest.approx([0, 1], abs=1e-5),
        pytest.approx([0, 1], abs=1e-5),
    ]
    alone = scorer(Boxes(), text_normalisation="released").single()([pair[0]], [texts[0][:1]])
    assert alone[0][0].accuracy == pytest.approx(1 / (1 + np.exp(-1.0)))


def predictions() -> list[Prediction]:
    def one(number: int, kind: str, overall: float, iou: float | None = None) -> Prediction:
        return Prediction(
            record(number, kind, "image"), f"réponse\n{number}", Score(overall, 0.5, 1.0, 0.0), iou
        )

    return [
        one(1, "math", 1.0),
        one(2, "segmentation", 0.5, 0.25),
        one(3, "math", 0.0),
        one(4, "segmentation", 0.7, 0.75),
    ]


def test_means() -> None:
    math, segmentation = (over_all(predictions()[first::2]) for first in (0, 1))
    assert (math.overall, math.mask_iou) == (0.5, None)
    assert segmentation.mask_iou == 0.5
    everything = over_all(predictions())
    assert (everything.accuracy, everything.format, everything.mask_iou) == (0.5, 1.0, 0.5)
    assert abs(everything.overall - 0.55) < 1e-9


def test_predictions_come_back(tmp_path: Path) -> None:
    made, file = predictions(), tmp_path / "rl.jsonl"
    write_predictions(file, made)
    assert read_predictions(file, [prediction.record for prediction in made]) == made
    assert [path.name for path in tmp_path.iterdir()] == ["rl.jsonl"]
    with pytest.raises(RecordError, match=f"{file}: holds predictions for other records"):
        read_predictions(file, [prediction.record for prediction in made[1:]])
