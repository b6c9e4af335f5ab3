"""Made-up data of the 18 benchmarks of questions and captions: found, read, and scored from its true answers."""

import json
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.benchmarks import captions, question_answering
from onethinker_jax.evaluate.benchmarks.table import find
from onethinker_jax.evaluate.benchmarks.types import Benchmark
from onethinker_jax.rewards.answers import unwrap_answer
from tests.evaluate.benchmarks.making import write_questions

ROWS = (*question_answering.ROWS, *captions.ROWS)
SAMPLES = {
    "MMMU_DEV_VAL": 3,
    "MathVista_MINI": 4,
    "MathVerse_MINI": 3,
    "MMBench_DEV_EN": 4,
    "MMT-Bench_VAL": 4,
    "MMT-Caption": 3,
    "eval_videommmu": 6,
    "eval_mmvu": 1,
    "eval_videomathqa": 1,
}
"""Others have two."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_questions(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_made_up_data_is_found_and_read(data: Path, row: Benchmark) -> None:
    benchmark, file, path = find(row.name, data)
    assert benchmark is row
    samples = list(LAYOUTS[file.layout](Source(path, split=row.split)))
    assert len(samples) == SAMPLES.get(row.name, 2)
    assert len({sample.record.problem_id for sample in samples}) == len(samples)
    video = row.family == "video QA" or "VideoMMLU" in row.title
    for sample in samples:
        assert bool(sample.record.videos) == video and (video or sample.record.images)


def test_true_answers_score_all(data: Path, tmp_path: Path) -> None:
    for row in ROWS:
        _, file, path = find(row.name, data)
        lines = [
            {"problem_id": sample.record.problem_id, "response": sample.record.answer}
            for sample in LAYOUTS[file.layout](Source(path, split=row.split))
        ]
        (tmp_path / row.name).mkdir()
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / row.name / "predictions.jsonl").write_text(text)
    names = [row.name for row in ROWS]
    code = score.main([str(tmp_path), *names, "--data", str(data), "--out", str(tmp_path / "out")])
    assert code in (0, None)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics) == names
    for row in ROWS:
        for metric, found in metrics[row.name].items():
            if row.judge == "required" or metric == "G-Eval":  # nobody judges here
                assert found["standard"] is None, (row.name, metric)
                continue
            most = 10 if metric == "CIDEr" else 1
            form = "released" if row.judge == "required" else "standard"
            assert found[form] == pytest.approx(most, abs=0.01), (row.name, metric)
            assert (found["standard"] is None) == (row.judge == "required")
            assert found["failed"] == 0 and found["n"] > 0
    questions = metrics["MMBench_DEV_EN"]["accuracy"]
    assert questions["n"] == 2  # of four rows, three are rotations of one


def test_a_wrong_rotation_costs_the_question(data: Path, tmp_path: Path) -> None:
    _, file, path = find("MMBench", data)
    samples = list(LAYOUTS[file.layout](Source(path)))
    lines = [
        {"problem_id": sample.record.problem_id, "response": unwrap_answer(sample.record.answer)}
        for sample in samples
    ]
    lines[-1]["response"] = "C" if lines[-1]["response"] != "C" else "A"
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    score.main([str(tmp_path / "predictions.jsonl"), str(path), "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["MMBench_DEV_EN"]["accuracy"]
    assert (found["released"], found["standard"]) == (0.75, 0.5)
