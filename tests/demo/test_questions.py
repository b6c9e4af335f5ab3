"""What the demo asks a model, about no medium or several, and the picture that it leaves."""

import numpy as np
from PIL import Image

from onethinker_jax.assistant import Assistant, Response
from onethinker_jax.data_pipeline.drawing.answer_picture import LEAST_WIDTH, MARGIN
from onethinker_jax.data_pipeline.drawing.draw import PREDICTED
from onethinker_jax.demo import __main__ as demo
from tests.data_pipeline.making import write_image
from tests.demo.hand_made import heard, said


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
