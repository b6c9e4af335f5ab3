"""The batch script of Slurm, with stand-ins for srun and scontrol: two processes that find each other and train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.log.log import read_metrics
from tests.deploy.commands import DEPLOY
from tests.deploy.fake_command import fake
from tests.train import running
from tests.waiting import HANG_S

# Starts the step's tasks as Slurm does, one on each of two nodes that are this machine, and ends as the worst of them.
SRUN = """
import json, os, subprocess
words = sys.argv[1:]
options = [word for word in words if word.startswith("--")][: next(i for i, w in enumerate(words) if w[0] != "-")]
command = words[len(options):]
(here / "srun.json").write_text(json.dumps([options, command]))
if "END_WITH" in os.environ:
    sys.exit(int(os.environ["END_WITH"]))
step = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0"}
step |= {"SLURM_STEP_NODELIST": "localhost,another"}
tasks = []
for number in range(2):
    with (here / f"task{number}.log").open("w") as log:
        env = {**os.environ, **step, "SLURM_PROCID": str(number)}
        tasks.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """(here / "scontrol.json").write_text(__import__("json").dumps(sys.argv[1:]))\n"""


def submit(folder: Path, *arguments: object, **names: object) -> subprocess.CompletedProcess[str]:
    """Runs the script as Slurm would run it on the first node."""
    fake(folder, "srun", SRUN)
    fake(folder, "scontrol", SCONTROL)
    env = running.in_tests() | {"VENV": sys.prefix, "JAX_PLATFORMS": "cpu", "SLURM_JOB_ID": str(os.getpid())}
    env |= {"PATH": f"{folder}:{os.environ['PATH']}"} | {name: str(value) for name, value in names.items()}
    command = [DEPLOY / "slurm.sbatch", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=HANG_S, check=False
    )


SIZES = [
    "--mesh.fsdp",
    2,
    "--sft.batch.rows",
    2,
    "--rl.batch.rows",
    2,
    "--evaluation.sampler.prompt-slots",
    8,
]


def said(folder: Path) -> list[str]:
    """By each task."""
    return [(folder / f"task{number}.log").read_text() for number in range(2)]


def asked(folder: Path) -> tuple[list[str], list[str]]:
    """The options that srun got, and the command."""
    options, command = json.loads((folder / "srun.json").read_text())
    return options, command


def test_two_nodes_find_each_other(tmp_path: Path) -> None:
    """Up to the first weight, with no more said of who they are than Slurm's variables."""
    result = submit(tmp_path / "bin", "smoke", "--out", tmp_path, *SIZES, "--dry-run")
    assert result.returncode == 0, said(tmp_path / "bin")
    assert "dry run: everything checked" in said(tmp_path / "bin")[0]
    other = (tmp_path / "smoke" / "hosts" / "1" / "console.log").read_text()
    assert "dry run: everything checked" in other and "reward service" in other
    assert not (tmp_path / "bin" / "scontrol.json").exists()


@pytest.mark.slow
def test_two_nodes_train_together(tmp_path: Path) -> None:
    """SFT, RL and the export."""
    short = ["--sft.steps", 1, "--rl.steps", 1, "--evaluation.no-sampled"]
    result = submit(tmp_path / "bin", "smoke", "--out", tmp_path, *SIZES, *short)
    assert result.returncode == 0, said(tmp_path / "bin")
    rows = read_metrics(tmp_path / "smoke" / "metrics.jsonl")
    assert [(row["stage"], row["step"]) for row in rows] == [("sft", 1), ("rl", 1)]
    assert (tmp_path / "smoke" / "model" / "model.safetensors").is_file()
    assert "process 1 of 2" in (tmp_path / "smoke" / "hosts" / "1" / "console.log").read_text()


def test_a_job_that_was_stopped_is_queued_again(tmp_path: Path) -> None:
    """And with no other status."""
    assert (PreemptionSettings().exit_status, PreemptionSettings().deadline < 300) == (143, True)
    for status in (0, 1, 137, 143):
        folder = tmp_path / str(status)
        result = submit(folder, "smoke", END_WITH=status)
        assert result.returncode == status
        assert (folder / "scontrol.json").exists() == (status == 143)
    assert json.loads((tmp_path / "143" / "scontrol.json").read_text()) == ["requeue", str(os.getpid())]
    header = (DEPLOY / "slurm.sbatch").read_text()
    assert "#SBATCH --requeue" in header and "#SBATCH --signal=TERM@300" in header
    assert "#SBATCH --ntasks-per-node=1" in header and "#SBATCH --open-mode=append" in header


def test_a_step_that_hangs_again_and_again(tmp_path: Path) -> None:
    """The job is queued again three times, also where it was stopped in between, and no more."""
    for number, status in enumerate((124, 124, 143, 124, 124)):
        (tmp_path / "scontrol.json").unlink(missing_ok=True)
        result = submit(tmp_path, "smoke", END_WITH=status)
        assert result.returncode == status
        assert (tmp_path / "scontrol.json").exists() == (number < 4)
    assert (tmp_path / f"onethinker-{os.getpid()}.hangs").read_text() == "3\n"


def test_settings_of_a_run_stand_behind_the_preset(tmp_path: Path) -> None:
    for names, python in (({}, f"{sys.prefix}/bin/python"), ({"IMAGE": "trainer.sqsh"}, "python")):
        assert submit(tmp_path, "smoke", "--name", "two words", END_WITH=0, **names).returncode == 0
        options, command = asked(tmp_path)
        start = [python, "-m", "onethinker_jax.train", "smoke", "--name", "two words"]
        assert command == [*start, "--hosts.coordinator", "auto"]
        assert {"--kill-on-bad-exit=0", "--wait=120"} <= set(options)
        assert ("--container-image=trainer.sqsh" in options) == bool(names)


def test_without_an_environment(tmp_path: Path) -> None:
    result = submit(tmp_path, "smoke", END_WITH=0, VENV=tmp_path)
    assert (result.returncode, result.stderr) == (1, f"error: no {tmp_path}/bin/python: set VENV or IMAGE\n")


DEVICES = """
import os, sys
import jax
from onethinker_jax.host_settings import HostSettings
from onethinker_jax.train.hosts import join_hosts
assert join_hosts(HostSettings("auto")).count == 1
print(jax.config.read("jax_cuda_visible_devices"))
"""


@pytest.mark.parametrize(("names", "devices"), [({}, "all"), ({"JAX_LOCAL_DEVICE_IDS": "1,2"}, "1,2")])
def test_a_process_has_all_gpus_of_its_node(
    names: dict[str, str], devices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX itself would give it one, that of its number on the node."""
    step = {"JOB_ID": "7", "STEP_NODELIST": "localhost", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    step |= {"STEP_NUM_TASKS": "1", "STEP_NUM_NODES": "1"}
    for name, value in {**{f"SLURM_{name}": value for name, value in step.items()}, **names}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_COORDINATOR_PORT", str(running.free_port()))
    result = running.module("", code=DEVICES)
    assert (result.returncode, result.stdout) == (0, f"{devices}\n"), result.stderr
