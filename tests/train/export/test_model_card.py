"""The model card: what it says of a run, and that an edited one is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from onethinker_jax.train.export.model_card import card_to_write, model_card
from onethinker_jax.train.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.heldout.mkdir(parents=True)
    settings = {
        "name": "mine",
        "seed": 3,
        "model": {"init_from": "/somewhere/Qwen3-VL-2B-Instruct", "lora": {"rank": 0}},
        "data": {"heldout_file": "/somewhere/eval.json", "image_max_pixels": 1024},
        "sft": {"steps": 0, "optimizer": {"learning_rate": 1e-5}},
        "rl": {"steps": 20, "optimizer": {"learning_rate": 2e-6}},
    }
    folder.settings.write_text(json.dumps(settings))
    counts = {"rl": {"file": "rl.json", "records": 12345}, "heldout": {"file": "eval.json", "records": 3}}
    folder.records.write_text(json.dumps(counts))
    for stage, scores in (("fresh", (0.0, 0.5, 0.25)), ("rl", (1.0, 0.5, 0.75))):
        rows = zip(("math (image)", "OCR (image)", "math (image)"), scores, strict=True)
        lines = [json.dumps({"task": task, "accuracy": score}) for task, score in rows]
        folder.answers(stage).write_text("\n".join(lines) + "\n")
    return folder


def test_what_it_says(run: RunFolder) -> None:
    """Means by hand; no folder of this machine; no setting of a stage without steps."""
    card = model_card(run, np.dtype(np.float32))
    _, metadata, body = card.split("---\n", 2)
    read = yaml.safe_load(metadata)
    assert (read["library_name"], read["pipeline_tag"]) == ("transformers", "image-text-to-text")
    assert "reinforcement-learning" in read["tags"]
    assert "began from `Qwen3-VL-2B-Instruct`, trained by EMA-GRPO with" in body
    assert "| RL | `rl.json` | 12,345 |" in body and "| held out | `eval.json` | 3 |" in body
    assert "| `rl.optimizer.learning_rate` | 2e-06 |" in body and "`sft." not in body
    assert "| task | records | before | after RL |" in body
    assert "| OCR (image) | 1 | 0.500 | 0.500 |" in body
    assert "| math (image) | 2 | 0.125 | 0.875 |" in body
    assert "| all tasks | 3 | 0.250 | 0.750 |" in body
    assert "/somewhere" not in card
    assert model_card(run, np.dtype(np.float32)) == card


def test_an_edited_card_is_kept(run: RunFolder, tmp_path: Path) -> None:
    old = model_card(run, np.dtype(np.float32))
    new = model_card(run, np.dtype(np.float16))
    assert new != old
    assert card_to_write(tmp_path, new) == (new, False)
    (tmp_path / "README.md").write_text(old)
    assert card_to_write(tmp_path, new) == (new, False)
    for edited in (old.replace("# mine", "# My model"), "all mine\n", old + "One more line.\n"):
        (tmp_path / "README.md").write_text(edited)
        assert card_to_write(tmp_path, new) == (edited, True)
        assert card_to_write(tmp_path, new, overwrite=True) == (new, False)


def test_a_run_of_which_little_is_known(tmp_path: Path) -> None:
    card = model_card(RunFolder(tmp_path), np.dtype(np.float32))
    assert "No held-out answers." in card and "began from fresh weights, trained by no step" in card
