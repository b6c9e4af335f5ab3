"""A model asked from Python: media, answers, errors, and that the demo asks the same model."""

import numpy as np
import pytest
from PIL import Image

import onethinker_jax
from onethinker_jax.assistant import Assistant, Response, read_answer
from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.question import media_files, question_record
from onethinker_jax.rewards.answers import StructuredAnswer
from tests.data_pipeline.making import write_image, write_video


@pytest.fixture(scope="module")
def assistant(model) -> Assistant:
    return onethinker_jax.load(model, max_new_tokens=6, video_max_frames=4)


def test_the_same_answer_as_the_demos(assistant, model, tmp_path, monkeypatch, capsys):
    """A path, a PIL image and an array of the same picture get the same answer."""
    monkeypatch.chdir(tmp_path)
    image = write_image(tmp_path / "street.png", 64, 96)
    answer = assistant.answer(image, "What is it?")
    assert (answer.response.tokens, answer.response.reason) == (6, "length") and answer.response.text
    assert demo.main([str(model), str(image), "What is it?", "--max-new-tokens", "6"]) == 0
    assert capsys.readouterr().out.startswith(f"Response\n{answer.response.text.strip()}\n")
    for medium in (str(image), Image.open(image), np.asarray(Image.open(image)), [image]):
        assert assistant.answer(medium, "What is it?").response.text == answer.response.text


def test_media_of_all_kinds(assistant, tmp_path):
    image, video = write_image(tmp_path / "a.png", 64, 96), write_video(tmp_path / "b.mp4", [0.0, 0.5, 1.0])
    sizes = [
        assistant.answer(media, question).response.prompt_tokens
        for media, question in (
            (None, "What?"),
            (image, "What?"),
            ([image, image], "What?"),
            ([image, video], "Is <image> in <video>?"),
        )
    ]
    assert sizes == sorted(set(sizes))


def test_the_seed_decides_the_answer(model):
    assistant = onethinker_jax.load(str(model), max_new_tokens=8, temperature=1.0, seed=3)
    texts = [assistant.answer(None, "What?", seed=seed).response.text for seed in (None, 3, None, 4)]
    assert texts[0] == texts[1] == texts[2] != texts[3]


def test_a_file_in_memory_is_read_as_the_file_is(tmp_path):
    """Turned by EXIF, transparent and grey pictures give the pixels that their files give."""
    from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader

    reader, exif = MediaReader(), Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "transparent.png")
    Image.fromarray(pixels[..., :3].copy()).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels[..., 0].copy()).save(tmp_path / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("transparent.png", "turned.jpg", "grey.png", "deep.png"):
        (file,) = media_files(Image.open(tmp_path / name))
        np.testing.assert_array_equal(
            reader.image(file, None), reader.image(tmp_path / name, None), err_msg=name
        )


@pytest.mark.parametrize(
    ("task", "text", "parsed", "error"),
    [
        ("open-ended", "a star", "a star", None),
        ("open-ended", "", None, "is empty"),
        ("math", "\\frac{1}{2}", "\\frac{1}{2}", None),
        ("numerical", "1,200", 1200.0, None),
        ("numerical", "2\\sqrt{3}", "2\\sqrt{3}", None),
        ("regression", "a dozen", None, "is no number"),
        ("multiple choice", "B", "B. two", None),
        ("multiple choice", "C", None, "names none of the options"),
        ("spatial grounding", '{"boxes": [1, 2, 30, 40]}', StructuredAnswer(box=(1, 2, 30, 40)), None),
        ("spatial grounding", "left", None, "cannot be read as an answer to spatial grounding (image)"),
    ],
)
def test_answers_are_read_by_their_task(tmp_path, task, text, parsed, error):
    options = ("one", "two") if task == "multiple choice" else ()
    image = write_image(tmp_path / "a.png")
    record = question_record("What?", media_files(image), task=task, options=options)
    response = Response(f"<think>I look.</think><answer>{text}</answer>", "stop", 9, 9, 1.0)
    answer = read_answer(response, record)
    assert (answer.reasoning, answer.text, answer.parsed, answer.error) == ("I look.", text, parsed, error)
    assert str(answer) == text and answer.structured == (parsed if task.startswith("spatial") else None)


def test_a_response_without_tags():
    answer = read_answer(Response(" a star ", "length", 9, 9, 1.0), question_record("What?"))
    assert (answer.reasoning, answer.text, answer.parsed, answer.error) == (None, None, None, None)
    assert str(answer) == "a star"


ERRORS = {
    "task": ({"task": "trackin"}, "unknown task 'trackin'; there are: "),
    "medium": ({"media": 7}, "image 1: a medium is a path, a PIL image or an array, not a int"),
    "second medium": ({"media": ["IMAGE", b"x"]}, "image 2: a medium is a path"),
    "floats": ({"media": np.zeros((4, 4, 3))}, "image 1: an array of pixels is uint8 .* not float64"),
    "frames": ({"media": np.zeros((2, 4, 4, 3), np.uint8)}, r"not uint8 \[2, 4, 4, 3\]"),
    "options": ({"options": ("a", "b")}, "options are for task 'multiple choice'"),
    "no options": ({"task": "multiple choice"}, "needs 2 to 26 options, has 0"),
    "question": ({"question": " "}, "the question is empty"),
    "no video": ({"media": None, "task": "tracking"}, "task 'tracking' needs a video, and there is none"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_question_that_cannot_be_asked(assistant, tmp_path, case):
    image = write_image(tmp_path / "a.png")
    given, message = ERRORS[case]
    arguments = {"media": image, "question": "What?", **given}
    if isinstance(arguments["media"], list):
        arguments["media"] = [image, *arguments["media"][1:]]
    with pytest.raises(UsageError, match=message):
        assistant.answer(arguments.pop("media"), arguments.pop("question"), **arguments)


def test_no_file(assistant, tmp_path):
    with pytest.raises(MediaError, match=r"none\.png: no such file"):
        assistant.answer(tmp_path / "none.png", "What?")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_token": 3}, "unknown setting 'max_token'; there are: .*max_new_tokens"),
        ({"temperature": -1.0}, "temperature -1.0 must not be negative"),
        ({"dtype": "float8"}, "dtype 'float8' is not float32 or bfloat16"),
        ({"video_fps": 0}, "video_fps"),
    ],
)
def test_settings_that_cannot_work(model, settings, message):
    with pytest.raises(UsageError, match=message):
        onethinker_jax.load(model, **settings)
