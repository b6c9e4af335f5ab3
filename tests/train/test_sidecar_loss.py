"""A run whose reward service is killed: it waits for another at the same address, or stops and is gone on with."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.synthetic import build_shapes_world
from onethinker_jax.rewards.client import RunningServer, start_server
from onethinker_jax.train.log import read_metrics
from tests.train import running
from tests.train.rl import is_timed

pytestmark = pytest.mark.slow
STEPS = 5


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Of a small run of RL alone, every prompt of which is judged by the service."""
    world = build_shapes_world(
        tmp_path_factory.mktemp("world"), seed=1, train_rl=120, train_sft=20, heldout=12, captions=0
    )
    records = json.loads(world.rl_json.read_text())
    judged = [record for record in records if record["problem_type"] == "open-ended"]
    rl_file = world.rl_json.with_name("judged.json")
    rl_file.write_text(json.dumps(judged))
    files = [
        "--data.sft-file",
        world.sft_json,
        "--data.rl-file",
        rl_file,
        "--data.heldout-file",
        world.eval_json,
    ]
    steps = ["--sft.steps", 0, "--rl.steps", STEPS, "--rl.save-every", 2]
    rows = ["--rl.prompts", 6, "--rl.rollout-rows", 2, "--evaluation.no-sampled"]
    return ["smoke", *files, *steps, *rows]


@contextmanager
def sidecar(folder: Path) -> Iterator[RunningServer]:
    with start_server(folder / "reward.sock", folder / "reward.log") as server:
        yield server


def addressed(server: RunningServer) -> list[object]:
    return ["--sidecar.addresses", server.address]


def metrics(out: Path) -> list[dict]:
    return [row for row in read_metrics(out / "smoke" / "metrics.jsonl") if row["stage"] == "rl"]


def untimed(out: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if not is_timed(name)} for row in metrics(out)]


@pytest.fixture(scope="module")
def undisturbed(flags: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    with sidecar(out) as server:
        result = running.module("onethinker_jax.train", *flags, "--out", out, *addressed(server), timeout=900)
    assert result.returncode == 0, result.stderr
    assert len(metrics(out)) == STEPS
    return out


def same(ours: Path, theirs: Path) -> None:
    assert untimed(ours) == untimed(theirs)
    for name in ("model/model.safetensors", "heldout/rl.jsonl"):
        assert (ours / "smoke" / name).read_bytes() == (theirs / "smoke" / name).read_bytes(), name


def test_rewards_hide_behind_decoding(undisturbed: Path) -> None:
    """Three batches of prompts a step: the scores of the last alone are waited for."""
    rows = metrics(undisturbed)
    spent, waited = (sum(row[f"seconds/{name}"] for row in rows) for name in ("reward", "reward_wait"))
    assert 0 < waited < 0.8 * spent
    assert any(row["reward"] > 0 for row in rows)


def test_a_sidecar_that_comes_back(undisturbed: Path, flags: list[object], tmp_path: Path) -> None:
    with sidecar(tmp_path) as server:
        command = [*flags, "--out", tmp_path, *addressed(server)]
        with running.started(*command) as process:
            running.wait_for(tmp_path / "smoke", "rl", process)
            server.process.kill()
            server.process.wait()
            time.sleep(3)
            with sidecar(tmp_path) as another:
                assert another.address == server.address
                out, error = process.communicate(timeout=900)
    assert process.returncode == 0, out + error
    assert error == ""
    assert max(row["seconds/reward"] for row in metrics(tmp_path)) > 1  # it was missed
    same(tmp_path, undisturbed)


def test_a_sidecar_that_is_gone(undisturbed: Path, flags: list[object], tmp_path: Path) -> None:
    with sidecar(tmp_path) as server:
        command = [*flags, "--out", tmp_path, *addressed(server), "--sidecar.timeout", 4]
        with running.started(*command) as process:
            running.wait_for(tmp_path / "smoke", "rl", process)
            server.process.kill()
            _, error = process.communicate(timeout=900)
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert line.startswith("error: ") and server.address in line
    done = metrics(tmp_path)[-1]["step"]
    assert 0 < done < STEPS
    numbers = [int(path.name) for path in (tmp_path / "smoke" / "checkpoints").iterdir()]
    assert max(numbers) == done
    with sidecar(tmp_path / "new") as server:
        result = running.module(
            "onethinker_jax.train", *flags, "--out", tmp_path, *addressed(server), timeout=900
        )
    assert result.returncode == 0, result.stderr
    assert f"rl: {STEPS} steps from step {done}" in result.stdout
    same(tmp_path, undisturbed)
