"""Every example does what its first lines say, with a very small model in place of the weights that it names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.rewards.own_reward import load_reward
from onethinker_jax.rewards.score import Score
from tests.data_pipeline.making import write_image
from tests.places import ROOT
from tests.train import running
from tests.waiting import HANG_S

EXAMPLES = ROOT / "examples"
# The presets' lengths are those of a real model; these take seconds.
TINY = """
--model.family None --model.compute-dtype float32 --mesh.fsdp 1 --mesh.tensor 1 --data.image-max-pixels 4096
--evaluation.sampler.prompt-slots 2 --evaluation.sampler.prompt-tokens 512
--evaluation.sampler.prompt-patches 64 --evaluation.sampler.max-new-tokens 8
""".split()  # noqa: SIM905 - as a shell takes them
SFT = """
--sft.steps 2 --sft.batch.rows 1 --sft.batch.tokens 512 --sft.batch.patches 128 --sft.accumulate 1
""".split()  # noqa: SIM905 - as a shell takes them
# One step on two short prompts, whatever it earns.
RL = """
--rl.steps 1 --rl.prompts-per-step 2 --rl.num-minibatches 1 --rl.accuracy-low -1 --rl.accuracy-high 2
--rl.rollout.group-size 2 --rl.rollout.prompt-slots None --rl.rollout.max-new-tokens 8
--rl.rollout.prompt-tokens 512 --rl.rollout.prompt-patches 64
--rl.batch.rows 1 --rl.batch.tokens 512 --rl.batch.patches 64
""".split()  # noqa: SIM905 - as a shell takes them


def run(name: str, *arguments: object) -> str:
    """What an example prints; fails with what it says when it fails."""
    command = [sys.executable, EXAMPLES / name, *arguments]
    result = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        cwd=ROOT,
        env=running.in_tests(),
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_ask(model: Path, tmp_path: Path) -> None:
    """A fresh model writes no tags: the whole response is its answer."""
    printed = run("ask.py", model, write_image(tmp_path / "street.png"), "What is on the bench?")
    assert printed.startswith("\n\n") and printed.strip()


def test_sft_own_data(model: Path, tmp_path: Path) -> None:
    printed = run("sft_own_data.py", model, "--out", tmp_path, *TINY, *SFT)
    assert "records: 3 SFT, 0 RL, 2 held out" in printed
    assert (tmp_path / "own_sft" / "model" / "model.safetensors").is_file()


def test_rl_own_data_with_a_reward_of_ones_own(model: Path, tmp_path: Path) -> None:
    reward = ("--reward.module", "examples/own_reward.py:brief_and_right")
    printed = run("rl_own_data.py", model, "--out", tmp_path, *TINY, *RL, *reward)
    assert "records: 0 SFT, 4 RL, 2 held out" in printed
    assert (tmp_path / "own_rl" / "model" / "model.safetensors").is_file()


def test_own_reward() -> None:
    """The true answer of every record earns 1, a long one less, a wrong one its form alone."""
    reward = load_reward(f"{EXAMPLES / 'own_reward.py'}:brief_and_right")
    records = read_records(EXAMPLES / "own_data" / "rl.json")
    assert len(records) == 4
    for record in records:
        fields = {name: getattr(record, name) for name in ("problem_type", "data_type")}
        fields |= {"options": list(record.options), "answer": record.answer}

        def earned(thought: str, answer: str, fields: dict = fields) -> float:
            score = reward(fields, f"<think>{thought}</think>\n<answer>{answer}</answer>")
            assert isinstance(score, Score)
            return score.overall

        true = record.answer.removeprefix("<answer>").removesuffix("</answer>")
        assert earned("I look.", true) == pytest.approx(1.0)
        assert earned("x" * 5000, true) == pytest.approx(0.55)
        assert 0 <= earned("I look.", "none of these") <= 0.1


def test_the_data_of_the_examples_is_good() -> None:
    data = EXAMPLES / "own_data"
    assert len(read_records(data / "sft.json", purpose="sft")) == 3
    assert len(read_records(data / "rl.json", purpose="rl")) == 4
    assert len(read_records(data / "eval.json", purpose="heldout")) == 2


def test_a_task_of_ones_own(model: Path, tmp_path: Path) -> None:
    printed = run("own_task.py", model, "--out", tmp_path, *TINY, *RL)
    assert "records: 0 SFT, 2 RL, 1 held out" in printed
    wording = json.loads((tmp_path / "own_task" / "model" / "prompts.json").read_text())
    assert "Estimate." in wording["numerical (image)"]


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        *(("<answer>20</answer>", 1.0), ("<answer> 15 </answer>", 0.5), ("<answer>10</answer>", 0.0)),
        *(("<answer>40</answer>", 0.0), ("20", 0.0), ("<answer>1.2.3</answer>", 0.0)),
    ],
)
def test_the_reward_of_ones_own_task(response: str, reward: float) -> None:
    near = load_reward(f"{EXAMPLES / 'own_task.py'}:near")
    assert near({"answer": "<answer>20</answer>"}, response) == pytest.approx(reward)
