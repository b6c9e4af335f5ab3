"""A run goes on on another mesh: the state is the same in every bit, what follows is equal to rounding."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.batches.packing import Batch
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, tree_shardings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.log.log import RunLog, read_metrics
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.policy_digest import policy_digest
from onethinker_jax.train.sft import train_sft
from tests.train import making
from tests.train.test_sft import SETTINGS, open_run

CONSTANT = OptimizerSettings(learning_rate=1e-3, schedule="constant", warmup=0.0)
FOUR_STEPS = replace(SETTINGS, steps=4, accumulate=1, optimizer=CONSTANT, log_every=1)


class FourRows:
    """Batches of four rows; its state is how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __next__(self) -> Batch:
        self.taken += 1
        first = self.taken % len(making.ROWS)
        return making.batch(making.ROWS[first:] + making.ROWS[:first])

    def state(self) -> dict[str, int]:
        return {"taken": self.taken}

    def restore(self, state: dict[str, int]) -> None:
        self.taken = state["taken"]


def train(directory: Path, mesh: Mesh) -> tuple[str, nnx.State]:
    """The digest of the parameters that the run begins or goes on with, and those at its end."""
    graphdef, sizes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(making.CONFIG_FOR_TWO, rngs=nnx.Rngs(0))))
    batches: Any = FourRows()
    with jax.set_mesh(mesh), RunLog(directory) as log, open_run(directory, log) as run:
        fresh = jax.jit(
            lambda: nnx.state(Qwen3VL(making.CONFIG_FOR_TWO, rngs=nnx.Rngs(0))),
            out_shardings=tree_shardings(sizes, mesh),
        )
        read, begun_with = run.checkpoints.restore, []

        def restore(number: int, like: Any) -> Any:
            state = read(number, like)
            begun_with.append(policy_digest(state.params))
            assert {leaf.sharding.mesh.shape_tuple for leaf in jax.tree.leaves(state.params)} == {
                mesh.shape_tuple
            }
            return state

        run.checkpoints.restore = restore  # type: ignore[method-assign]
        params = train_sft(Policy(graphdef, mesh), fresh(), batches, FOUR_STEPS, run)
        return (begun_with or [""])[0], params


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices, virtual ones do")
def test_two_by_two_devices_and_then_four_by_one(tmp_path: Path) -> None:
    square, row = make_mesh(fsdp=2, tensor=2), make_mesh(fsdp=4)
    train(tmp_path / "square", square)
    for name in ("row", "again"):
        shutil.copytree(tmp_path / "square", tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / "4")
    at_two, there = train(tmp_path / "row", row)
    same_at_two, here = train(tmp_path / "again", square)
    assert at_two == same_at_two != ""
    whole, moved, again = (
        read_metrics(tmp_path / name / "metrics.jsonl") for name in ("square", "row", "again")
    )
    assert [line["step"] for line in moved] == [1, 2, 3, 4]
    for one, two, three in zip(whole, moved, again, strict=True):
        for name in ("loss", "grad_norm"):
            assert one[name] == three[name]
            assert two[name] == pytest.approx(one[name], rel=1e-4)
    assert policy_digest(here) != policy_digest(there)  # so the tolerance is not idle
    for name, value in making.named(here).items():
        np.testing.assert_allclose(making.named(there)[name], value, atol=2.1e-3)  # two steps of Adam of 1e-3
