"""Runs of several processes: what they agree on, whole runs, stops and failures."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from onethinker_jax.host_settings import HostSettingError, HostSettings
from onethinker_jax.processes import HostError
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.config.presets_qwen3_vl import SLICES
from onethinker_jax.train.cost.hardware import parse_topology
from onethinker_jax.train.hosts import Hosts, join_hosts
from onethinker_jax.train.log.log import read_metrics
from tests.train import running
from tests.train.rl.small_run import metrics

# For two processes of two devices.
SIZES = (
    "--mesh.fsdp",
    4,
    "--sft.batch.rows",
    4,
    "--rl.batch.rows",
    4,
    "--evaluation.sampler.prompt-slots",
    8,
)


def test_alone():
    value = ("a tuple", None)
    assert Hosts().gather(value) == [value] and Hosts().gather(value)[0] is value
    assert Hosts().any(True) and not Hosts().any(False)
    with pytest.raises(ZeroDivisionError):
        Hosts().first_does(lambda: 1 // 0)
    assert Hosts().folder(smoke()) == smoke().folder and Hosts().share(smoke()) is not None
    assert join_hosts(HostSettings()) == Hosts()


def test_a_process_has_its_share_of_rows_and_prompts():
    whole = smoke()
    whole = replace(
        whole,
        mesh=MeshSettings(data=2, fsdp=2, tensor=2),
        sft=replace(whole.sft, batch=replace(whole.sft.batch, rows=8)),
        rl=replace(
            whole.rl,
            prompts_per_step=16,
            rollout=replace(whole.rl.rollout, prompt_slots=8),
            prompts_ahead=5,
            batch=replace(whole.rl.batch, rows=4),
        ),
    )
    part = Hosts(1, 2).share(whole)
    assert part.mesh == MeshSettings(data=1, fsdp=2, tensor=2)
    assert part.sft.batch.rows == 4 and part.rl.batch.rows == 2
    assert (part.rl.prompts_per_step, part.rl.rollout.prompt_slots, part.rl.prompts_ahead) == (8, 4, 3)
    assert 2 * part.evaluation.sampler.together == whole.evaluation.sampler.together
    assert Hosts().share(whole) is whole
    assert Hosts(0, 4).folder(whole).path == whole.directory
    assert Hosts(2, 4).folder(whole).path == whole.directory / "hosts" / "2"


@pytest.mark.parametrize("preset", SLICES)
def test_every_preset_divides_over_hosts_of_four_chips(preset):
    count = parse_topology(SLICES[preset]).devices // 4
    part = Hosts(count - 1, count).share(preset())
    assert part.mesh.size == 4 and part.mesh.tensor == preset().mesh.tensor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"prompts_per_step": 6},
            r"rl.prompts_per_step 6 is not a multiple of 2 processes x 2 rl.num_minibatches",
        ),
        ({}, r"mesh.data x mesh.fsdp 1 is not a multiple of the 2 processes"),
        (
            {"overlap": True, "loss": PolicyLossSettings(importance_sampling="token_truncate")},
            r"rl.overlap needs a run of one process",
        ),
    ],
)
def test_what_cannot_be_divided(changes, message):
    whole = smoke()
    with pytest.raises(SettingError, match=message):
        Hosts(0, 2).share(replace(whole, rl=replace(whole.rl, **changes)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coordinator": "10.0.0.1:99"}, "give host:port, and hosts.count and hosts.index"),
        ({"coordinator": "somewhere", "count": 2, "index": 0}, "hosts.coordinator somewhere: give host:port"),
        ({"coordinator": "a:1", "count": 2, "index": 2}, "hosts.index 2 is not one of hosts.count 2"),
        ({"count": 2}, "go with hosts.coordinator host:port"),
        ({"coordinator": "auto", "index": 2}, "go with hosts.coordinator host:port"),
    ],
)
def test_settings_that_name_nobody(settings, message):
    with pytest.raises(HostSettingError, match=message):
        HostSettings(**settings)


def test_auto_without_a_cluster(monkeypatch):
    def initialize(*_: object, **__: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    with pytest.raises(HostError, match="coordinator auto: this is no cluster that JAX knows"):
        join_hosts(HostSettings("auto"))


def test_two_processes_exchange_and_share():
    port = running.free_port()
    commands = [["-m", "tests.train.host_process", number, port] for number in range(2)]
    ends = running.ends_of(running.start_together(commands, devices=2))
    assert [status for status, _ in ends] == [0, 0], ends


def run(out: Path, *arguments: object) -> list[tuple[int, str]]:
    """Both processes of a smoke run to their end."""
    commands = running.hosts("smoke", "--out", out, *SIZES, *arguments)
    return running.ends_of(running.start_together(commands, devices=2))


def stopped(
    out: Path, stage: str, number: int, sign: signal.Signals, *arguments: object
) -> list[tuple[int, str]]:
    """The same, but one of the processes gets a signal when the first step of the stage is in its metrics."""
    at = number, stage, sign.name
    commands = running.hosts("smoke", "--out", out, *SIZES, *arguments, at=at)
    return running.ends_of(running.start_together(commands, devices=2))


def assert_equal(out: Path, whole: Path) -> None:
    """The same model, bit for bit, and the same curves."""
    ours, theirs = (load_file(folder / "smoke" / "model" / "model.safetensors") for folder in (out, whole))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert metrics(out / "smoke") == metrics(whole / "smoke")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole")
    ends = run(out)
    assert [status for status, _ in ends] == [0, 0], ends
    assert "warning" not in ends[0][1], ends[0][1]
    return out


@pytest.mark.slow
def test_files_of_a_run(whole: Path):
    """One model, one set of answers; what is each process's own is in its folder, with the same curves."""
    run_folder, other = whole / "smoke", whole / "smoke" / "hosts" / "1"
    records = json.loads((run_folder / "data" / "eval_shapes.json").read_text())
    for stage in ("fresh", "sft", "rl"):
        rows = (run_folder / "heldout" / f"{stage}.jsonl").read_text().splitlines()
        assert [json.loads(row)["problem_id"] for row in rows] == [record["problem_id"] for record in records]
    assert metrics(other) == metrics(run_folder)
    assert (run_folder / "index.html").is_file() and not (other / "index.html").exists()
    said = (other / "console.log").read_text()
    assert "process 1 of 2" in said and "warning" not in said
    steps = [row for row in read_metrics(run_folder / "metrics.jsonl") if row["stage"] == "rl"]
    assert {row["prompts_drawn"] for row in steps} == {smoke().rl.prompts_per_step}


@pytest.mark.slow
def test_stopped_twice_it_ends_in_the_same_bits(whole: Path, tmp_path: Path):
    """SIGTERM and Ctrl-C reach one of the processes; both stop after the same step."""
    for stage, number, sign, status in (("sft", 1, signal.SIGTERM, 143), ("rl", 0, signal.SIGINT, 130)):
        ends = stopped(tmp_path, stage, number, sign)
        assert [ended for ended, _ in ends] == [status, status], ends
    assert [status for status, _ in run(tmp_path)] == [0, 0]
    assert_equal(tmp_path, whole)


@pytest.mark.slow
def test_a_stop_in_an_update(whole: Path, tmp_path: Path):
    """SIGTERM reaches one of the processes; both cut the step between the same two micro-batches, and go on there."""
    patient = "--preemption.deadline", 1e6
    commands = running.hosts("smoke", "--out", tmp_path, *SIZES, *patient, at=(1, "rl", "SIGTERM@update"))
    ends = running.ends_of(running.start_together(commands, devices=2))
    assert [status for status, _ in ends] == [143, 143], ends
    (kept,) = (tmp_path / "smoke" / "checkpoints").glob(f"{smoke().sft.steps + 1}/host/metadata")
    parts = json.loads(kept.read_text())["hosts"]
    begun = [part["ahead"]["begun"] and part["ahead"]["begun"]["groups"] for part in parts]
    assert len(begun) == 2 and begun[0] == begun[1]
    assert [status for status, _ in run(tmp_path)] == [0, 0]
    assert_equal(tmp_path, whole)


@pytest.mark.slow
def test_a_process_is_killed(whole: Path, tmp_path: Path):
    """The other one ends too; started again, they go on from the newest checkpoint."""
    shutil.copytree(whole / "smoke" / "data", tmp_path / "smoke" / "data")
    ends = stopped(tmp_path, "rl", 1, signal.SIGKILL)
    assert ends[0][0] != 0 and ends[1][0] == -signal.SIGKILL, ends
    assert [status for status, _ in run(tmp_path)] == [0, 0]
    assert_equal(tmp_path, whole)


@pytest.mark.slow
def test_one_process_gives_the_same(whole: Path, tmp_path: Path):
    """RL on the devices of two processes and of one: the same prompts and samples, sums in another order."""
    arguments = ("--sft.steps", 0, "--rl.loss.entropy-coefficient", 0.05, "--evaluation.no-sampled")
    assert [status for status, _ in run(tmp_path / "two", *arguments)] == [0, 0]
    status, said = run_alone("onethinker_jax.train", "smoke", "--out", tmp_path / "one", *SIZES, *arguments)
    assert status == 0, said
    # SIGTERM stops the third run after each of its first two steps; two processes begin, one goes on, two end.
    out = tmp_path / "changing"
    ends = stopped(out, "rl", 1, signal.SIGTERM, *arguments)
    assert [status for status, _ in ends] == [143, 143], ends
    at = "tests.train.at_a_step", "rl", "SIGTERM"
    status, said = run_alone(*at, "smoke", "--out", out, *SIZES, *arguments)
    assert status == 143 and "the checkpoint is of 2 processes, not 1: from here on" in said, said
    ends = run(out, *arguments)
    assert [status for status, _ in ends] == [0, 0] and "the checkpoint is of 1 process, not 2" in ends[0][
        1
    ], ends
    for name in ("two", "changing"):
        assert_close(tmp_path / name / "smoke", tmp_path / "one" / "smoke")


def run_alone(*command: object) -> tuple[int, str]:
    """One process on the devices of both."""
    return running.ends_of(running.start_together([["-m", *command]], devices=4))[0]


def assert_close(ours_in: Path, theirs_in: Path) -> None:
    """The same curves of RL to rounding, the same numbers of prompts and tokens."""
    two, one = ([row for row in metrics(name) if row["stage"] == "rl"] for name in (ours_in, theirs_in))
    assert len(one) == len(two) == smoke().rl.steps
    for ours, theirs in zip(two, one, strict=True):
        for row in (ours, theirs):
            del row["micro_batches"], row["stage"]  # each process fills its own rows
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), (name, ours["step"])
        assert ours["sampled_tokens"] == theirs["sampled_tokens"]
    assert one[-1]["grad_norm"] > 0


@pytest.mark.slow
def test_the_reward_service_of_one_process_goes(whole: Path, tmp_path: Path):
    """Both stop after a checkpoint, the other one saying where it failed, and the run goes on from there."""
    go = tmp_path / "go"
    flags = "--out", tmp_path, *SIZES, "--sidecar.timeout", 20
    commands = running.hosts("smoke", *flags, at=(1, "rl", go))
    processes = running.start_together(commands, devices=2)
    running.wait_for(tmp_path / "smoke" / "hosts" / "1", "rl", processes[1])
    log = tmp_path / "smoke" / "hosts" / "1" / "console.log"
    service = next(line for line in log.read_text().splitlines() if "reward service" in line)
    os.kill(int(service.rsplit(" ", 1)[1]), signal.SIGKILL)
    go.touch()
    ends = running.ends_of(processes)
    assert [status for status, _ in ends] == [1, 1], ends
    assert "error: process 1: " in ends[0][1] and "process 1" not in ends[1][1], ends
    assert [status for status, _ in run(tmp_path)] == [0, 0]
    assert_equal(tmp_path, whole)
