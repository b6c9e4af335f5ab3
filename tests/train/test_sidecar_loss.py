"""A run whose reward service is killed: it waits for another at the same address, or stops and is gone on with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.rewards.client.server_process import RunningServer, start_server
from onethinker_jax.train.log.log import read_metrics
from tests.train import running
from tests.train.rl.small_run import is_timed
from tests.waiting import HANG_S

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
    rows = ["--rl.prompts-per-step", 6, "--rl.rollout.prompt-slots", 2, "--evaluation.no-sampled"]
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
        result = running.module("onethinker_jax.train", *flags, "--out", out, *addressed(server))
    assert result.returncode == 0, result.stderr
    assert len(metrics(out)) == STEPS
    return out


def same(ours: Path, theirs: Path) -> None:
    assert untimed(ours) == untimed(theirs)
    for name in ("model/model.safetensors", "heldout/rl.jsonl"):
        assert (ours / "smoke" / name).read_bytes() == (theirs / "smoke" / name).read_bytes(), name


def test_what_rewards_take_is_counted(undisturbed: Path) -> None:
    """That they hide behind decoding test_ema_grpo.py shows, where the sampler waits for them to."""
    rows = metrics(undisturbed)
    assert all(row["seconds/reward"] > 0 and row["seconds/reward_wait"] > 0 for row in rows)
    assert any(row["reward"] > 0 for row in rows)


def test_a_sidecar_that_comes_back(undisturbed: Path, flags: list[object], tmp_path: Path) -> None:
    with sidecar(tmp_path) as server:
        command, go = [*flags, "--out", tmp_path, *addressed(server)], tmp_path / "go"
        with running.started("rl", go, *command) as process:
            running.wait_for(tmp_path / "smoke", "rl", process)
            server.process.kill()
            server.process.wait()
            go.touch()  # what is asked for from here on finds nobody, until there is another
            with sidecar(tmp_path) as another:
                assert another.address == server.address
                out, error = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, out + error
    assert error == ""
    same(tmp_path, undisturbed)


def test_a_sidecar_that_is_gone(undisturbed: Path, flags: list[object], tmp_path: Path) -> None:
    with sidecar(tmp_path) as server:
        command, go = [*flags, "--out", tmp_path, *addressed(server)], tmp_path / "go"
        with running.started("rl", go, *command, "--sidecar.timeout", 20) as process:
            running.wait_for(tmp_path / "smoke", "rl", process)
            server.process.kill()
            server.process.wait()
            go.touch()
            _, error = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert line.startswith("error: ") and server.address in line
    done = metrics(tmp_path)[-1]["step"]
    assert 0 < done < STEPS
    numbers = [int(path.name) for path in (tmp_path / "smoke" / "checkpoints").iterdir()]
    assert max(numbers) == done
    with sidecar(tmp_path / "new") as server:
        result = running.module("onethinker_jax.train", *flags, "--out", tmp_path, *addressed(server))
    assert result.returncode == 0, result.stderr
    assert f"rl: {STEPS} steps from step {done}" in result.stdout
    same(tmp_path, undisturbed)
