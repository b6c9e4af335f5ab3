"""The demo: what it prints and draws of hand-made responses of every task, its errors, and a model's own answers."""

import contextlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax import assistant
from onethinker_jax.assistant import Assistant, Response
from onethinker_jax.data_pipeline.drawing.answer_picture import LARGEST, LEAST_WIDTH, MARGIN, _font, _wrapped
from onethinker_jax.data_pipeline.drawing.draw import PREDICTED
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.demo import session
from onethinker_jax.demo.arguments import Arguments
from onethinker_jax.model.generation.continuous_batching import EndReason
from onethinker_jax.sampler_settings import padded
from tests.data_pipeline.making import brightness, frame_numbers, write_image, write_video
from tests.places import ROOT
from tests.tiny_model import write_model
from tests.waiting import HANG_S

POINTS = (
    '"positive_points": [[500, 500], [300, 500], [700, 500]], '
    '"negative_points": [[100, 100], [900, 100], [100, 900]]'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A Hugging Face directory of a fresh, very small model."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def image(tmp_path) -> Path:
    return write_image(tmp_path / "street.png", 64, 96)


@pytest.fixture
def video(tmp_path) -> Path:
    """Five seconds; the frame of second s has the brightness of number 4 s."""
    return write_video(tmp_path / "walk.mp4", [number / 4 for number in range(20)])


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


def said(answer: str) -> str:
    return f"<think>I look at it.</think>\n<answer>{answer}</answer>"


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


# ---------------------------------------------------------------- drawing and printing, task by task


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
    font = _font(18)
    lines = _wrapped("a bb ccc " * 40 + "d" * 400, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == "abbccc" * 40 + "d" * 400


# ---------------------------------------------------------------- questions about no medium


def test_a_question_alone(model, tmp_path, monkeypatch, capsys):
    """A question may be any text, slashes and letters of any script included; no picture is written."""
    monkeypatch.chdir(tmp_path)
    before, asked = sorted(tmp_path.iterdir()), []

    def respond(asked_of, prompt):
        asked.append((asked_of.processor.tokenizer.decode(prompt.tokens), len(prompt.patches)))
        return Response(said("391"), "stop", 30, 20, 2.0)

    monkeypatch.setattr(Assistant, "respond", respond)
    for question in ("What is 17//2 or ./3?", "三" * 400):
        assert demo.main([str(model), question, "--task", "math"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            *("Reasoning", "I look at it.", "", "Answer", "391", ""),
            "30 tokens after a prompt of 20 in 2.0 s, 15.0 a second; ended by itself",
        ]
        text, patches = asked.pop()
        assert f"user\n{question}\n" in text and patches == 0
    assert sorted(tmp_path.iterdir()) == before


def test_a_picture_of_a_question_alone(model, tmp_path, monkeypatch, capsys):
    """Where one is asked for it holds question and answer."""
    monkeypatch.setattr(Assistant, "respond", lambda *_: Response(said("391"), "stop", 30, 20, 2.0))
    out = tmp_path / "answer.png"
    assert demo.main([str(model), "What is it?", "--out", str(out)]) == 0
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert picture.shape == (3 * MARGIN + 2 * 25, LEAST_WIDTH + 2 * MARGIN, 3)
    assert (picture[MARGIN : MARGIN + 25].min(-1) < 160).any()  # the question
    assert (picture[2 * MARGIN + 25 :] == PREDICTED).all(-1).any()  # the answer's stripe


def test_a_models_own_answer_to_a_question_alone(model, tmp_path, capsys):
    assert demo.main([str(model), "What is this?", "--max-new-tokens", "4"]) == 0
    assert any(
        line.startswith("4 tokens after a prompt of ") for line in capsys.readouterr().out.splitlines()
    )


# ---------------------------------------------------------------- sizes, errors, Ctrl-C


def test_prompts_are_padded_to_few_sizes():
    sizes = {padded(size) for size in range(1, 16_385)}
    assert len(sizes) < 30
    for size in range(1, 16_385):
        assert size <= padded(size) <= max(1.25 * size, size + 127)
        assert padded(size) % 4 == 0


ERRORS = {
    "a video's task": (["IMAGE", "?", "--task", "tracking"], 2, "task 'tracking' needs a video, and "),
    "an image's task": (
        ["VIDEO", "?", "--task", "spatial grounding"],
        2,
        "task 'spatial grounding' needs an image, and ",
    ),
    "an unknown task": (
        ["IMAGE", "?", "--task", "riddle"],
        2,
        "invalid choice 'riddle' for argument '--task'",
    ),
    "no options": (["IMAGE", "?", "--task", "multiple choice"], 2, "needs 2 to 26 options, has 0"),
    "options": (["IMAGE", "?", "--option", "a"], 2, "options are for task 'multiple choice'"),
    "no question": (["IMAGE", "  "], 2, "the question is empty"),
    "a file alone": (["IMAGE"], 2, "street.png is missing"),
    "the name of a file alone": (["gone.mp4"], 2, "the question about gone.mp4 is missing"),
    "no question, no medium": ([""], 2, "the question is empty"),
    "OCR of nothing": (
        ["What?", "--task", "OCR"],
        2,
        "task 'OCR' needs an image or a video, and there is none",
    ),
    "tracking of nothing": (
        ["What?", "--task", "tracking"],
        2,
        "task 'tracking' needs a video, and there is none",
    ),
    "a placeholder of nothing": (["<image>?"], 1, "for 0 image files"),
    "temperature": (["IMAGE", "?", "--temperature", "-1"], 2, "temperature -1.0 must not be negative"),
    "frames": (["IMAGE", "?", "--video-fps", "0"], 2, "video_fps 0.0"),
    "picture": (["IMAGE", "?", "--out", "answer.docx"], 2, "--out answer.docx: not the name of a picture"),
    "an address": (
        ["https://example.com/a.jpg", "What is it?"],
        2,
        "https://example.com/a.jpg: is an address, and nothing is fetched; download it and name the file",
    ),
    "an address alone": (["https://example.com/a.jpg"], 2, "a.jpg: is an address, and nothing is fetched"),
    "two media of a box": (
        ["IMAGE", "IMAGE", "?", "--task", "spatial grounding"],
        2,
        "task 'spatial grounding' is about one medium, and there are 2",
    ),
    "too few placeholders": (["IMAGE", "IMAGE", "<image>?"], 1, "for 2 image files"),
    "an older picture": (["IMAGE", "?", "--out", "TEXT.png"], 2, "is there already; --overwrite replaces it"),
    "chat and a question": (["IMAGE", "?", "--chat"], 2, "--chat reads its questions from standard input"),
    "chat and a picture": (["--chat", "--out", "a.png"], 2, "--out names one picture"),
    "half a character": (["IMAGE", "caf\udce9"], 2, "the question is not UTF-8 text"),
    "folder": (["IMAGE", "?", "--out", "none/a.png"], 2, "--out none/a.png: there is no folder none"),
    "medium": (["IMAGE", "?", "--out", "IMAGE"], 2, "is the medium itself"),
    "no file": (["none.png", "?"], 1, "none.png: no such file"),
    "no medium": (["TEXT", "?"], 1, "neither an image nor a video that can be read"),
    "another's placeholder": (["IMAGE", "<video>?"], 1, "0 <image> for 1 image files"),
    "prompts": (["IMAGE", "?", "--prompt-file", "none.json"], 1, "none.json: cannot be read as prompts"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, model, image, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("not a picture\n" * 20)
    names = {"IMAGE": str(image), "VIDEO": str(video), "TEXT": str(tmp_path / "notes.txt")}
    names["TEXT.png"] = str(write_image(tmp_path / "older.png", 8, 8))
    arguments, status, message = ERRORS[case]
    before = sorted(tmp_path.iterdir())
    assert demo.main([str(model), *(names.get(one, one) for one in arguments)]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(tmp_path.iterdir()) == before


def test_no_model(image, tmp_path, capsys):
    assert demo.main([str(tmp_path / "none"), str(image), "?"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'}: no such directory")


def test_ctrl_c(model, image, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Assistant, "respond", interrupted)
    assert demo.main([str(model), str(image), "?"]) == 130
    assert capsys.readouterr() == ("", "stopped\n")


# ---------------------------------------------------------------- several media, pictures that stay, speeds


def heard(monkeypatch: pytest.MonkeyPatch, response: str = "", seconds: float = 2.0) -> list[tuple[str, int]]:
    """(Prompt with its media as pads, patches) of every question that a model would be asked."""
    asked = []

    def respond(asked_of, prompt):
        asked.append(
            (
                asked_of.processor.tokenizer.decode(prompt.tokens, skip_special_tokens=False),
                len(prompt.patches),
            )
        )
        return Response(response or said("a star"), "stop", 30, 20, seconds)

    monkeypatch.setattr(Assistant, "respond", respond)
    return asked


def test_several_media_in_the_order_of_their_placeholders(model, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = heard(monkeypatch)
    small, large = write_image(tmp_path / "small.png", 32, 64), write_image(tmp_path / "large.png", 64, 64)
    pads = "<|vision_start|>" + "<|image_pad|>" * 2 + "<|vision_end|>", "<|image_pad|>" * 4 + "<|vision_end|>"
    question = "Is <image> older than <image> ?"
    assert demo.main([str(model), str(small), str(large), question]) == 0
    text, patches = asked.pop()
    assert f"Is {pads[0]} older than <|vision_start|>{pads[1]} ?" in text and patches == 8 + 16
    assert demo.main([str(model), str(large), str(small), "Which is older?"]) == 0
    text, _ = asked.pop()
    assert f"{pads[1]}{pads[0]}Which is older?" in text  # in front, as given
    assert demo.main([str(model), str(small), str(video), "Is <image> in <video> ?"]) == 0
    text, _ = asked.pop()
    assert f"Is {pads[0]} in " in text and "<|video_pad|>" in text.partition(" in ")[2]
    assert "picture: small_answer_2.png" in capsys.readouterr().out


def test_pictures_of_two_images_show_both(model, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heard(monkeypatch)
    assert demo.main([str(model), str(image), "What?", "--out", "one.png"]) == 0
    assert demo.main([str(model), str(image), str(image), "What?", "--out", "two.png"]) == 0
    heights = [Image.open(f"{name}.png").height for name in ("one", "two")]
    assert heights[1] - heights[0] == 384 + MARGIN


def test_an_older_picture_stays(model, image, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    heard(monkeypatch)
    (tmp_path / "street_answer.png").write_bytes(b"mine")
    for name in ("street_answer_2.png", "street_answer_3.png"):
        assert demo.main([str(model), str(image), "What?"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"picture: {name}"
        assert Image.open(name).width > 500
    assert (tmp_path / "street_answer.png").read_bytes() == b"mine"
    assert demo.main([str(model), str(image), "What?", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "picture: street_answer.png"
    assert Image.open("street_answer.png").width > 500


def test_a_medium_is_never_overwritten(model, tmp_path, monkeypatch, capsys):
    """Not even where its own name is that of the picture of another."""
    monkeypatch.chdir(tmp_path)
    heard(monkeypatch)
    first, second = write_image(tmp_path / "a.png", 32, 64), write_image(tmp_path / "a_answer.png", 32, 64)
    before = second.read_bytes()
    assert demo.main([str(model), str(first), str(second), "What?", "--overwrite"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1] == "picture: a_answer_2.png"
        and second.read_bytes() == before
    )


def test_no_speed_is_told_of_no_time(model, monkeypatch, capsys):
    heard(monkeypatch, seconds=0.004)
    assert demo.main([str(model), "What?"]) == 0
    assert "30 tokens after a prompt of 20 in less than 0.1 s; ended by itself" in capsys.readouterr().out


# ---------------------------------------------------------------- questions to a model that stays loaded


def test_chat(model, image, tmp_path, monkeypatch, capsys):
    """Questions and what they are about, line by line; an error is one line, and the next question is asked."""
    monkeypatch.chdir(tmp_path)
    asked = heard(monkeypatch, said("B"))
    loads = []
    monkeypatch.setattr(Arguments, "load", lambda *_: (loads.append(1), None))
    lines = [
        "What is 2 + 2?",
        "",
        f"/media '{image}'",
        "What is this?",
        "/task multiple choce",
        "/task multiple choice",
        "/option one",
        "/option two",
        "Which?",
        "/media https://example.com/a.jpg",
        "/medai x",
        "/media gone.png",
        "And this?",
        "/media",
        "/task math",
        "//2 is what of 2?",
        "caf\udce9",
        "/quit",
        "never asked",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert demo.main([str(model), "--chat"]) == 0
    out, err = capsys.readouterr()
    assert loads == [1]
    assert [patches > 0 for _, patches in asked] == [False, True, True, False]
    assert [
        question in text
        for (text, _), question in zip(asked, ["2 + 2", "this", "A. one", "/2 is"], strict=True)
    ]
    assert "//2" not in asked[-1][0]
    assert out.splitlines().count("Reasoning") == 4 and "B. two" in out.splitlines()
    assert [line for line in out.splitlines() if line.startswith("picture: ")] == [
        "picture: street_answer.png",
        "picture: street_answer_2.png",
    ]
    errors = err.splitlines()
    assert [line.partition(": ")[0] for line in errors] == ["error"] * 5
    for line, said_of_it in zip(
        errors,
        [
            "did you mean 'multiple choice'",
            "is an address",
            "did you mean '/media'",
            "gone.png: no such",
            "UTF-8",
        ],
        strict=True,
    ):
        assert said_of_it in line


def test_chat_ends_with_its_input_or_ctrl_c(model, monkeypatch, capsys):
    monkeypatch.setattr(Arguments, "load", lambda *_: (None, None))
    heard(monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO("What?"))
    assert demo.main([str(model), "--chat"]) == 0
    assert "a star" in capsys.readouterr().out

    class Interrupted(io.StringIO):
        def readline(self, size: int = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert demo.main([str(model), "--chat"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_chat_of_a_model_asks_it_twice(model, image, tmp_path, monkeypatch, capsys):
    """The same question has the same answer, and is compiled once."""
    monkeypatch.chdir(tmp_path)
    made = []
    sampler = assistant.Sampler
    monkeypatch.setattr(assistant, "Sampler", lambda *args, **more: made.append(1) or sampler(*args, **more))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"/media {image}\nWhat is it?\nWhat is it?\n"))
    assert demo.main([str(model), "--chat", "--max-new-tokens", "4"]) == 0
    first, _, second = capsys.readouterr().out.partition("Response\n")[2].partition("Response\n")
    assert first.splitlines()[0] == second.splitlines()[0] and made == [1]


# ---------------------------------------------------------------- a model's own answers


def test_a_video(model, video, tmp_path, capsys):
    out = tmp_path / "answer.jpg"
    flags = ["--max-new-tokens", "8", "--video-max-frames", "4", "--out", str(out)]
    assert demo.main([str(model), str(video), "What is this?", *flags]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Response\n")  # a fresh model writes no tags
    assert "warning: cut off after --max-new-tokens 8" in printed.splitlines()
    assert any(line.startswith("8 tokens after a prompt of ") for line in printed.splitlines())
    assert printed.endswith(f"picture: {out}\n")
    assert Image.open(out).width > 500


def test_an_image_in_a_process_without_torch(model, image, tmp_path):
    code = (
        "import sys; from onethinker_jax.demo import __main__ as demo; status = demo.main(sys.argv[1:]); "
        "print({'torch', 'transformers'} & set(sys.modules), status)"
    )
    arguments = [str(model), str(image), "What is this?", "--max-new-tokens", "4"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=HANG_S,
        check=False,
    )
    assert result.stdout.endswith("picture: street_answer.png\nset() 0\n"), result.stderr
    assert Image.open(tmp_path / "street_answer.png").width > 500
