"""Files of predictions: every way in which a line can be wrong is one error that names file, line and problem."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.results.line_masks import masks_of
from onethinker_jax.evaluate.results.lines import Line, PredictionError, Problem, matched, read_lines
from onethinker_jax.rewards.metrics import encode_rle
from tests.evaluate.metrics.problems import sample

SQUARE = encode_rle(np.eye(4, dtype=bool))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.jsonl"


def write(file: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts) + "\n")
    return file


def line(problem_id: int | str, response: str | None = "B", **more: Any) -> dict[str, Any]:
    return {"problem_id": problem_id, "response": response, **more}


def problems(*ids: int | str) -> list[Sample]:
    options = ["A. red", "B. blue"]
    return [sample("multiple choice", "B", problem_id=one, options=options) for one in ids]


def match(file: Path, **benchmarks: list[Sample]) -> dict[str, list[Problem]]:
    return matched(read_lines(file), benchmarks)


def test_lines_come_in_the_order_of_the_benchmark(file: Path) -> None:
    write(file, line(2, "b", tokens=7), line("1", "a"), line(3, "", failed="too long"))
    found = match(file, one=problems(1, 2, 3, 4))["one"]
    assert [[one.response for one in problem.lines] for problem in found] == [["a"], ["b"], [""], []]
    assert found[1].lines[0].tokens == 7
    assert [len(problem.answered) for problem in found] == [1, 1, 0, 0]


def test_failed_may_be_a_truth_value(file: Path) -> None:
    write(file, line(1, failed=False), line(2, None, failed=True), line(3, failed=None))
    (found,) = match(file, one=problems(1, 2, 3)).values()
    assert [len(problem.answered) for problem in found] == [1, 0, 1]
    assert found[1].lines[0].failed == "no reason is given"


def test_a_json_list_is_read_too(file: Path) -> None:
    file.write_text(json.dumps([line(1), line(2)]))
    assert len(read_lines(file)) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('{"problem_id": 1, "respo', "line 2: is not JSON"),
        ("[1]", "line 2: must be an object, is a list"),
        ({"response": "B"}, "line 2: problem_id is missing"),
        (line(""), "line 2: problem_id is missing"),
        (line(1.5), "line 2: problem_id must be a text or a whole number, is 1.5"),  # pyright: ignore
        (line(True), "line 2: problem_id must be a text or a whole number, is True"),
        (line(7, None), "line 2: problem_id 7: response is missing"),
        ({"problem_id": 7}, "line 2: problem_id 7: response is missing"),
        (line(7, ["B"]), "line 2: problem_id 7: response must be a text, is a list"),  # pyright: ignore
        (line(7, failed=3), "line 2: problem_id 7: failed must be a text, is 3"),
        (line(7, sample=-1), "line 2: problem_id 7: sample must be a whole number from 0 on, is -1"),
        (line(7, sample="0"), "line 2: problem_id 7: sample must be a whole number from 0 on, is '0'"),
        (line(7, tokens=1.5), "line 2: problem_id 7: tokens must be a whole number from 0 on, is 1.5"),
        (line(7, benchmark=3), "line 2: problem_id 7: benchmark must be a name, is 3"),
        (line(7), "line 2: problem_id 7: no such problem in one"),
        (line(1, benchmark="one", sample=0), None),
        (line(7, benchmark="one"), "line 2: problem_id 7: one has no such problem"),
    ],
)
def test_what_is_wrong_with_a_line(file: Path, wrong: Any, said: str | None) -> None:
    write(file, line(2), wrong)
    if said is None:
        assert match(file, one=problems(1, 2))
        return
    with pytest.raises(PredictionError) as error:
        match(file, one=problems(1, 2))
    assert str(error.value).startswith(f"{file}: {said}") and "\n" not in str(error.value)


def test_several_wrong_lines_are_one_error(file: Path) -> None:
    write(file, line(1), "{", line(7), *["{"] * 20)
    with pytest.raises(PredictionError, match=r"line 2: .*; 20 more lines are wrong: 4, 5, 6, .* 13 …$"):
        match(file, one=problems(1))


@pytest.mark.parametrize(
    ("content", "said"), [("", "is empty"), ("x", "must be a JSON"), ("[]", "no prediction")]
)
def test_files_without_lines(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=said):
        read_lines(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(file.with_name("gone"))


def test_one_sample_number_twice(file: Path) -> None:
    write(file, line(1, sample=1), line(1, sample=0), line(1, sample=1))
    with pytest.raises(PredictionError, match="line 3: problem_id 1: sample 1 is there already, in line 1"):
        match(file, one=problems(1))


def test_samples_are_in_the_order_of_their_numbers(file: Path) -> None:
    write(file, line(1, "c", sample=2), line(1, "a", sample=0), line(1, "b", sample=1), line(2, sample=5))
    (first, second) = match(file, one=problems(1, 2))["one"]
    assert [one.response for one in first.lines] == ["a", "b", "c"] and len(second.lines) == 1


def test_more_lines_than_other_problems_have(file: Path) -> None:
    write(file, line(1), line(2), line(3), line(2))
    with pytest.raises(PredictionError, match=r"line 4: problem_id 2: has 2 lines \(2, 4\), most problems 1"):
        match(file, one=problems(1, 2, 3))
    write(file, *[line(one) for one in (1, 1, 2, 2, 3)])  # the third lacks a sample
    assert [len(one.lines) for one in match(file, one=problems(1, 2, 3))["one"]] == [2, 2, 1]


def test_several_benchmarks_share_a_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        file,
        *(line("a"), line("b"), line(1, "x", benchmark="two"), line(1, "y", benchmark="eval_one")),
        *(line(9, benchmark="three"), line(8, benchmark="three")),
    )
    with caplog.at_level(logging.WARNING):
        found = match(file, eval_one=problems(1, "a"), two=problems(1, "b"))
    assert [one.lines[0].response for one in found["eval_one"]] == ["y", "B"]
    assert [one.lines[0].response for one in found["two"]] == ["x", "B"]
    assert "2 lines are of three, which is not scored" in caplog.text
    write(file, line(1))
    with pytest.raises(PredictionError, match="problem_id 1: is in eval_one and two: the line must name its"):
        match(file, eval_one=problems(1), two=problems(1))


def masked(given: Any, *, video: bool) -> Any:
    output: dict[str, Any] = {"segmentation_rle": {"0": SQUARE, "2": SQUARE} if video else SQUARE}
    if video:
        output["frames"] = ["0", "1", "2"]
    fields: dict[str, Any] = {"fps": 1} if video else {}
    record = sample(
        "segmentation", "", data_type="video" if video else "image", segmentation_output=output, **fields
    ).record
    assert record.segmentation is not None
    return masks_of(Line(Path("p.jsonl"), 3, "7", "", masks=given), record.segmentation, record.data_type)


def test_masks() -> None:
    assert masked(None, video=False) is None
    assert masked(SQUARE, video=False) == {"": SQUARE}
    empty = {"size": [4, 4], "counts": [16]}
    assert masked({"0": SQUARE, "1": None}, video=True) == {
        "0": SQUARE,
        "1": empty,
    }  # frames that lack are absent


@pytest.mark.parametrize(
    ("given", "video", "said"),
    [
        ([SQUARE], False, "masks must be a COCO RLE, or an object of them, is a list"),
        ("x", True, "masks must be a COCO RLE, or an object of them, is a str"),
        ({"0": SQUARE}, False, "masks: not a COCO RLE: its size is None"),
        (SQUARE, True, "masks is one RLE, a video's must be an object of frame names and RLEs"),
        ({"0": "x"}, True, "masks '0': must be a COCO RLE, is a str"),
        ({"9": SQUARE, "8": SQUARE}, True, "masks: no frame '9' and 1 more (the first is '0')"),
        ({"0": {"size": [4, 4], "counts": "~"}}, True, "masks '0': not a COCO RLE"),
        ({"size": [4, 4], "counts": [7]}, False, "masks: not a COCO RLE: its counts do not add up"),
        (encode_rle(np.eye(5, dtype=bool)), False, "masks: is 5 x 5, the true mask 4 x 4"),
    ],
)
def test_what_is_wrong_with_masks(given: Any, video: bool, said: str) -> None:
    with pytest.raises(PredictionError) as error:
        masked(given, video=video)
    assert str(error.value).startswith(f"p.jsonl: line 3: problem_id 7: {said}")
