"""What the demo prints and draws of hand-made responses of every task."""

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.assistant import Assistant, Response
from onethinker_jax.data_pipeline.drawing.answer_picture import LARGEST, MARGIN
from onethinker_jax.data_pipeline.drawing.captions import load_font, wrapped
from onethinker_jax.data_pipeline.drawing.draw import PREDICTED
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.demo import session
from onethinker_jax.model.generation.continuous_batching import EndReason
from tests.data_pipeline.making import brightness, frame_numbers
from tests.demo.hand_made import said

POINTS = (
    '"positive_points": [[500, 500], [300, 500], [700, 500]], '
    '"negative_points": [[100, 100], [900, 100], [100, 900]]'
)


@pytest.fixture
def answers(model, tmp_path, monkeypatch, capsys):
    """answers(response, medium, *flags) -> (exit status, standard output, its picture) of a model that says that."""
    monkeypatch.chdir(tmp_path)

    def run(response: str, medium: Path, *flags: str, reason: EndReason = "stop"):
        monkeypatch.setattr(Assistant, "respond", lambda *_: Response(response, reason, 30, 200, 2.0))
        capsys.readouterr()
        status = demo.main([str(model), str(medium), "What is it?", *flags])
        file = tmp_path / f"{medium.stem}_answer.png"
        return status, capsys.readouterr().out, np.asarray(Image.open(file).convert("RGB"))

    return run


def at(
    x: float, y: float, *, size: tuple[int, int], left: int = MARGIN, top: int = MARGIN
) -> tuple[int, int]:
    """(row, column) in the picture of a place in 0-1000 of a frame drawn `size` (width, height) at (left, top)."""
    return top + round(y / 1000 * (size[1] - 1)), left + round(x / 1000 * (size[0] - 1))


def is_annotated(picture: np.ndarray, place: tuple[int, int]) -> bool:
    """Whether the answer's colour is there, or one pixel off."""
    row, column = place
    near = picture[row - 1 : row + 2, column - 1 : column + 2]
    return bool((near == PREDICTED).all(-1).any())


def test_a_text(answers, image):
    status, out, picture = answers(said("a red star"), image)
    assert status == 0
    assert out.splitlines() == [
        *("Reasoning", "I look at it.", "", "Answer", "a red star", ""),
        "30 tokens after a prompt of 200 in 2.0 s, 15.0 a second; ended by itself",
        "picture: street_answer.png",
    ]
    original = np.asarray(Image.open(image))
    drawn = picture[MARGIN : MARGIN + 384, MARGIN : MARGIN + 576]
    np.testing.assert_array_equal(drawn, original.repeat(6, 0).repeat(6, 1))
    below = picture[MARGIN + 384 :]
    stripe = np.argwhere((below == PREDICTED).all(-1))
    assert set(stripe[:, 1]) == set(range(MARGIN, MARGIN + 5))
    assert (below[:, MARGIN + 10 :].min(-1) < 60).any()  # the answer's ink


@pytest.mark.parametrize(
    ("answer", "shown", "error"),
    [
        ("B", "B. two", None),
        ("(a)", "A. one", None),
        ("D", "D", "names none of the options"),
        ("the blue one", "the blue one", "names none of the options"),
    ],
)
def test_an_option(answers, image, answer, shown, error):
    flags = ("--task", "multiple choice", "--option", "one", "--option", "two")
    _, out, _ = answers(said(answer), image, *flags)
    lines = out.splitlines()
    assert lines[lines.index("Answer") + 1] == shown
    assert ("warning: the answer names none of the options" in lines) == (error is not None)


@pytest.mark.parametrize(("answer", "good"), [("1,200", True), ("12%", True), ("a dozen", False)])
def test_a_number(answers, image, answer, good):
    _, out, _ = answers(said(answer), image, "--task", "numerical")
    assert ("warning: the answer is no number" not in out) == good
    assert answer in out


def test_a_box(answers, image):
    status, out, picture = answers(
        said('{"boxes": [250, 250, 750, 500]}'), image, "--task", "spatial grounding"
    )
    assert status == 0
    assert (
        "box           [24, 16, 72, 32] of 96 x 64 pixels, [250, 250, 750, 500] of 1000" in out.splitlines()
    )
    for x, y in itertools.product((250, 750), (250, 500)):
        assert is_annotated(picture, at(x, y, size=(576, 384)))
    assert not is_annotated(picture, at(500, 375, size=(576, 384)))
    assert not (picture[MARGIN + 384 :] == PREDICTED).all(-1).any()  # no text: the box is the answer


def test_a_mask_of_an_image(answers, image):
    """By GrabCut in a sidecar of the demo's own."""
    response = said(f'{{"boxes": [250, 250, 750, 750], {POINTS}}}')
    status, out, picture = answers(response, image, "--task", "segmentation")
    assert status == 0
    lines = out.splitlines()
    assert "inside        [48, 32] [29, 32] [67, 32]" in lines
    assert "outside       [10, 6] [86, 6] [10, 58]" in lines
    assert any(line.startswith("mask  ") and line.endswith("% of the picture") for line in lines)
    row, column = at(500, 500, size=(576, 384))
    assert is_annotated(picture, (row + 6, column + 6))  # beside the plus
    assert is_annotated(picture, at(250, 250, size=(576, 384)))


class OneMask:
    """A mask service that says the left half of the key frame, and of the others nothing."""

    def __init__(self):
        self.items = []

    def segment_videos(self, items):
        self.items += items
        count, height, width, _ = items[0].frames.shape
        masks = np.zeros((count, height, width), bool)
        masks[items[0].key_frame, :, : width // 2] = True
        return [masks]


def test_a_mask_of_a_video(answers, video, monkeypatch):
    client = OneMask()
    monkeypatch.setattr(session, "connect", lambda _: contextlib.nullcontext(client))
    response = said(f'{{"time": 2.1, "boxes": [250, 250, 750, 750], {POINTS}}}')
    status, out, picture = answers(response, video, "--task", "segmentation")
    assert status == 0
    (item,) = client.items
    assert len(item.frames) == 10 and item.key_frame == 4  # at two frames a second
    assert "key frame     2.1 s of 5.0 s" in out.splitlines()
    assert "mask          5.0% of the picture, 10 frames from 0.0% to 50.0%" in out.splitlines()
    width = (LARGEST - 2 * MARGIN) // 3 // 96 * 96
    height = width // 3 * 2
    marked = [
        is_annotated(picture, at(498, 150, size=(width, height), left=left, top=top))
        for top in (MARGIN, 2 * MARGIN + 24 + height)
        for left in (MARGIN + number * (width + MARGIN) for number in range(3))
    ]
    assert marked == [False, False, True, False, False, False]  # 0, 1, 2, 2.5, 3.5, 4.5 s: the mask's edge


def test_boxes_by_second(answers, video):
    """The sheet has the frames of those seconds, each with its own box."""
    boxes = {second: [100 * second, 200, 100 * second + 300, 600] for second in (1, 2, 3, 4)}
    written = ", ".join(f'"{second}": {box}' for second, box in boxes.items())
    status, out, picture = answers(said(f'{{"boxes": {{{written}}}}}'), video, "--task", "tracking")
    assert status == 0
    assert (
        "box at 2 s    [19, 13, 48, 38] of 96 x 64 pixels, [200, 200, 500, 600] of 1000" in out.splitlines()
    )
    for column, (second, box) in enumerate(boxes.items()):
        cell = {"size": (288, 192), "left": MARGIN + column * (288 + MARGIN)}
        assert abs(int(picture[at(20, 950, **cell)][0]) - brightness(4 * second)) < 3
        assert all(is_annotated(picture, at(x, y, **cell)) for x, y in (box[:2], box[2:]))
    assert picture.shape[1] == 4 * (288 + MARGIN) + MARGIN


@pytest.mark.parametrize("task", ["temporal grounding", "spatial-temporal grounding"])
def test_a_span(answers, video, task):
    boxes = ', "boxes": {"2": [0, 0, 500, 500]}' if task.startswith("spatial") else ""
    status, out, picture = answers(said(f'{{"time": [1.5, 3.0]{boxes}}}'), video, "--task", task)
    assert status == 0
    assert "time          1.5 to 3 s of 5.0 s" in out.splitlines()
    reach = picture.shape[1] - 2 * MARGIN - 40
    marked = (picture[-120:] == PREDICTED).all(-1)
    columns = np.flatnonzero(marked[marked.sum(1).argmax()])
    assert columns[0] == pytest.approx(MARGIN + 6 + 1.5 / 5 * reach, abs=2)
    assert columns[-1] == pytest.approx(MARGIN + 6 + 3.0 / 5 * reach, abs=2)


def test_a_text_on_a_video_shows_frames_of_all_of_it(answers, video):
    _, _, picture = answers(said("It walks."), video)
    width, height = 384, 256
    cells = [
        picture[top : top + height, left : left + width]
        for top in (MARGIN, 2 * MARGIN + 24 + height)
        for left in (MARGIN + number * (width + MARGIN) for number in range(3))
    ]
    assert frame_numbers(np.stack(cells)) == [0, 4, 8, 10, 14, 18]


@pytest.mark.parametrize(
    "response",
    [
        said('{"time": [5, 1e14]}'),
        said('{"time": [4, 1]}'),
        said('{"time": [-3, -1]}'),
        said('{"time": [1]}'),
        said(""),
        "<answer>\x1b[31m</answer>",
        "",
        "word " * 5000,
        "x" * 5000,
        "新" * 300,
    ],
)
def test_any_response_is_shown(answers, video, response):
    status, out, picture = answers(response, video, "--task", "temporal grounding")
    assert status == 0
    assert "\x1b" not in out
    assert len(picture) < 2000


def test_what_does_not_parse_is_said(answers, image):
    _, out, picture = answers(said("on the left"), image, "--task", "spatial grounding")
    lines = out.splitlines()
    assert lines[lines.index("Answer") + 1] == "on the left"
    assert "warning: the answer cannot be read as an answer to spatial grounding (image)" in lines
    assert (picture == PREDICTED).all(-1).any()  # the caption's stripe: the text is in the picture


def test_missing_tags_and_length(answers, image):
    _, out, _ = answers("<think>I look and look", image, reason="length")
    lines = out.splitlines()
    assert lines[:2] == ["Response", "<think>I look and look"]
    assert "warning: the response has no <think>…</think>" in lines
    assert "warning: the response has no <answer>…</answer>" in lines
    assert "warning: cut off after --max-new-tokens 4096" in lines
    _, out, _ = answers(said("a star"), image, "--raw")
    assert out.startswith(f"Response\n{said('a star')}\n")


def test_captions_fit():
    font = load_font(18)
    lines = wrapped("a bb ccc " * 40 + "d" * 400, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == "abbccc" * 40 + "d" * 400
