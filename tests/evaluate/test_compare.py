"""`python -m onethinker_jax.evaluate.compare`: against hand computations, the totals of scoring, and bad input."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from onethinker_jax.evaluate import compare, score
from onethinker_jax.evaluate.results.intervals import paired_bootstrap
from onethinker_jax.evaluate.results.kept import read_results
from onethinker_jax.rewards.metrics import encode_rle
from tests.evaluate.metrics.problems import answered, row

OPTIONS = ["A. red", "B. blue"]


def choices(truths: str) -> list[dict[str, Any]]:
    return [row("multiple choice", truth, options=OPTIONS) for truth in truths]


class Runs:
    """A benchmark file, and runs whose answers to it are scored."""

    def __init__(self, path: Path, rows: list[dict[str, Any]]):
        self.path = path
        self.file = self.write(rows)

    def write(self, rows: list[dict[str, Any]]) -> Path:
        file = self.path / "eval_mine.json"
        file.write_text(json.dumps([{**one, "problem_id": i} for i, one in enumerate(rows, 1)]))
        return file

    def score(self, name: str, lines: list[dict[str, Any]]) -> Path:
        predictions = self.path / f"{name}.jsonl"
        predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert score.main([str(predictions), str(self.file), "--out", str(self.path / name)]) == 0
        return self.path / name

    def answers(self, name: str, *texts: str | None) -> Path:
        return self.score(
            name,
            [
                {"problem_id": i, **({"failed": "lost"} if text is None else {"response": answered(text)})}
                for i, text in enumerate(texts, 1)
            ],
        )

    def compared(self, a: Path, b: Path) -> dict[str, Any]:
        assert compare.main([str(a), str(b)]) == 0
        return json.loads((b / "compare.json").read_text())


def test_right_and_wrong_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine of twelve against three, by McNemar: B alone is right seven times, A alone once."""
    runs = Runs(tmp_path, choices("A" * 12))
    a, b = runs.answers("a", *"AAABBBBBBBBB"), runs.answers("b", *"BAAAAAAAAABB")
    found = runs.compared(a, b)["benchmarks"]["eval_mine"]
    accuracy = found["metrics"]["accuracy"]["standard"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"], accuracy["n"]) == (0.25, 0.75, 0.5, 12)
    assert accuracy["test"] == "McNemar"
    assert accuracy["p_value"] == pytest.approx(binomtest(1, 8).pvalue)
    assert 0 < accuracy["low"] < 0.5 < accuracy["high"] <= 1
    assert found["tasks"]["multiple choice (image)"]["accuracy"]["standard"]["difference"] == 0.5
    printed = capsys.readouterr().out
    assert "+0.5000" in printed and "both answered 12 problems" in printed and "\x1b" not in printed


def test_only_problems_that_both_answered_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lacks the fourth answer, B the first; that B has all others right does not count for it."""
    runs = Runs(tmp_path, choices("AAAA"))
    a, b = runs.answers("a", "A", "A", "B", None), runs.answers("b", None, "A", "A", "A")
    found = runs.compared(a, b)["benchmarks"]["eval_mine"]
    assert found["metrics"]["accuracy"]["standard"]["n"] == 2
    assert found["metrics"]["accuracy"]["standard"]["difference"] == 0.5
    assert [found[key] for key in ("both", "answered_only_a", "answered_only_b", "only_a")] == [2, 1, 1, 0]
    assert "both answered 2 problems, 1 answered by A alone, 1 answered by B alone" in capsys.readouterr().out


def test_values_by_paired_bootstrap(tmp_path: Path) -> None:
    """Spans: their mean IoU is compared problem by problem, as the bootstrap of the same IoUs by hand."""
    generator = np.random.default_rng(0)
    ends = generator.integers(2, 10, size=(2, 20)).tolist()
    runs = Runs(tmp_path, [row("temporal grounding", '{"time": [0, 10]}') for _ in range(20)])
    a, b = (
        runs.answers(name, *(json.dumps({"time": [0, end]}) for end in of_run))
        for name, of_run in zip("ab", ends, strict=True)
    )
    miou = runs.compared(a, b)["benchmarks"]["eval_mine"]["metrics"]["mIoU"]["standard"]
    ious = [np.stack([np.array(of_run) / 10, np.ones(20)], axis=1) for of_run in ends]
    expected = paired_bootstrap(ious[0], ious[1])
    assert miou["test"] == "paired bootstrap"
    assert [miou[key] for key in ("difference", "low", "high", "p_value")] == pytest.approx(
        [expected.difference, expected.low, expected.high, expected.p_value]
    )


def test_pooled_metrics_are_sums_over_problems(tmp_path: Path) -> None:
    """cIoU is no mean over images: 10 of 20 and 100 of 100 pixels are 110 of 120."""

    def rectangle(width: int, height: int) -> dict[str, Any]:
        mask = np.zeros((20, 30), bool)
        mask[:height, :width] = True
        return encode_rle(mask)

    true = [rectangle(10, 2), rectangle(10, 10)]
    rows = [
        row("segmentation", "", data_type="image", segmentation_output={"segmentation_rle": rle})
        for rle in true
    ]
    runs = Runs(tmp_path, rows)

    def lines(masks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"problem_id": i, "response": "", "masks": rle} for i, rle in enumerate(masks, 1)]

    a, b = runs.score("a", lines([rectangle(10, 1), true[1]])), runs.score("b", lines(true))
    found = runs.compared(a, b)["benchmarks"]["eval_mine"]["metrics"]
    assert found["cIoU"]["standard"]["a"] == pytest.approx(110 / 120) and found["cIoU"]["standard"]["b"] == 1
    assert found["gIoU"]["standard"]["difference"] == pytest.approx(0.25)


def test_rotations_of_a_question_count_together(tmp_path: Path) -> None:
    """VLMEvalKit's circular rule: two questions of two rotations, one of which B gets wholly right and A never."""
    lines = ["index\tg_index\tquestion\tA\tB\tanswer\timage"]
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")
    content = base64.b64encode(picture.getvalue()).decode()
    lines += [f"{index}\t{index % 10}\tWhich?\tred\tblue\tA\t{content}" for index in (1, 2, 1000001, 1000002)]
    file = tmp_path / "MMBench_DEV_EN.tsv"
    file.write_text("\n".join(lines) + "\n")
    runs = Runs(tmp_path, [])
    runs.file = file

    def of(name: str, right: set[int]) -> Path:
        return runs.score(
            name,
            [
                {"problem_id": i, "response": answered("A" if i in right else "B")}
                for i in (1, 2, 1000001, 1000002)
            ],
        )

    a, b = of("a", {1, 2}), of("b", {1, 2, 1000001})
    accuracy = runs.compared(a, b)["benchmarks"]["MMBench_DEV_EN"]["metrics"]["accuracy"]["standard"]
    assert (accuracy["a"], accuracy["b"], accuracy["n"]) == (0.0, 0.5, 2)


def test_values_are_those_of_the_results(tmp_path: Path) -> None:
    """With several answers a problem, over the same problems: as in metrics.json, from scored.jsonl alone."""
    runs = Runs(tmp_path, choices("ABAB"))
    lines = [
        {"problem_id": problem, "sample": sample, "response": answered(text)}
        for problem, texts in enumerate(("AAB", "BAB", "ABB", "AAA"), 1)
        for sample, text in enumerate(texts)
    ]
    a = runs.score("a", lines)
    b = runs.score("b", [{**line, "response": answered("A")} for line in lines])
    found = runs.compared(a, b)["benchmarks"]["eval_mine"]
    for folder, side in ((a, "a"), (b, "b")):
        written = json.loads((folder / "metrics.json").read_text())["eval_mine"]["accuracy"]
        assert found["metrics"]["accuracy"]["standard"][side] == pytest.approx(written["standard"])
    assert found["not_compared"] == ["pass@1", "pass@2", "pass@3", "pass@k", "majority"]


def refused(words: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert compare.main(list(map(str, words))) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(tmp_path, choices("AB"))
    a = runs.answers("a", "A", "B")
    runs.write(choices("BB"))
    b = runs.answers("b", "A", "B")
    assert "eval_mine: the two runs are of different files: md5 " in refused([a, b], capsys)
    for folder in (a, b):  # as of a data set that is a folder, which has no md5
        results = json.loads((folder / "results.json").read_text())
        results["benchmarks"]["eval_mine"]["files"][0]["md5"] = ""
        (folder / "results.json").write_text(json.dumps(results))
    assert "problem_id 1: answer differs" in refused([a, b], capsys)


def test_folders_without_results_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(tmp_path, choices("AB"))
    a = runs.answers("a", "A", "B")
    assert "gone: has no results.json" in refused([a, tmp_path / "gone"], capsys)
    b = runs.answers("b", "A", "B")
    scored = (b / "scored.jsonl").read_text().splitlines()
    (b / "scored.jsonl").write_text("\n".join([scored[0], '{"problem_id": 2, "failed": null}']))
    assert "scored.jsonl: line 2: benchmark None is not in results.json" in refused([a, b], capsys)
    (b / "scored.jsonl").write_text("\n".join([scored[0], scored[1].replace('"values"', '"other"')]))
    assert "line 2: problem_id 2: values is missing or malformed" in refused([a, b], capsys)
    (b / "results.json").write_text('{"benchmarks": {"other": {}}}')
    assert "other: title is missing: another version" in refused([a, b], capsys)
    (b / "results.json").write_text('{"benchmarks": {}}')
    assert "no benchmark is in both folders" in refused([a, b], capsys)
    assert compare.main([str(a), str(a), "--seed", "-1"]) == 2
    assert "seed -1 must be at least 0" in capsys.readouterr().err


def test_results_read_again_are_the_problems_that_were_scored(tmp_path: Path) -> None:
    """Shares of scored.jsonl add up to the totals that were written, in every form."""
    rows = [row("tracking", '{"boxes": {"0": [0, 0, 500, 500], "1": [0, 0, 400, 400]}}') for _ in range(3)]
    runs = Runs(tmp_path, rows)
    boxes = json.dumps({"boxes": {"0": [0, 0, 500, 500], "1": [0, 0, 300, 300]}})
    folder = runs.answers("a", boxes, "none", boxes)
    kept = read_results(folder).benchmarks["eval_mine"]
    compared = runs.compared(folder, runs.answers("b", boxes, boxes, boxes))["benchmarks"]["eval_mine"]
    for metric, found in kept.metrics.items():
        for form in ("released", "standard"):
            same = compared["metrics"].get(metric, {}).get(form)
            assert (None if same is None else same["a"]) == pytest.approx(found[form])
