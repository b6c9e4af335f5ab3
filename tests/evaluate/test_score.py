"""`python -m onethinker_jax.evaluate.score`: from files to metrics.json, by hand; bad input; speed."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.benchmarks.task_metrics import METRICS
from onethinker_jax.evaluate.metrics import table
from onethinker_jax.evaluate.metrics.shares import FORMS
from onethinker_jax.rewards.metrics import encode_rle
from onethinker_jax.tasks import TASKS
from tests.data_pipeline.sources.making import mmmu
from tests.evaluate.metrics.problems import answer, answered, row
from tests.waiting import HANG_S

TUBE = '{"time": [1, 3], "boxes": {"1": [0, 0, 9, 9], "2": [0, 0, 9, 9]}}'
OPTIONS = ["A. red", "B. blue"]


def rectangle(width: int) -> dict[str, Any]:
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5 : 5 + width] = True
    return encode_rle(mask)


class Folder:
    """Where a benchmark file and predictions are, and how they are scored."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]):
        self.path, self._capsys = path, capsys

    def benchmark(self, rows: list[dict[str, Any]], name: str = "eval_mine") -> Path:
        file = self.path / f"{name}.json"
        file.write_text(json.dumps([{**one, "problem_id": i} for i, one in enumerate(rows, 1)]))
        return file

    def predictions(self, lines: list[dict[str, Any]], name: str = "predictions") -> Path:
        file = self.path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    def score(self, *words: str | Path) -> dict[str, Any]:
        assert self.run(*words) == (0, "")
        return json.loads((self.path / "out" / "metrics.json").read_text())

    def run(self, *words: str | Path) -> tuple[int, str]:
        """The exit status, and the error line."""
        status = score.main([*map(str, words), "--out", str(self.path / "out")])
        self.printed, said = self._capsys.readouterr()
        return status, said if said.startswith("error") else ""


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


def choices(truths: str) -> list[dict[str, Any]]:
    return [row("multiple choice", truth, options=OPTIONS) for truth in truths]


def lines(*texts: str) -> list[dict[str, Any]]:
    return [{"problem_id": i, "response": answered(text)} for i, text in enumerate(texts, 1)]


def test_every_tasks_metrics_are_measured() -> None:
    """The table of benchmarks and what measures answers name the same metrics."""
    truths = {
        "multiple choice": "A",
        "numerical": "1",
        "regression": "1",
        "math": "1",
        "OCR": "a",
        "open-ended": "a",
        "temporal grounding": '{"time": [0, 1]}',
        "spatial-temporal grounding": TUBE,
        "spatial grounding": '{"boxes": [0, 0, 9, 9]}',
        "tracking": '{"boxes": {"1": [0, 0, 9, 9]}}',
        "segmentation": "",
    }
    for task in TASKS:
        fields: dict[str, Any] = {"options": OPTIONS} if task.problem_type == "multiple choice" else {}
        if task.problem_type == "segmentation":
            rles = {"0": rectangle(3)} if task.medium == "video" else rectangle(3)
            fields = {"segmentation_output": {"segmentation_rle": rles}, "fps": 1}
        if task.medium == "text":
            fields["path"] = None
        one = answer(task.problem_type, truths[task.problem_type], "x", data_type=task.medium, **fields)
        (measured,) = table.measure([one])
        assert set(METRICS[task]) <= set(measured), task


def test_choices(folder: Folder) -> None:
    """Four right of five by the first letter, three by the rule of options; the shape of all three files."""
    benchmark = folder.benchmark(choices("ABABA"))
    found = folder.score(folder.predictions(lines("A", "b", "A", "blue", "A")), benchmark)
    accuracy = found.pop("eval_mine").pop("accuracy")
    assert found == {}
    low, high = accuracy.pop("low"), accuracy.pop("high")
    assert accuracy == {"released": 1.0, "standard": 0.8, "n": 5, "failed": 0}
    assert 0 <= low < 0.8 < high <= 1
    results = json.loads((folder.path / "out" / "results.json").read_text())
    mine = results["benchmarks"]["eval_mine"]
    assert mine["extraction"] == {"rule": 0.8, "judge": 0.0, "unread": 0.2}
    assert mine["groups"]["task"]["multiple choice (image)"]["accuracy"]["standard"] == 0.8
    assert mine["rows"] == 5 and mine["files"][0]["path"] == str(benchmark) and mine["left_out"] == {}
    assert results["settings"]["seed"] == 0 and results["versions"]["jiwer"]
    scored = [json.loads(line) for line in (folder.path / "out" / "scored.jsonl").open()]
    assert [line["extracted"] for line in scored] == ["A", None, "A", "B", "A"]
    assert scored[1]["values"] == {"accuracy": {"released": 1.0, "standard": 0.0}}
    assert scored[1]["decided_by"] == "unread" and scored[0]["answer"] == "A"
    assert "accuracy    1.0000    0.8000" in folder.printed


def test_missing_and_failed_answers_are_counted_apart(folder: Folder) -> None:
    benchmark = folder.benchmark(choices("AAAA"))
    some = [*lines("A", "B"), {"problem_id": 3, "response": "", "failed": "timed out"}]
    found = folder.score(folder.predictions(some), benchmark)["eval_mine"]["accuracy"]
    assert (found["released"], found["standard"], found["n"], found["failed"]) == (0.5, 0.5, 2, 2)
    mine = json.loads((folder.path / "out" / "results.json").read_text())["benchmarks"]["eval_mine"]
    assert mine["left_out"] == {"failed: timed out": 1, "no prediction": 1}
    scored = [json.loads(line) for line in (folder.path / "out" / "scored.jsonl").open()]
    assert [line["failed"] for line in scored] == [None, None, "timed out", "no prediction"]


def test_nothing_scored_is_null(folder: Folder) -> None:
    only = [{"problem_id": 1, "failed": "timed out"}]
    found = folder.score(folder.predictions(only), folder.benchmark(choices("A")))["eval_mine"]["accuracy"]
    nothing = dict.fromkeys(("released", "standard", "low", "high"))
    assert found == {**nothing, "n": 0, "failed": 1}


def test_every_structured_task(folder: Folder) -> None:
    square = {"segmentation_rle": rectangle(10)}
    film = {"segmentation_rle": {"0": rectangle(10)}, "frames": ["0", "1"]}
    benchmark = folder.benchmark(
        [
            row("temporal grounding", '{"time": [0, 10]}'),
            row("spatial grounding", '{"boxes": [0, 0, 100, 100]}'),
            row("spatial-temporal grounding", TUBE),
            row("tracking", '{"boxes": {"1": [0, 0, 9, 9], "2": [0, 0, 9, 9]}}'),
            row("segmentation", "", data_type="image", segmentation_output=square),
            row("segmentation", "", data_type="video", segmentation_output=film, fps=2),
        ]
    )
    given = lines(
        '{"time": [0, 6]}', '{"boxes": [0, 0, 100, 40]}', TUBE, '{"boxes": {"2": [0, 0, 9, 9]}}', "x", "x"
    )  # fmt: skip
    given[4]["masks"], given[5]["masks"] = rectangle(5), {"0": rectangle(5), "1": rectangle(5)}
    found = folder.score(folder.predictions(given), benchmark)["eval_mine"]
    forms = {metric: (total["released"], total["standard"]) for metric, total in found.items()}
    assert forms["mIoU"] == (0.5, 0.5) and forms["R@0.5"] == (2 / 3, 0.5)  # a track has no standard one
    assert forms["tIoU"] == (1.0, 1.0) and forms["sIoU"] == (1.0, None) and forms["vIoU"] == (None, 1.0)
    assert forms["AO"] == (0.5, 1.0) and forms["SR@0.5"] == (1.0, 1.0) and forms["SR@0.75"] == (0.0, 1.0)
    assert forms["cIoU"] == forms["gIoU"] == (0.5, 0.5)
    assert forms["J"] == (0.5, 0.25)
    for total in found.values():
        assert set(total) == {*FORMS, "low", "high", "n", "failed"}
        assert all(total[form] is None or 0 <= total[form] <= 1 for form in FORMS)


def test_answers_that_prompt_no_mask(folder: Folder) -> None:
    image = row(
        "segmentation", "", data_type="image", segmentation_output={"segmentation_rle": rectangle(10)}
    )
    given = lines("x", "no idea")
    given[0]["masks"] = rectangle(5)
    benchmark = folder.benchmark([image, image])
    found = folder.score(folder.predictions(given), benchmark)["eval_mine"]
    assert (found["gIoU"]["released"], found["gIoU"]["standard"], found["gIoU"]["n"]) == (0.5, 0.25, 2)
    mine = json.loads((folder.path / "out" / "results.json").read_text())["benchmarks"]["eval_mine"]
    assert mine["left_out"] == {"no prompt: left out of the released form": 1}


def prompting() -> tuple[dict[str, Any], str]:
    """A row with a true mask on a picture that may be there, and an answer that prompts one."""
    image = row(
        "segmentation", "", data_type="image", segmentation_output={"segmentation_rle": rectangle(10)}
    )
    points = '"positive_points": [[300, 500], [350, 500], [400, 500]], "negative_points": [[9, 9], [900, 9], [9, 900]]'
    return image, f'{{"boxes": [100, 200, 600, 800], {points}}}'


def test_masks_that_nobody_can_make(folder: Folder) -> None:
    image, prompt = prompting()
    predictions = folder.predictions(lines("x", prompt, prompt))
    status, said = folder.run(predictions, folder.benchmark([image] * 3))
    gone = folder.path / "gone.png"
    what = f"masks is missing, and {gone}, on which it could be made, is not there; so are those of 1 other lines"
    assert (status, said) == (1, f"error: {predictions}: line 2: problem_id 2: {what}\n")


def test_masks_that_the_reward_service_makes(folder: Folder) -> None:
    """A bright rectangle on dark ground, of which one answer's mask is made, and another's is brought."""
    image, prompt = prompting()
    pixels = np.full((20, 30, 3), 20, np.uint8)
    pixels[5:15, 5:15] = 240
    Image.fromarray(pixels).save(folder.path / "gone.png")
    given = lines(prompt, prompt)
    given[1]["masks"] = rectangle(5)
    found = folder.score(folder.predictions(given), folder.benchmark([image] * 2))["eval_mine"]
    assert found["gIoU"]["standard"] == pytest.approx((1.0 + 0.5) / 2, abs=0.1)


def test_several_samples(folder: Folder) -> None:
    """Of four samples two are right, and none; the majority is right once, wrong once."""
    benchmark = folder.benchmark(choices("AB"))
    given = [
        {"problem_id": one, "response": answered(text), "sample": number}
        for one, texts in ((1, "ABAB"), (2, "AAAA"))
        for number, text in enumerate(texts)
    ]
    found = folder.score(folder.predictions(given), benchmark)["eval_mine"]
    assert found["accuracy"]["standard"] == found["pass@1"]["standard"] == 0.25
    assert found["pass@2"]["standard"] == pytest.approx((1 - 1 / 6) / 2)
    assert found["pass@4"] == found["pass@k"] and found["pass@k"]["released"] == 0.5
    assert found["majority"]["standard"] == 0.5  # two A and two B: the first seen
    assert found["accuracy"]["n"] == 2
    mine = json.loads((folder.path / "out" / "results.json").read_text())["benchmarks"]["eval_mine"]
    spread = mine["samples"]["standard"]["accuracy"]
    assert spread["mean"] == 0.25 and spread["deviation"] == pytest.approx(np.std([0.5, 0, 0.5, 0], ddof=1))
    assert len((folder.path / "out" / "scored.jsonl").read_text().splitlines()) == 8


def test_a_failed_sample_is_no_wrong_one(folder: Folder) -> None:
    given = [*lines("A", "B"), *lines("A", "B")]
    given[3] = {"problem_id": 2, "failed": "timed out"}
    found = folder.score(folder.predictions(given), folder.benchmark(choices("AB")))["eval_mine"]
    assert found["accuracy"]["standard"] == 1.0 and found["accuracy"]["failed"] == 0
    assert found["pass@2"] == {"released": 1.0, "standard": 1.0, "low": 1.0, "high": 1.0, "n": 1, "failed": 1}


def test_several_benchmarks_in_one_file_and_in_folders(folder: Folder) -> None:
    one, two = folder.benchmark(choices("A"), "one"), folder.benchmark(choices("AB"), "two")
    both = [{**line, "benchmark": name} for name in ("one", "two") for line in lines("A", "B")]
    del both[1]
    found = folder.score(folder.predictions(both), one, two)
    assert {name: metrics["accuracy"]["n"] for name, metrics in found.items()} == {"one": 1, "two": 2}
    for name in ("one", "two"):
        (folder.path / "run" / name).mkdir(parents=True)
    folder.predictions(lines("B"), "run/one/predictions")
    folder.predictions(lines("A", "B"), "run/two/predictions")
    found = folder.score(folder.path / "run", one, two)
    assert [metrics["accuracy"]["standard"] for metrics in found.values()] == [0.0, 1.0]
    assert folder.run(folder.path / "run", one, one)[1] == "error: one: is named twice\n"


def test_a_file_of_several_splits_may_be_answered_as_a_whole(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """MMMU: one of three validation rows is right, the dev row is no part of it; a row of no split is an error."""
    mmmu(folder.path / "MMMU_DEV_VAL.tsv")
    ids = ["dev_Art_1", "validation_Math_2", "validation_Math_3", "validation_Physics_4"]
    said = [{"problem_id": one, "response": answered("B")} for one in ids]
    name = ("MMMU_DEV_VAL", "--data", folder.path)
    (found,) = folder.score(folder.predictions(said), *name).values()
    assert (found["accuracy"]["standard"], found["accuracy"]["n"]) == (pytest.approx(1 / 3), 3)
    assert "MMMU_DEV_VAL: 1 lines are of rows that are not of validation, and are left out" in caplog.text
    benchmark = folder.benchmark(choices("B"))
    named = [{**said[0], "benchmark": "MMMU_DEV_VAL"}, *said[1:], *lines("B")]
    found = folder.score(folder.predictions(named), benchmark, *name)
    assert {one: metrics["accuracy"]["n"] for one, metrics in found.items()} == {
        "eval_mine": 1,
        "MMMU_DEV_VAL": 3,
    }
    status, error = folder.run(folder.predictions([*said, {**said[0], "problem_id": "dev_Art_9"}]), *name)
    assert status == 1
    assert error.endswith("line 5: problem_id dev_Art_9: no such problem in MMMU_DEV_VAL\n")


@pytest.mark.parametrize(
    "words",
    [
        *([], ["p.jsonl"], ["p.jsonl", "b.json", "--sed", "1"]),
        *(["p.jsonl", "b.json", "--seed", "-1"], ["p.jsonl", "b.json", "--out", __file__]),
    ],
)
def test_command_lines_that_cannot_be_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_errors_are_one_line_and_write_nothing(folder: Folder) -> None:
    benchmark = folder.benchmark(choices("AB"))
    predictions = folder.predictions([*lines("A"), {"problem_id": 9, "response": "A"}])
    assert folder.run(predictions, benchmark) == (
        1,
        f"error: {predictions}: line 2: problem_id 9: no such problem in eval_mine\n",
    )
    assert not (folder.path / "out").exists()
    for words, said in (
        ((folder.path / "gone.jsonl", benchmark), "gone.jsonl"),
        ((predictions, folder.path / "gone.json"), "no such file"),
        ((predictions, "charades"), "--data"),
        ((predictions, "charade"), "did you mean"),
    ):
        status, line = folder.run(*words)
        assert status == 1 and said in line and line.count("\n") == 1
    broken = folder.benchmark([row("multiple choice", "C", options=OPTIONS)], "broken")
    status, line = folder.run(predictions, broken)
    assert status == 1 and f"{broken}: record 1 (problem_id 1): solution: multiple choice needs one" in line


def test_the_command_imports_no_jax_and_runs_from_the_shell(folder: Folder) -> None:
    benchmark, predictions = folder.benchmark(choices("A")), folder.predictions(lines("A"))
    code = (
        "import sys; from onethinker_jax.evaluate import score\n"
        f"status = score.main([{str(predictions)!r}, {str(benchmark)!r}, '--out', {str(folder.path / 'o')!r}])\n"
        "print(status, sorted({'jax', 'flax', 'torch', 'orbax'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S)
    assert result.stdout.splitlines()[-1] == "0 []", result.stderr


def test_how_far_it_is(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(score, "LINE_SECONDS", 0.0)
    folder.score(folder.predictions(lines("A", "B")), folder.benchmark(choices("AB")))
    assert "eval_mine: 1 of 2 answers are scored" in caplog.text


def test_ten_thousand_answers_take_seconds(folder: Folder) -> None:
    spans = [row("temporal grounding", f'{{"time": [{i % 7}, {i % 7 + 5}]}}') for i in range(10_000)]
    given = lines(*(f'{{"time": [{i % 5}, {i % 5 + 3 + i / 10_000}]}}' for i in range(10_000)))
    benchmark, predictions = folder.benchmark(spans), folder.predictions(given)
    before = time.process_time()
    found = folder.score(predictions, benchmark)["eval_mine"]
    assert time.process_time() - before < 20
    assert found["mIoU"]["n"] == 10_000
