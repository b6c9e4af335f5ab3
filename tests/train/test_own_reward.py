"""A run with a reward of one's own: what it earns, that it goes on, and that another reward is refused."""

import json
from pathlib import Path

import pytest

from onethinker_jax.train.__main__ import main
from onethinker_jax.train.log.log import read_metrics
from tests.train import running

SOURCE = """
def letters(record, response):
    return len(set(response.lower()) & set("abcdefghij")) / 10

def changes(record, response):
    return "x"
"""
SMALL = (
    *(
        "smoke",
        "--sft.steps",
        "0",
        "--data.world-sft",
        "24",
        "--data.world-rl",
        "8",
        "--data.world-heldout",
        "4",
    ),
    *("--rl.prompts-per-step", "2", "--rl.rollout.max-new-tokens", "16", "--rl.save-every", "1"),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own") / "own.py"
    made.write_text(SOURCE)
    return made


def test_a_run(file: Path, tmp_path: Path, capsys) -> None:
    """Of one step, then for one more, in rollouts and held-out scores; its name stands in the run's settings."""

    def run(steps: int):
        flags = ("--reward.module", f"{file}:letters", "--rl.steps", steps, "--out", tmp_path)
        return running.module("onethinker_jax.train", *SMALL, *flags)

    first = run(1)
    assert first.returncode == 0, first.stdout + first.stderr
    second = run(2)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "goes on after RL step 1" in second.stdout

    directory = tmp_path / "smoke"
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if row["stage"] == "rl"]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["reward"] < 1 and row["reward"] == row["accuracy"] for row in rows)
    for line in (directory / "heldout" / "rl.jsonl").read_text().splitlines():
        answer = json.loads(line)
        earned = len(set(answer["response"].lower()) & set("abcdefghij")) / 10
        assert answer["overall"] == answer["accuracy"] == earned
    assert json.loads((directory / "config.json").read_text())["reward"]["module"] == f"{file}:letters"
    other = [*SMALL, "--reward.module", f"{file}:changes", "--rl.steps", "2", "--out", str(tmp_path)]
    assert main(other) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"holds a run with reward.module '{file}:letters', not '{file}:changes'" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--reward.module", "gone.py:reward"),
            "error: reward.module gone.py:reward: there is no file gone.py",
        ),
        (("--reward.module", "FILE:changes"), "returned str, not a number or a Score"),
        (("--reward.module", "gone"), "module 'gone' is not MODULE:FUNCTION or FILE.py:FUNCTION"),
        (
            ("--reward.module", "FILE:letters", "--rl.advantage.estimator", "gdpo"),
            "needs --rl.advantage.weights",
        ),
    ],
)
def test_one_that_does_not_work(
    file: Path, tmp_path: Path, flags: tuple[str, ...], message: str, capsys
) -> None:
    """One line, before anything is trained."""
    given = [flag.replace("FILE", str(file)) for flag in flags]
    assert main([*SMALL, "--rl.steps", "1", "--out", str(tmp_path), *given]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "smoke" / "checkpoints").exists()
