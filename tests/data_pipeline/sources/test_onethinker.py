"""OneThinker's own files: what the strict reader makes of them, with the facts and groups of a sample."""

import numpy as np
import pytest

from onethinker_jax.data_pipeline.records.record import RecordError
from onethinker_jax.data_pipeline.sources import onethinker
from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.rewards.metrics import encode_rle
from tests.data_pipeline.making import write_image, write_rows, write_video


def choice(**changes) -> dict:
    row = {
        "problem_id": 5,
        "problem": "Which letter?",
        "data_type": "image",
        "problem_type": "multiple choice",
        "options": ["A. one", "B. two"],
        "path": "a.png",
        "solution": "<answer>A</answer>",
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.png", 4, 6)
    return tmp_path


def test_rows_become_samples(folder):
    rows = [
        choice(data_source="mine"),
        choice(problem_id="six", split="test"),
        choice(problem_id=..., split="val"),
    ]
    path = write_rows(folder / "eval.json", rows)
    samples = list(onethinker.read(Source(path)))
    assert [sample.record.problem_id for sample in samples] == [5, "six", 3]
    assert samples[0].groups == {"task": "multiple choice (image)", "source": "mine"}
    assert samples[0].record.images == (folder / "a.png",) and samples[0].facts == {}
    assert [sample.record.problem_id for sample in onethinker.read(Source(path, split="test"))] == [5, "six"]
    assert len(list(onethinker.read(Source(write_rows(folder / "eval.jsonl", rows, lines=True))))) == 3


@pytest.mark.parametrize(
    "written", ["b", "B. two", "(B", "<answer>B) two</answer>", "b: two", "two", "Both", ""]
)
def test_true_choices_with_their_text(folder, written):
    """The released script compares first characters in upper case; a text without a letter is an error still."""
    path = write_rows(folder / "eval.json", [choice(solution=written)])
    if written in ("two", "Both", "", "(B"):
        with pytest.raises(RecordError):
            list(onethinker.read(Source(path)))
    else:
        assert [sample.record.answer for sample in onethinker.read(Source(path))] == ["<answer>B</answer>"]


def test_masks_bring_their_facts(folder):
    write_video(folder / "v.mp4", [0, 0.5, 1.0], size=(64, 96))
    mask = np.zeros((64, 96), bool)
    mask[3:9, 2:7] = True
    row = choice(
        problem_type="segmentation",
        data_type="video",
        path="v.mp4",
        options=[],
        solution="",
        fps=2,
        resolution={"width": 96, "height": 64},
        segmentation_output={"segmentation_rle": {"b": encode_rle(mask)}, "frames": ["a", "b", "c"]},
    )
    (sample,) = onethinker.read(Source(write_rows(folder / "eval.json", [row])))
    assert sample.facts == {"fps": 2.0, "frames": ("a", "b", "c"), "resolution": (96, 64)}
    assert sample.record.segmentation is not None
    assert sample.record.segmentation.frames == (1,)


@pytest.mark.parametrize(
    ("rows", "split", "said"),
    [
        (
            [choice(), choice()],
            "",
            r"eval\.json: record 2 \(problem_id 5\): problem_id: is that of record 1 too",
        ),
        ([choice(solution="C")], "", r"eval\.json: record 1 \(problem_id 5\): solution: .*one letter"),
        ([choice(solution=...)], "", r"record 1 .*solution: is missing|record 1 .*answer: is missing"),
        ([choice(path="b.png")], "", r"record 1 .*path: no such file"),
        ([7], "", r"record 1: must be an object"),
        ([choice(split="val")], "test", r"eval\.json: holds no record of split 'test'"),
    ],
)
def test_a_malformed_file_is_one_line(folder, rows, split, said):
    path = write_rows(folder / "eval.json", rows)
    with pytest.raises(RecordError, match=said) as raised:
        list(onethinker.read(Source(path, split=split)))
    assert "\n" not in str(raised.value)


def test_rows_that_are_only_scored_need_no_media(folder):
    path = write_rows(folder / "eval.json", [choice(path="gone.png")])
    (sample,) = onethinker.read(Source(path, check_media=False))
    assert sample.record.images == (folder / "gone.png",)
