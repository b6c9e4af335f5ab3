"""Masks that are kept with answers: of every frame that a row lists, made together, one that is odd failing alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.evaluate.answers import masks
from onethinker_jax.evaluate.answers.answerers import Answer
from onethinker_jax.evaluate.answers.failures import ONCE, Tries
from onethinker_jax.evaluate.answers.masks import FrameMasks
from onethinker_jax.evaluate.answers.scored import AnswerScorer
from onethinker_jax.rewards.client.client import MaskItem, RewardItemError, RewardUnavailable
from onethinker_jax.rewards.metrics import decode_rle, encode_rle
from onethinker_jax.scoring import Scorer
from tests.data_pipeline.making import write_image, write_video

HEIGHT, WIDTH = 48, 64
POINTS = '"positive_points": [[500, 500], [400, 400], [600, 600]], "negative_points": [[10, 10], [20, 10], [10, 20]]'
ANSWER = f'<think>a</think><answer>{{"boxes": [250, 250, 750, 750], {POINTS}}}</answer>'
VIDEO_ANSWER = ANSWER.replace("}</answer>", ', "time": 1.0}</answer>')


class Boxes:
    """A mask back end that fills the box; it notes the calls, and fails as `wrong` says."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.wrong: dict[str, Exception | int] = {}  # of the pictures with this many rows

    def segment_images(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        self.calls += [len(items)] if items else []
        return [self._fill(item)[0] for item in items]

    def segment_videos(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        self.calls += [len(items)] if items else []
        return [self._fill(item) for item in items]

    def _fill(self, item: MaskItem) -> np.ndarray:
        wrong = self.wrong.get(str(item.frames.shape[1]))
        if isinstance(wrong, Exception):
            raise wrong
        filled = np.zeros(item.frames.shape[:3], bool)
        sides = (*filled.shape[:0:-1],) * 2
        x1, y1, x2, y2 = (round(value / 1000 * side) for value, side in zip(item.box, sides, strict=True))
        filled[:, y1:y2, x1:x2] = True
        return filled[:, : wrong or None]


def true_mask(height: int = HEIGHT) -> np.ndarray:
    mask = np.zeros((height, WIDTH), bool)
    mask[height // 4 : 3 * height // 4, WIDTH // 4 : 3 * WIDTH // 4] = True
    return mask


def image(folder: Path, number: int, height: int = HEIGHT) -> Record:
    file = write_image(folder / f"{number}.png", height, WIDTH)
    truth = TrueMasks(("",), (0,), (encode_rle(true_mask(height)),), (height, WIDTH))
    answer = f'<answer>{{"boxes": [250, 250, 750, 750], {POINTS}}}</answer>'
    base = Record(number, "Where?", "image", "segmentation", (), answer, (file,), (), "made")
    return replace(base, segmentation=truth)


def video(folder: Path, listed: Sequence[str] = ()) -> Record:
    """20 frames at 10 a second, every fifth with a mask."""
    file = write_video(folder / "a.mp4", [i / 10 for i in range(20)], size=(HEIGHT, WIDTH))
    numbers = range(0, 20, 5)
    rle = encode_rle(true_mask())
    truth = TrueMasks(
        tuple(f"{number:05d}" for number in numbers),
        tuple(numbers),
        (rle,) * len(numbers),
        (HEIGHT, WIDTH),
        10.0,
        10.0,
        tuple(listed),
    )
    base = Record("v", "Where?", "video", "segmentation", (), "", (), (file,), "made")
    return replace(base, segmentation=truth)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_masks_of_every_listed_frame(tmp_path: Path, every: int) -> None:
    """Of the frames with a mask where the row lists none; by the names that the row gives them."""
    listed = [f"{number:05d}" for number in range(20)] if every == 1 else []
    record, client = video(tmp_path, listed), Boxes()
    if every == 2:  # the list has only those with a mask, and its positions are the frames' numbers
        truth = record.segmentation
        assert truth is not None
        record = replace(
            record, segmentation=replace(truth, frames=(0, 1, 2, 3), listed=truth.names, fps=2.0)
        )
    (made,) = FrameMasks(Scorer(client))([record], [VIDEO_ANSWER])  # type: ignore[arg-type]
    assert made is not None and made.rles is not None
    names = listed or [f"{number:05d}" for number in range(0, 20, 5)]
    assert list(made.rles) == names and made.iou == 1.0
    for rle in made.rles.values():
        np.testing.assert_array_equal(decode_rle(rle), true_mask())


def test_masks_are_asked_together_and_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [image(tmp_path, number) for number in range(5)]
    client = Boxes()
    texts = [ANSWER, "no answer", ANSWER, ANSWER, ANSWER]
    made = FrameMasks(Scorer(client))(records, texts)  # type: ignore[arg-type]
    assert [one is None for one in made] == [False, True, False, False, False] and client.calls == [4]
    assert made[0] is not None and made[0].rles == encode_rle(true_mask())
    client.calls.clear()
    monkeypatch.setattr(masks, "PICTURE_BYTES", 2 * 3 * HEIGHT * WIDTH)
    again = FrameMasks(Scorer(client))(records, texts)  # type: ignore[arg-type]
    assert again == made and client.calls == [2, 2]


@pytest.mark.parametrize("wrong", [10, RewardItemError("the reward service failed on item 0: out of memory")])
def test_an_odd_mask_fails_alone(tmp_path: Path, wrong: Exception | int) -> None:
    """A mask of another size, or a call that fails for one item: tried again, then that sample has failed."""
    records = [image(tmp_path, 0), image(tmp_path, 1, height=56), image(tmp_path, 2)]
    client = Boxes()
    client.wrong["56"] = wrong
    scorer: Any = Scorer(client)  # type: ignore[arg-type]
    score = AnswerScorer(scorer, FrameMasks(scorer), records, Tries(again=2))
    scored = score([Answer(number, response=ANSWER) for number in range(3)])
    assert [one.mask_iou for one in scored] == [1.0, None, 1.0]
    failed = scored[1].answer
    assert failed.response == "" and failed.failed is not None and failed.failed.startswith("record 1: ")
    assert ("out of memory" if isinstance(wrong, Exception) else "masks cannot be compared") in failed.failed
    assert client.calls == [3, 1, 1, 1, 1, 1]  # together, then each alone, the odd one three times
    with pytest.raises(RecordError, match="record 1: "):
        AnswerScorer(scorer, FrameMasks(scorer), records, ONCE)(
            [Answer(number, response=ANSWER) for number in range(3)]
        )


def test_a_service_that_is_gone_concerns_all(tmp_path: Path) -> None:
    client = Boxes()
    client.wrong[str(HEIGHT)] = RewardUnavailable("gone")
    scorer: Any = Scorer(client)  # type: ignore[arg-type]
    score = AnswerScorer(scorer, FrameMasks(scorer), [image(tmp_path, 0)], Tries())
    with pytest.raises(RewardUnavailable):
        score([Answer(0, response=ANSWER)])
