"""Made-up originals of the benchmarks of grounding, tracking and segmentation: true answers score all."""

import json
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.data_pipeline.sources.sample import Sample, Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.benchmarks import grounding, segmentation, tracking
from onethinker_jax.evaluate.benchmarks.table import find
from tests.data_pipeline.sources.making_grounding import write_originals

ROWS = (*grounding.ROWS, *tracking.ROWS, *segmentation.ROWS)
ONLY_RELEASED = {f"R@{least}" for least in (0.3, 0.5, 0.7)}
"""Of GOT-10k, whose toolkit has no such metric."""


def line_of(sample: Sample) -> dict[str, Any]:
    """The true answer as a line of predictions, with the true masks where there are some."""
    record, masks = sample.record, sample.record.segmentation
    line: dict[str, Any] = {
        "problem_id": record.problem_id,
        "response": record.answer or "<answer>{}</answer>",
    }
    if masks is not None:
        named = dict(zip(masks.names, masks.rles, strict=True))
        line["masks"] = named if record.videos else masks.rles[0]
    return line


def test_true_answers_score_all(tmp_path: Path) -> None:
    write_originals(tmp_path / "data")
    names = [row.name for row in ROWS]
    for row in ROWS:
        _, file, path = find(row.name, tmp_path / "data")
        samples = list(LAYOUTS[file.layout](Source(path, split=row.split, check_media=False)))
        (tmp_path / "given" / row.name).mkdir(parents=True)
        text = "\n".join(json.dumps(line_of(sample)) for sample in samples)
        (tmp_path / "given" / row.name / "predictions.jsonl").write_text(text)
    words = [*names, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert score.main([str(tmp_path / "given"), *words]) in (0, None)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics) == names
    for row in ROWS:
        assert list(metrics[row.name]) == list(row.metrics)
        for metric, found in metrics[row.name].items():
            forms = {form: found[form] for form in ("released", "standard") if found[form] is not None}
            assert forms and forms == dict.fromkeys(forms, pytest.approx(1)), (row.name, metric, found)
            if row.title == "GOT-10k" and metric in ONLY_RELEASED:
                assert set(forms) == {"released"}
            assert found["failed"] == 0 and found["n"] > 0
