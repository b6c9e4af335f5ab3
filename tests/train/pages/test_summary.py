"""What a finished run says of itself: means and changes by task, on the console and where the numbers come from."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from rich.console import Console

import onethinker_jax
from onethinker_jax.evaluate.answers.predictions import Prediction
from onethinker_jax.rewards.score import Score
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.heldout import Answers, sampled_stages, stages_of
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.pages import run_facts
from onethinker_jax.train.pages.summary import print_summary, source_summaries, summaries
from tests.train.pages.reading import record

CONFIG = PRESETS["smoke"]()


def predictions(folder: Path, kind: str, accuracies: Sequence[float]) -> list[Prediction]:
    """One of each accuracy, right in format, its reward that of the released variant."""
    truth = "[0, 1]" if kind == "temporal grounding" else "A"
    answer = f'{{"time": {truth}}}' if truth[0] == "[" else truth
    media = "video" if kind == "temporal grounding" else "image"
    one = record(folder, kind, media, answer)
    return [Prediction(one, "x", Score(0.9 * value + 0.6, value, 1.0, 0.5)) for value in accuracies]


@pytest.fixture
def greedy(tmp_path: Path) -> dict[str, list[Prediction]]:
    """OCR is better in every one of ten records; of temporal grounding one of ten is."""
    stages = {"fresh": ([0.0] * 10, [0.0] * 10), "sft": ([0.25] * 10, [0.5] * 10)}
    stages["rl"] = ([0.75] * 10, [0.6, *[0.5] * 9])
    return {
        stage: [*predictions(tmp_path, "OCR", ocr), *predictions(tmp_path, "temporal grounding", spans)]
        for stage, (ocr, spans) in stages.items()
    }


@pytest.mark.parametrize(
    ("sft", "rl", "greedy", "sampled"),
    [
        (6, 4, ["fresh", "sft", "rl"], ["sft", "rl"]),
        (6, 0, ["fresh", "sft"], []),  # the model after SFT is the last: it is not asked twice
        (0, 4, ["fresh", "rl"], ["fresh", "rl"]),
        (0, 0, ["fresh", "rl"], []),
    ],
)
def test_a_model_answers_the_held_out_records_once(
    sft: int, rl: int, greedy: list[str], sampled: list[str]
) -> None:
    config = replace(CONFIG, sft=replace(CONFIG.sft, steps=sft), rl=replace(CONFIG.rl, steps=rl))
    assert (stages_of(config), sampled_stages(config)) == (greedy, sampled)
    without = replace(config, evaluation=replace(config.evaluation, sampled=False))
    assert (stages_of(without), sampled_stages(without)) == (greedy, [])


def test_means_and_changes_by_task(greedy: dict[str, list[Prediction]]) -> None:
    text, spans, total = summaries(CONFIG, greedy)
    assert (text.task, spans.task, total.task) == ("OCR (image)", "temporal grounding (video)", "all tasks")
    assert (text.records, spans.records, total.records) == (10, 10, 20)
    assert text.accuracy == [0.0, 0.25, 0.75] and text.reward == pytest.approx([0.6, 0.825, 1.275])
    assert text.best == spans.best == total.best == (1.5, 1.0)
    assert text.accuracy_change is not None and spans.accuracy_change is not None
    assert text.accuracy_change.interval == (0.5, 0.5) and text.accuracy_change.direction == "up"
    assert spans.accuracy_change.mean == pytest.approx(0.01) and spans.accuracy_change.direction == "same"
    assert total.accuracy == pytest.approx([0.0, 0.375, 0.63])


def test_records_of_several_sources_have_a_row_a_source(
    greedy: dict[str, list[Prediction]], tmp_path: Path
) -> None:
    """Such as held-out objects that were seen in training and those that were not."""
    assert source_summaries(CONFIG, greedy) == []  # all are of one
    split = {
        stage: [
            replace(one, record=replace(one.record, data_source=("unseen", "seen")[number < 10]))
            for number, one in enumerate(predictions)
        ]
        for stage, predictions in greedy.items()
    }
    seen, unseen = source_summaries(CONFIG, split)
    assert (seen.task, unseen.task, seen.records) == ("from seen", "from unseen", 10)
    assert seen.accuracy == [0.0, 0.25, 0.75] and unseen.accuracy == pytest.approx([0.0, 0.5, 0.51])
    with RunLog(tmp_path / "log", console=(console := Console(record=True, width=140, quiet=False))) as log:
        print_summary(CONFIG, Answers(split, {}), log)
    rows = [line.split("│")[1].strip() for line in console.export_text().splitlines() if line.startswith("│")]
    assert rows[-3:] == ["from seen", "from unseen", "all tasks"]


def test_the_table_on_the_console(greedy: dict[str, list[Prediction]], tmp_path: Path) -> None:
    """Accuracy beside reward, the largest reward, the intervals and what they are."""
    console = Console(record=True, width=140, file=(tmp_path / "console").open("w"))
    with RunLog(tmp_path / "log", console=console) as log:
        print_summary(CONFIG, Answers(greedy, {}), log)
    said = console.export_text()
    assert "Held-out records, greedy answers (largest reward 1.5)" in said and "…" not in said
    (row,) = (line for line in said.splitlines() if "OCR (image)" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells[1:] == [
        "10",
        "0.000",
        "0.250",
        "0.750",
        "+0.500 ± 0.000",
        "0.825",
        "1.275",
        "+0.450",
        "1.000",
        "–",
    ]
    assert "95% intervals: bootstrap over records, 2,000 resamples, seed 0" in said


def test_the_command_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "orig_argv", ["/a/bin/python", "-m", "onethinker_jax.train", "smoke", "--name", "a b"]
    )
    assert run_facts.command() == "python -m onethinker_jax.train smoke --name 'a b'"


def test_a_commit_of_a_checkout_else_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package installed in somebody else's checkout is not of its commits; changes are said."""
    package = tmp_path / "onethinker_jax"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(onethinker_jax, "__file__", str(package / "__init__.py"))
    version = f"onethinker_jax {onethinker_jax.__version__}"
    assert run_facts.code_version() == version  # no checkout

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    assert run_facts.code_version() == version  # not a file of it
    git("add", "onethinker_jax")
    git("commit", "-q", "-m", "ours")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert run_facts.code_version() == f"{version}, commit {commit}"
    (package / "__init__.py").write_text("changed = True\n")
    assert run_facts.code_version() == f"{version}, commit {commit} with changes"
    monkeypatch.setenv("PATH", "")
    assert run_facts.code_version() == version  # no git


def test_data_and_hardware() -> None:
    assert run_facts.data(CONFIG, 36) == "Shapes world, seed 0: 160 SFT, 80 RL, 36 held-out records"
    photos = replace(CONFIG, data=replace(CONFIG.data, world="photos", world_library=Path("library")))
    assert run_facts.data(photos, 36) == "Photos world, seed 0: 160 SFT, 80 RL, 36 held-out records"
    assert "CPU cores" in run_facts.hardware()
    assert (f"{jax.device_count()} devices" in run_facts.hardware()) == (jax.device_count() > 1)
