"""The default job's table, of hand-made answers."""

import json
from pathlib import Path

import pytest

from experiments.job_table import Arguments, read_run, run
from onethinker_jax.errors import UserError


def write(folder: Path, stage: str, accuracies: dict[str, float]) -> None:
    (folder / "heldout").mkdir(parents=True, exist_ok=True)
    rows = [
        {"problem_id": number, "task": task, "accuracy": value, "overall": value + 0.5}
        for number, (task, value) in enumerate(5 * list(accuracies.items()))
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in reversed(rows))
    (folder / "heldout" / f"{stage}.jsonl").write_text(text)


def test_means_over_runs_by_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, gain in (("a", 0.1), ("b", 0.3)):
        write(tmp_path / name, "sft", {"math (image)": 0.2, "OCR (video)": 0.4, "tracking (video)": 0.5})
        write(
            tmp_path / name,
            "rl",
            {"math (image)": 0.2 + gain, "OCR (video)": 0.4 + gain, "tracking (video)": 0.4},
        )
    run(Arguments((tmp_path / "a", tmp_path / "b")))
    said = capsys.readouterr().out
    assert "| math, OCR | 30.0 → 50.0 | +20.0 ± 0.0 | 0.800 → 1.000 |" in said
    assert "| tubes and tracks | 50.0 → 40.0 | -10.0 ± 0.0 | 1.000 → 0.900 |" in said
    assert "| all | 36.7 → 46.7 | +10.0 ±" in said
    assert "2 runs; accuracy rises with RL in 2 of 3 tasks." in said


def test_runs_that_cannot_be_put_together_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "sft", {"math (image)": 0.2})
    with pytest.raises(UserError, match=r"rl\.jsonl: no held-out answers"):
        read_run(tmp_path / "a")
    write(tmp_path / "a", "rl", {"OCR (image)": 0.2})
    with pytest.raises(UserError, match="different held-out records"):
        read_run(tmp_path / "a")
    for stage in ("sft", "rl"):
        write(tmp_path / "a", stage, {"OCR (image)": 0.2})
        write(tmp_path / "b", stage, {"math (image)": 0.2})
    with pytest.raises(UserError, match="other held-out records"):
        run(Arguments((tmp_path / "a", tmp_path / "b")))
