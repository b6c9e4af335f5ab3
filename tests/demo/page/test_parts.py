"""The page's parts without a browser: flags, examples, what a response says while it comes, the film."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.drawing.views import Masks
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import task_of
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.demo.arguments import Arguments
from onethinker_jax.demo.page.arguments import PageArguments
from onethinker_jax.demo.page.examples import OF_A_TASK, examples_of_run, read_examples
from onethinker_jax.demo.page.film import check_media, film_html, view_on_page
from onethinker_jax.demo.page.thinking import Progress, spoken
from onethinker_jax.question import question_record
from onethinker_jax.rewards.answers import StructuredAnswer
from tests.data_pipeline.making import rl_row, write_image, write_rows


def test_serve_chooses_the_flags() -> None:
    page = demo.parse(["model", "--serve", "--port", "0", "--beside", "other", "--prompt-file", "own.json"])
    assert isinstance(page, PageArguments)
    assert [one.model for one in page.models()] == [Path("model"), Path("other")]
    assert {one.of_model().prompt_file for one in page.models()} == {Path("own.json")}
    assert isinstance(demo.parse(["model", "What is 1 + 1?"]), Arguments)
    with pytest.raises(UsageError, match="--beside"):
        demo.parse(["model", "What is it?", "--beside", "other"])
    with pytest.raises(UsageError, match="beyond this machine"):
        demo.parse(["model", "--serve", "--host", "0.0.0.0"])
    with pytest.raises(UsageError, match="of the API"):
        demo.parse(["model", "--serve", "--fetch"])


@pytest.mark.parametrize(
    ("model", "name"), [("runs/shapes/model", "shapes/model"), ("Qwen3-VL-2B", "Qwen3-VL-2B")]
)
def test_models_of_runs_are_named_by_the_run(model: str, name: str) -> None:
    assert PageArguments(model=Path(model)).name == name


def test_prompts_and_answers_fit_the_positions_of_the_model(model: Path, tmp_path: Path) -> None:
    """Three quarters of a prompt's patches are a video's, each of two frames of 16 x 16 pixels."""
    pytest.importorskip("nicegui", reason="the extra web is not installed")
    from onethinker_jax.demo.page.server import fitted

    copy = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 4096
    (copy / "config.json").write_text(json.dumps(config))
    small = fitted(PageArguments(model=copy))
    assert (small.prompt_tokens, small.max_new_tokens, small.prompt_patches) == (3072, 1024, 12288)
    assert small.video_total_pixels == 12288 * 3 // 4 * 512
    shorter = replace(
        small, prompt_tokens=256, prompt_patches=512, max_new_tokens=24, video_total_pixels=9999
    )
    assert fitted(shorter) == shorter


def run_folder(folder: Path, heldout: Path | None) -> Path:
    folder.mkdir()
    data = {"heldout_file": None if heldout is None else str(heldout), "media_root": None}
    (folder / "config.json").write_text(json.dumps({"data": data}))
    return folder / "model"


def test_examples_are_the_held_out_records_of_the_run(tmp_path: Path) -> None:
    model = run_folder(tmp_path / "world", None)
    assert examples_of_run(model) is None
    (tmp_path / "world" / "data").mkdir()
    (tmp_path / "world" / "data" / "eval_shapes.json").write_text("[]")
    (tmp_path / "world" / "data" / "onethinker_sft.json").write_text("[]")
    assert examples_of_run(model) == (tmp_path / "world" / "data" / "eval_shapes.json", None)
    own = tmp_path / "eval.json"
    named = run_folder(tmp_path / "own", own)
    assert examples_of_run(named) is None  # it is gone
    own.write_text("[]")
    assert examples_of_run(named) == (own, None)
    assert examples_of_run(tmp_path / "elsewhere" / "model") is None


def test_examples_are_a_few_of_every_task(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    shared = {"images": ["a.png"], "data_type": "image"}
    rows = [
        rl_row(**shared, problem_id=number, problem_type=kind, problem="<image>How many?", answer=answer)
        for number, (kind, answer) in enumerate(
            [*[("numerical", "<answer>3</answer>")] * 5, *[("open-ended", "<answer>a star</answer>")] * 2]
        )
    ]
    found = [str(task_of(record)) for record in read_examples(write_rows(tmp_path / "rows.json", rows[::-1]))]
    assert OF_A_TASK == 3
    assert found == ["numerical (image)"] * 3 + ["open-ended (image)"] * 2


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("", "", ""),
        ("<think>I lo", "I lo", ""),
        ("I look.</think>", "I look.", ""),  # the template has opened it
        ("<think>I look.</think>\n<answer>a st", "I look.", "a st"),
        ("<think>I look.</think>\n<answer>a star</answer>", "I look.", "a star"),
    ],
)
def test_a_response_is_read_while_it_comes(text: str, reasoning: str, answer: str) -> None:
    assert spoken(text) == (reasoning, answer)


def test_the_rate_is_of_the_tokens_after_the_first_ones() -> None:
    assert Progress("", 44, 3.0, 4, 5.0).rate == 20.0
    assert Progress("", 4, 3.0, 4, 3.0).rate is None


def frames_of(html: str) -> list[tuple[str, bool]]:
    """(its time, whether it shows) of every frame."""
    return [
        (time, not hidden)
        for time, hidden in re.findall(r'<img alt="frame at ([\d.]+) s"[^>]*?( hidden)? src=', html)
    ]


def test_a_film_shows_where_the_answer_begins(video: Path) -> None:
    """The video of five seconds has four frames a second."""
    media, record = MediaReader(), question_record("When?", [video], task="temporal grounding")
    view = view_on_page(record, None, media)
    assert check_media(record, media) == view.frames[0].shape[:2]
    for answer, shown in (
        (None, "0.0"),
        (StructuredAnswer(span=(2.0, 9.0)), "2.0"),
        (StructuredAnswer(boxes={3: (0, 0, 9, 9), 1: (0, 0, 9, 9)}), "1.0"),
        (StructuredAnswer(span=(99.0, 0.0)), "4.8"),
    ):
        frames = frames_of(film_html(view, answer))
        assert len(frames) == 20
        assert [time for time, shows in frames if shows] == [shown]


def test_every_frame_of_a_track_is_another_picture(video: Path) -> None:
    record = question_record("Track it.", [video], task="tracking")
    view = view_on_page(record, None, MediaReader())
    boxes = {second: (0.0, 100.0 * second, 300.0, 100.0 * second + 300) for second in range(6)}
    plain, drawn = (
        re.findall('src="([^"]*)"', film_html(view, one)) for one in (None, StructuredAnswer(boxes=boxes))
    )
    assert all(before != after for before, after in zip(plain, drawn, strict=True))


def test_masks_are_drawn_on_their_frames(image: Path) -> None:
    record = question_record("Segment it.", [image], task="segmentation")
    view = view_on_page(record, None, MediaReader(), masks=True)
    mask = np.zeros((1, 64, 96), bool)
    mask[0, 10:40, 20:70] = True
    assert film_html(view) != film_html(view, None, Masks([0.0], mask))


def test_without_a_medium_there_is_nothing_to_draw() -> None:
    record = question_record("What is 1 + 1?", task="math")
    assert check_media(record, MediaReader()) is None
    assert film_html(view_on_page(record, None, MediaReader())) == ""
