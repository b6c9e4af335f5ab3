"""The command of the experiments: short runs whole, stopped and gone on with, and what it refuses."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.ablation import Arguments, parse, run, trials_of
from experiments.arms import ARMS, FAMILIES, METHODS, MIXTURES, family_of, settings_of
from experiments.result_lines import ResultsError, append_line, check_lines, read_lines
from experiments.trials import Sizes, Study, Trial, digest_of, make_study
from experiments.workers import core_shares
from onethinker_jax.command_line import UsageError
from onethinker_jax.tasks import TASKS
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import shapes, smoke
from onethinker_jax.train.log.log import read_metrics
from tests.places import ROOT
from tests.train.running import in_tests
from tests.waiting import wait_until

LENGTHS = ["--", "--rl.rollout.max-new-tokens", "8", "--evaluation.sampler.max-new-tokens", "8"]
LENGTHS += ["--rl.rollout.prompt-tokens", "1024", "--evaluation.sampler.prompt-tokens", "1024"]
LENGTHS += ["--rl.batch.tokens", "1088"]


def words(out: Path, model: Path, world: Path, *more: str) -> list[str]:
    return [str(out), "--short", "--start", str(model), "--data", str(world), *more, *LENGTHS]


@pytest.fixture
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes of a command find the same compiled programs, those of the trainer's own tests."""
    monkeypatch.setenv("XLA_FLAGS", in_tests()["XLA_FLAGS"])
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def check_short(out: Path) -> None:
    """The SFT model and two arms have a line each of all there is, and no folder is left."""
    lines = {line["run"]: line for line in read_lines(out / "results.jsonl")}
    assert list(lines) == ["none", *(f"mixed-{arm}-seed_0" for arm in METHODS[:2])]
    for name, line in lines.items():
        assert set(line["heldout"]) == {"greedy", "sampled"}
        for tasks in line["heldout"].values():
            assert sum(row[0] for row in tasks.values()) == 24
        for task, row in line["heldout"]["greedy"].items():
            assert len(line["records"][task]) == row[0]
            assert np.mean(line["records"][task]) / 100 == pytest.approx(row[1], abs=0.006)
        steps = 0 if name == "none" else 2
        assert all(len(curve) == steps for curve in line["curves"].values())
        assert name == "none" or {"reward", "entropy", "grad_norm", "groups_kept"} <= set(line["curves"])
        assert name == "none" or any(curve.startswith("sigma/") for curve in line["curves"])
    assert not list((out / "runs").iterdir())


@pytest.mark.usefixtures("_one_device")
def test_short(model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All trials, then none that has a line; lines of other settings are refused."""
    run(parse(words(tmp_path, model, world)))
    assert "3 trials, 0 of them done" in capsys.readouterr().out
    check_short(tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    run(parse(words(tmp_path, model, world)))
    assert "3 trials, 3 of them done" in capsys.readouterr().out
    assert (tmp_path / "results.jsonl").read_bytes() == before
    with pytest.raises(ResultsError, match=r"the line of run (none|mixed-\S+) is of other settings"):
        run(parse(words(tmp_path, model, world, "--prompts", "2")))


@pytest.mark.slow
@pytest.mark.usefixtures("_one_device")
def test_a_stopped_trial_goes_on(model: Path, world: Path, tmp_path: Path) -> None:
    """Ctrl-C in the first arm's RL saves its step; the same command goes on from there."""
    command = [sys.executable, "-m", "experiments.ablation", *words(tmp_path, model, world)]
    first = tmp_path / "runs" / "mixed-ema_grpo_paper-seed_0"
    with subprocess.Popen(command, env=in_tests(), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: bool(read_metrics(first / "metrics.jsonl")), process, what=lambda: "no step of RL")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == "stopped; the same command goes on from here\n"
    assert process.returncode == 130
    assert [line["run"] for line in read_lines(tmp_path / "results.jsonl")] == ["none"]
    assert list((first / "checkpoints").glob("[12]"))
    run(parse(words(tmp_path, model, world)))
    check_short(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_device")
def test_an_arm_that_is_left(model: Path, world: Path, tmp_path: Path) -> None:
    """The SFT model answers once more for it, where its answers are gone."""
    run(parse(words(tmp_path, model, world)))
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    shutil.rmtree(tmp_path / "start")
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:2]))
    run(parse(words(tmp_path, model, world)))
    check_short(tmp_path)


@pytest.fixture
def study(model: Path, world: Path, tmp_path: Path) -> Study:
    return make_study(shapes(), tmp_path, model, world, Sizes(heldout=12, steps=3, prompts=16))


def test_arms_differ_in_what_they_say_alone(study: Study) -> None:
    """All have the base's data, model, sampler and optimiser, and as many samples a step."""
    base = study.base
    for arm in ARMS:
        config = study.config(Trial(arm, seed=3))
        assert (config.seed, config.rl.steps) == (3, 3)
        assert config.rl.prompts_per_step * config.rl.rollout.group_size == 16 * 8
        assert (config.data, config.model, config.evaluation) == (base.data, base.model, base.evaluation)
        assert config.rl.optimizer == base.rl.optimizer
    assert len({digest_of(study.config(Trial(arm))) for arm in ARMS}) == len(ARMS)
    trials = [Trial(arm, learning_rate=rate) for arm in ARMS for rate in (None, 1.5e-3, 2.5e-3)]
    assert len({study.log(trial) for trial in trials}) == len({trial.name for trial in trials})
    assert study.config(Trial("dr_grpo")).rl.loss.aggregation == "constant"
    assert study.config(Trial("group_4")).rl.prompts_per_step == 32
    assert study.config(Trial("grpo", learning_rate=1e-3)).rl.optimizer.learning_rate == 1e-3


def test_a_digest_is_of_what_numbers_follow_from(
    study: Study, model: Path, world: Path, tmp_path: Path
) -> None:
    """Other places of the same model and records change nothing; other records or weights do."""
    digest = digest_of(study.config(Trial("grpo")))
    moved = tmp_path / "moved"
    shutil.copytree(model, moved / "model")
    shutil.copytree(world, moved / "world")
    sizes = Sizes(heldout=12, steps=3, prompts=16)

    def now() -> str:
        again = make_study(shapes(), tmp_path / "other", moved / "model", moved / "world", sizes)
        return digest_of(again.config(Trial("grpo")))

    assert now() == digest
    (weights,) = (moved / "model").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes() + b"0")
    assert now() != digest
    shutil.copyfile(model / weights.name, weights)
    assert now() == digest
    file = moved / "world" / "onethinker_rl_train.json"
    file.write_text(file.read_text() + " ")
    assert now() != digest


def test_mixtures(study: Study) -> None:
    """A task that a mixture leaves out has weight 0 in RL, and stays among the held-out records."""
    for mixture, kept in MIXTURES.items():
        weights = study.config(Trial("grpo", mixture)).data.rl_mixture.tasks
        assert {str(task) for task in study.tasks} - set(weights) == {
            str(task) for task in study.tasks if task.problem_type in kept
        }
        assert set(weights.values()) <= {0.0}
    assert MIXTURES["sparse"] | MIXTURES["dense"] == MIXTURES["mixed"]
    assert not MIXTURES["sparse"] & MIXTURES["dense"]
    assert {family_of(str(task)) for task in TASKS} == set(FAMILIES)
    assert len(MIXTURES) == 3 + len(FAMILIES)


def test_a_part_of_the_heldout_records(study: Study, world: Path) -> None:
    """Every task keeps its share, to within a record, and the records their order."""
    (file,) = world.glob("eval_*.json")
    whole = json.loads(file.read_text())
    heldout_file = study.base.data.heldout_file
    assert heldout_file is not None
    part = json.loads(heldout_file.read_text())
    assert len(part) == 12 and [row for row in whole if row in part] == part
    for kind in {row["problem_type"] for row in whole}:
        in_whole, in_part = (sum(row["problem_type"] == kind for row in rows) for rows in (whole, part))
        assert abs(in_part - in_whole / 2) <= 2


@pytest.mark.parametrize(
    "made", [("heldout", "lengths"), ("heldout",)], ids=["lengths", "check_lengths_none"]
)
def test_a_trial_begins_with_what_the_start_has(study: Study, made: tuple[str, ...]) -> None:
    for name in made:
        (study.out / "start" / name).mkdir(parents=True)
        (study.out / "start" / name / "file").write_text(name)
    config = study.config(Trial("grpo"))
    study.take_start(config)
    found = {path.parent.name: path.read_text() for path in config.folder.path.rglob("file")}
    assert found == {name: name for name in made}


def test_trials_of_a_seed_are_side_by_side(tmp_path: Path) -> None:
    arguments = Arguments(tmp_path, arms=("none", "grpo", "rloo"), seeds=(0, 1), learning_rates=(1e-3,))
    assert [trial.name for trial in trials_of(arguments)] == [
        "none",
        "mixed-grpo-rate_0.001-seed_0",
        "mixed-rloo-rate_0.001-seed_0",
        "mixed-grpo-rate_0.001-seed_1",
        "mixed-rloo-rate_0.001-seed_1",
    ]


def test_refused(tmp_path: Path, model: Path) -> None:
    for told, error, said in (
        (["--arms", "grop"], SettingError, "unknown arm 'grop'.*did you mean"),
        (["--mixtures", "without_tracks"], SettingError, "unknown mixture"),
        (["--start", "model"], UsageError, "--start and --data go together"),
        (["--", "shapse"], UsageError, "unknown preset 'shapse'"),
    ):
        with pytest.raises(error, match=said):
            parse([str(tmp_path), *told])
    with pytest.raises(FileNotFoundError, match=r"onethinker_rl_train\.json: no such file"):
        make_study(smoke(), tmp_path, model, tmp_path, Sizes())
    with pytest.raises(SettingError, match="arm group_16: 8 samples a step"):
        settings_of(smoke(), "group_16", "mixed", TASKS, None)
    with pytest.raises(SettingError, match="--workers 1000"):
        core_shares(1000)


def test_lines_of_results(tmp_path: Path) -> None:
    """A line cut short is made again; a broken one and one of other settings are named."""
    file = tmp_path / "results.jsonl"
    assert read_lines(file) == []
    append_line(file, {"run": "a", "settings": "1"})
    with file.open("a") as opened:
        opened.write('{"run": "b", "sett')
    assert [line["run"] for line in read_lines(file)] == ["a"]
    append_line(file, {"run": "c", "settings": "2"})
    assert [line["run"] for line in read_lines(file)] == ["a", "c"]
    assert check_lines(file, {"a": "1", "d": "4"}) == {"a"}
    with pytest.raises(ResultsError, match="the line of run c is of other settings"):
        check_lines(file, {"c": "3"})
    file.write_text('{"run": "a"\n{}\n')
    with pytest.raises(ResultsError, match="line 1 is not JSON"):
        read_lines(file)
