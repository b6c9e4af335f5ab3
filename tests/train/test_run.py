"""The whole way: a finished `smoke` run and what it leaves, and a run stopped twice that ends in the same bits."""

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from onethinker_jax.data_pipeline.batches.packing import stack_prompts
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records.record import read_records
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.log.log import read_metrics
from tests.model.conftest import open_in_transformers, runner
from tests.model.test_whole_way import reference
from tests.train import running

CONFIG = smoke()
LIMITS: dict[str, Any] = {
    "video_max_frames": CONFIG.data.video_max_frames,
    "video_min_pixels": CONFIG.data.video_min_pixels,
    "video_max_pixels": CONFIG.data.video_max_pixels,
}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what its command printed."""

    directory: Path
    stdout: str
    stderr: str

    def metrics(self, stage: str) -> list[dict]:
        return [row for row in read_metrics(self.directory / "metrics.jsonl") if row["stage"] == stage]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs")
    result = running.module("", "smoke", "--out", out, code=running.WITHOUT_TORCH)
    assert result.returncode == 0, result.stdout + result.stderr
    return Run(out / "smoke", result.stdout, result.stderr)


def test_files(finished: Run) -> None:
    """All that the README promises is there, and nothing half-written beside it."""
    names = {path.name for path in finished.directory.iterdir()}
    assert not {name for name in names if name.startswith("reward.sock")}
    folders = {"data", "base", "checkpoints", "heldout", "tensorboard", "model"}
    assert folders | {"config.json", "metrics.jsonl", "index.html", "reward_server.log"} <= names
    assert not list(finished.directory.rglob("*.writing*"))
    records = json.loads((finished.directory / "data" / "eval_shapes.json").read_text())
    answers = ("fresh", "sft", "sft_sampled", "rl", "rl_sampled")
    assert {path.stem for path in (finished.directory / "heldout").iterdir()} == set(answers)
    for name in answers:
        rows = (finished.directory / "heldout" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(row)["problem_id"] for row in rows] == [record["problem_id"] for record in records]
    for stage in ("sft", "rl"):
        assert list((finished.directory / "tensorboard" / stage).glob("events.out.tfevents.*"))
    saved = json.loads((finished.directory / "config.json").read_text())
    assert saved["rl"]["prompts_per_step"] == CONFIG.rl.prompts_per_step
    page = (finished.directory / "index.html").read_text()
    assert "after RL" in page and "data:image/" in page
    assert 'href="rollouts/index.html"' in page
    rollouts = {path.name for path in (finished.directory / "rollouts").iterdir()}
    assert rollouts == {"index.html", "step_00000002.html", "step_00000004.html"}


def test_console(finished: Run) -> None:
    """The summary table with every task, the paths, and no warning of a late compilation or anything else."""
    for text in (
        "Held-out records, greedy answers (largest reward 1.5)",
        "tracking (video)",
        "OCR (image)",
        "all tasks",
        "95% intervals: bootstrap over records",
        "sampled at temperature 1",
        "rl step 2",
        "policy: KL to the sampler",
        "speed: prompts/s",
    ):
        assert text in finished.stdout
    assert str(finished.directory / "model") in finished.stdout
    assert str(finished.directory / "index.html") in finished.stdout
    assert "warning" not in finished.stdout
    assert finished.stderr == ""


def test_metrics(finished: Run) -> None:
    sft, rl = finished.metrics("sft"), finished.metrics("rl")
    assert [row["step"] for row in sft] == list(range(1, CONFIG.sft.steps + 1))
    assert [row["step"] for row in rl] == list(range(1, CONFIG.rl.steps + 1))
    uniform = math.log(CONFIG.model.vocab_size)
    assert abs(sft[0]["loss"] - uniform) < 0.3
    assert sft[-1]["loss"] < sft[0]["loss"] - 0.1
    for row in sft:
        assert 0 < row["packing_efficiency/tokens"] <= 1 and 0 < row["packing_efficiency/patches"] <= 1
        assert row["tokens_per_second"] > 0 and row["grad_norm"] > 0
    for row in rl:
        assert 0 <= row["reward"] <= 2
        assert 0 < row["entropy"] <= uniform
        assert 1 <= row["response_length"] <= CONFIG.rl.rollout.max_new_tokens
        assert row["groups_kept"] == 1.0
        assert not [name for name, value in row.items() if value is None]
    # Before the policy moves, what was sampled is what is trained (nats a token).
    assert rl[0]["mismatch"] < 1e-5
    assert max(row["mismatch"] for row in rl) < 0.1


def test_model_in_transformers(finished: Run) -> None:
    """The exported directory loads without missing tensors, and gives our logits on held-out prompts."""
    pytest.importorskip("torch")
    directory = finished.directory / "model"
    hf = open_in_transformers(directory)
    processor = Processor.from_pretrained(directory, MediaBounds(**LIMITS))
    assert hf.generation_config.eos_token_id == processor.eos_token_id
    records = read_records(finished.directory / "data" / "eval_shapes.json")
    chosen = [next(record for record in records if record.data_type == kind) for kind in ("image", "video")]
    prompts = [processor.prompt(record) for record in chosen]
    inputs, lengths = stack_prompts(prompts, tokens=256, patches=160)
    logits = runner(load_hf(directory))(inputs)
    for row, prompt in enumerate(prompts):
        expected = reference(hf, processor, prompt)
        np.testing.assert_allclose(logits[row, : lengths[row]], expected, rtol=0, atol=5e-5)


def test_tokenizer_in_transformers(finished: Run) -> None:
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    directory = finished.directory / "model"
    theirs = AutoTokenizer.from_pretrained(directory)
    ours = Processor.from_pretrained(directory).tokenizer
    for row in (finished.directory / "heldout" / "rl.jsonl").read_text().splitlines():
        text = json.loads(row)["answer"]
        assert theirs(text)["input_ids"] == ours.encode(text)


def test_export_of_the_newest_checkpoint(finished: Run, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    result = running.module("onethinker_jax.train.export", finished.directory, "--out", out)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{out}\n", "")
    for file in sorted((finished.directory / "model").iterdir()):
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    result = running.module("onethinker_jax.train.export", finished.directory, "--out", tmp_path / "mine")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'mine'}: ")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_evaluation_of_the_exported_model(finished: Run, tmp_path: Path) -> None:
    """The stand-alone evaluation gives what the run itself wrote of its last model."""
    sampler = CONFIG.evaluation.sampler
    names = ("prompt_slots", "prompt_tokens", "prompt_patches", "max_new_tokens")
    settings = {**LIMITS, **{name: getattr(sampler, name) for name in names}, "out": tmp_path / "results"}
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    file = finished.directory / "data" / "eval_shapes.json"
    result = running.module("onethinker_jax.evaluate", finished.directory / "model", file, *flags)
    assert result.returncode == 0, result.stderr
    ours = rows_of(tmp_path / "results" / "predictions.jsonl")
    runs = rows_of(finished.directory / "heldout" / "rl.jsonl")
    assert [{name: row[name] for name in runs[0]} for row in ours] == runs
    assert "all tasks" in result.stdout
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert list(metrics) == ["eval_shapes"]
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["benchmarks"]["eval_shapes"]["rows"] == CONFIG.data.world_heldout


def test_a_finished_run_says_so(finished: Run) -> None:
    def contents() -> dict[str, bytes]:
        files = sorted(finished.directory.rglob("*"))
        return {str(file): file.read_bytes() for file in files if file.is_file()}

    before = contents()
    result = running.module("onethinker_jax.train", "smoke", "--out", finished.directory.parent)
    assert result.returncode == 0, result.stderr
    assert "this run is finished" in result.stdout
    assert "all tasks" in result.stdout
    assert contents() == before


def test_another_config_is_refused(finished: Run) -> None:
    before = (finished.directory / "config.json").read_bytes()
    out = finished.directory.parent
    result = running.module("onethinker_jax.train", "smoke", "--out", out, "--sft.steps", 7)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {finished.directory} holds a run with sft.steps 6, not 7")
    assert (finished.directory / "config.json").read_bytes() == before


def test_a_finished_run_goes_on_for_more_steps(finished: Run, tmp_path: Path) -> None:
    """It is scored, exported and shown anew; its learning rates were those of a shorter run, which is said."""
    longer = Run(tmp_path / "smoke", "", "")
    shutil.copytree(finished.directory, longer.directory)
    steps = CONFIG.rl.steps + 1
    result = running.module("onethinker_jax.train", "smoke", "--out", tmp_path, "--rl.steps", steps)
    assert result.returncode == 0, result.stderr
    assert f"rl.steps {steps} instead of {CONFIG.rl.steps}: this run goes on after RL step" in result.stdout
    assert "the learning rate has a cosine schedule" in result.stdout
    assert [row["step"] for row in longer.metrics("rl")] == list(range(1, steps + 1))
    before, after = (run.directory for run in (finished, longer))
    assert (after / "heldout" / "rl.jsonl").is_file() and (after / "heldout" / "rl_sampled.jsonl").is_file()
    for name in ("index.html", "model/model.safetensors"):
        assert (after / name).read_bytes() != (before / name).read_bytes(), name
    assert (after / "heldout" / "sft.jsonl").read_bytes() == (before / "heldout" / "sft.jsonl").read_bytes()
    result = running.module("onethinker_jax.train", "smoke", "--out", tmp_path)
    assert result.returncode == 1
    assert f"{steps} RL steps are done: rl.steps {CONFIG.rl.steps} is less" in result.stderr


def test_a_broken_checkpoint_is_named(finished: Run, tmp_path: Path) -> None:
    """Training neither starts afresh nor goes on from an older one in its place."""
    directory = tmp_path / "smoke"
    shutil.copytree(finished.directory, directory)
    shutil.rmtree(directory / "model")
    newest = directory / "checkpoints" / str(CONFIG.sft.steps + CONFIG.rl.steps)
    for file in newest.glob("state/**/d/*"):
        file.write_bytes(file.read_bytes()[:100])
    result = running.module("onethinker_jax.train", "smoke", "--out", tmp_path)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: checkpoint {newest} cannot be restored: ")
    assert not (directory / "model").exists()
    assert Run(directory, "", "").metrics("rl") == finished.metrics("rl")
    result = running.module("onethinker_jax.train.export", directory, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: checkpoint {newest} cannot be restored: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_stopped_twice_it_ends_in_the_same_bits(finished: Run, tmp_path: Path) -> None:
    """SIGTERM while SFT saves, Ctrl-C during RL; the same command goes on, and nothing shows in the result."""
    command = ("smoke", "--out", tmp_path)
    stopped = Run(tmp_path / "smoke", "", "")
    for stage, by, status in (("sft", "SIGTERM@save", 143), ("rl", "SIGINT", 130)):
        result = running.interrupted(stage, *command, by=by)
        assert result.returncode == status, result.stdout + result.stderr
        assert result.stderr == "stopped; the same command goes on from here\n"
        assert f"{'Stopping' if status == 130 else 'SIGTERM'}: finishing this step" in result.stdout
        assert not (stopped.directory / "model").exists()
        assert stopped.metrics(stage)[-1]["step"] < getattr(CONFIG, stage).steps
    result = running.module("onethinker_jax.train", *command)
    assert result.returncode == 0, result.stderr
    assert f"rl: {CONFIG.rl.steps} steps from step" in result.stdout

    for name in (
        "model/model.safetensors",
        "heldout/fresh.jsonl",
        "heldout/sft.jsonl",
        "heldout/rl.jsonl",
        "heldout/rl_sampled.jsonl",
    ):
        assert (stopped.directory / name).read_bytes() == (finished.directory / name).read_bytes(), name
    for stage in ("sft", "rl"):
        timed = re.compile("time|prompts_per_second|tokens_per_second|seconds/|host/")
        ours, theirs = (
            [
                {name: value for name, value in row.items() if not timed.match(name)}
                for row in run.metrics(stage)
            ]
            for run in (stopped, finished)
        )
        assert ours == theirs


def test_from_an_exported_directory_without_sft(finished: Run, tmp_path: Path) -> None:
    source = finished.directory / "model"
    flags = ("--sft.steps", 0, "--rl.steps", 1, "--data.world-rl", 40)
    result = running.module(
        "onethinker_jax.train",
        "smoke",
        "--out",
        tmp_path,
        "--model.init-from",
        source,
        "--model.tiny",
        *flags,
    )
    assert result.returncode == 0, result.stderr
    run = Run(tmp_path / "smoke", result.stdout, result.stderr)
    assert not run.metrics("sft")
    assert len(run.metrics("rl")) == 1
    assert not (run.directory / "heldout" / "sft.jsonl").exists()
    assert "after SFT" not in run.stdout
    # The model it began with is the one that the other run ended with.
    started = (run.directory / "heldout" / "fresh.jsonl").read_text()
    assert started == (finished.directory / "heldout" / "rl.jsonl").read_text()
    for file in source.iterdir():
        if file.name not in ("model.safetensors", "config.json", "README.md"):
            assert (run.directory / "model" / file.name).read_bytes() == file.read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (source, run.directory / "model"))
    assert before.keys() == after.keys()
    assert any(np.any(before[name] != after[name]) for name in before)
