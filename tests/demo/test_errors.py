"""The demo's errors: one line, the exit status, and nothing written."""

import pytest

from onethinker_jax.assistant import Assistant
from onethinker_jax.demo import __main__ as demo
from tests.data_pipeline.making import write_image

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
    "half a character": (
        ["IMAGE", "caf\udce9"],
        2,
        r"the question holds half of a surrogate pair, \udce9, at character 3",
    ),
    "NUL": (["IMAGE", "caf\0"], 2, "the question holds the character NUL at character 3"),
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
