"""Updates that are not finite: skipped on the device bit for bit, counted, and after too many in a row a stop.

SFT and RL with a very small policy; a NaN goes in with the batch, or straight into a gradient.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import smoke
from onethinker_jax.train.health.replay_folder import batch_of, read_replay
from onethinker_jax.train.health.stage_health import NotFinite
from onethinker_jax.train.log.log import read_metrics
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.rl import policy_update
from onethinker_jax.train.state import TrainState, init_state, make_update
from tests.data_pipeline.making import write_tokenizer
from tests.train import making, running
from tests.train.health.replaying import replayed
from tests.train.rl.small_run import FIRST, SETTINGS, metrics, numbers, same, saved
from tests.train.test_sft import SETTINGS as SFT
from tests.train.test_sft import Batches
from tests.train.test_sft import train as train_sft

NAN, INF = math.nan, math.inf


def toy_params() -> Any:
    layers = {"q_proj": {"kernel": jnp.ones((2, 4, 4))}}
    return {"decoder": {"layers": layers, "norm": {"scale": jnp.ones(4)}}}


def toy_loss(params: Any, _: Any, batch: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    return sum(jnp.sum(leaf * batch) for leaf in jax.tree.leaves(params)), {"tokens": jnp.float32(1)}  # type: ignore[return-value]


@pytest.fixture(scope="module", params=["adamw", "muon"])
def toy(request: pytest.FixtureRequest) -> tuple[Any, Callable[[], TrainState]]:
    """An update that stops after three, and a fresh state for it."""
    settings = OptimizerSettings(1e-2, kind=request.param, schedule="constant", warmup=0.0)
    optimizer = make_optimizer(settings, 10, train_vision=True)

    def fresh() -> TrainState:
        return init_state(toy_params(), optimizer, init_moments(2), make_mesh(), reference=False)

    return make_update(toy_loss, optimizer, stop_after=3), fresh


def bits(state: TrainState) -> dict[str, bytes]:
    """Of all that an update may change but the skips."""
    tree = (state.params, state.optimizer, state.step, state.moments)
    return {name: array.tobytes() for name, array in making.named(tree).items()}


def skips(state: TrainState) -> tuple[int, int]:
    return int(state.skips.total), int(state.skips.in_a_row)


@pytest.mark.parametrize(("bad", "loss"), [(NAN, 1.0), (INF, 1.0), (-INF, 1.0), (1.0, NAN), (1.0, INF)])
def test_one_bad_number_leaves_every_bit(toy: Any, bad: float, loss: float) -> None:
    """In one value of one gradient, or in the loss alone; the next update goes on as if there had been none."""
    update, fresh = toy
    good = jax.tree.map(jnp.ones_like, toy_params())
    one, two = jnp.float32(1), jnp.float32(2)
    state, _ = update.apply(fresh(), good, one, one)
    before, expected = (
        bits(state),
        bits(update.apply(update.apply(fresh(), good, one, one)[0], good, two, one)[0]),
    )
    gradients = jax.tree.map(jnp.ones_like, toy_params())
    layer = gradients["decoder"]["layers"]["q_proj"]
    layer["kernel"] = layer["kernel"].at[1, 3, 3].set(bad)
    state, norm = update.apply(state, gradients, one, jnp.float32(loss))
    assert bits(state) == before
    assert skips(state) == (1, 1)
    assert math.isfinite(norm) == math.isfinite(bad)
    state, _ = update.apply(state, good, two, one)
    assert bits(state) == expected
    assert skips(state) == (1, 0)


def test_after_three_in_a_row_nothing_is_taken(toy: Any) -> None:
    """Until the host has looked: the state is that which the three met, and they alone are counted."""
    update, fresh = toy
    one, good = jnp.float32(1), jax.tree.map(jnp.ones_like, toy_params())
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, NAN), toy_params())
    state = fresh()
    before = bits(state)
    for gradients, counted in zip(
        [bad, bad, bad, good, bad], [(1, 1), (2, 2), (3, 3), (3, 3), (3, 3)], strict=True
    ):
        state, _ = update.apply(state, gradients, one, one)
        assert skips(state) == counted
        assert bits(state) == before


def test_a_shard_of_a_gradient_stops_all_devices() -> None:
    """The norm is that of the whole gradient: a NaN on one of eight devices is seen by all."""
    mesh, optimizer = (
        make_mesh(data=2, fsdp=2, tensor=2),
        make_optimizer(OptimizerSettings(1e-2), 4, train_vision=True),
    )
    update = make_update(toy_loss, optimizer)
    with jax.set_mesh(mesh):
        state = init_state(toy_params(), optimizer, init_moments(1), mesh, reference=False)
        gradients: Any = update.zeros(state.params)
        layer = gradients["decoder"]["layers"]["q_proj"]
        assert not layer["kernel"].is_fully_replicated
        layer["kernel"] = layer["kernel"].at[1, 3, 3].set(NAN)
        state, _ = update.apply(state, gradients, jnp.float32(1), jnp.float32(1))
    assert {int(np.asarray(shard.data)) for shard in state.skips.total.addressable_shards} == {1}
    assert np.all(np.asarray(state.params["decoder"]["layers"]["q_proj"]["kernel"]) == 1)


class Poisoned(Batches):
    """Batches of SFT whose micro-batches of these numbers, from 1, hold a NaN in the place of a patch."""

    def __init__(self, *bad: int, **options: Any) -> None:
        super().__init__(**options)
        self.bad = bad

    def __next__(self) -> Any:
        batch = super().__next__()
        if self.taken not in self.bad:
            return batch
        vision: Any = batch.inputs.vision
        weights = np.array(vision.embed_weight)
        weights[0, 0] = NAN
        return replace(batch, inputs=replace(batch.inputs, vision=replace(vision, embed_weight=weights)))

    def records(self, before: dict[str, int], after: dict[str, int]) -> list[Any]:
        return []


@pytest.fixture(scope="module")
def sft_policy() -> Any:
    return making.policy()


LONG = replace(SFT, steps=8, accumulate=1, log_every=4, save_every=8, train_vision=True)


def test_sft_skips_and_goes_on(sft_policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two bad updates of eight, which Batches gives with media; a stop between them changes nothing."""
    whole = train_sft(sft_policy, tmp_path / "whole", Poisoned(2, 7), LONG)
    said = capsys.readouterr().out
    assert "sft step 4: 1 update was skipped, the last of step 2 with loss nan" in said
    assert "sft step 8: 1 update was skipped, the last of step 7 with loss nan" in said
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [row["health/skipped_updates"] for row in rows] == [1, 2]
    assert all(np.isfinite(leaf).all() for leaf in making.named(whole).values())

    class Killed(Poisoned):
        def __next__(self) -> Any:
            if self.taken == 6:
                raise OSError("power cut")
            return super().__next__()

    often = replace(LONG, save_every=3)
    with pytest.raises(OSError, match="power cut"):
        train_sft(sft_policy, tmp_path / "cut", Killed(2, 7), often)
    same(train_sft(sft_policy, tmp_path / "cut", Poisoned(2, 7), often), whole)
    again = read_metrics(tmp_path / "cut" / "metrics.jsonl")
    assert [row["health/skipped_updates"] for row in again] == [1, 2]
    flags = [
        json.loads((tmp_path / run / "checkpoints" / "8" / "host" / "metadata").read_text())["health"]
        for run in ("whole", "cut")
    ]
    assert flags[0] == flags[1] and len(flags[0]["flags"]["norms"]) == 6


def test_sft_stops_after_three_in_a_row(
    sft_policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noticed at step 8, which is logged; kept and saved is step 5, and what came behind it comes again."""
    with pytest.raises(ZeroDivisionError):  # a clean run until step 2
        train_sft(sft_policy, tmp_path / "clean", Batches(3, lambda: 1 // 0), replace(LONG, save_every=2))
    with pytest.raises(NotFinite) as stopped:
        train_sft(sft_policy, tmp_path / "run", Poisoned(3, 4, 5), replace(LONG, log_every=8))
    message, folder = str(stopped.value), tmp_path / "run" / "replay" / "sft_00000005"
    # the batch of step 5 has no medium: its loss is finite, and a gradient is not
    assert re.match(
        r"sft step 5: 3 updates in a row were not finite \(loss \d+\.\d+, gradient norm nan\)", message
    )
    assert f"in {folder}: python -m onethinker_jax.train.replay {tmp_path / 'run'} looks at it" in message
    assert "\n" not in message
    assert numbers(tmp_path / "run") == [5]
    kept = read_replay(folder)
    assert kept.facts["step"] == 5 and kept.facts["stage"] == "sft"
    (arrays,) = kept.micro_batches
    made = Poisoned(5)
    made.taken = 4
    for name, array in making.named(next(made)).items():
        np.testing.assert_array_equal(making.named(batch_of(arrays))[name], array, err_msg=name)

    params = sft_policy[1]
    optimizer = make_optimizer(LONG.optimizer, LONG.steps, train_vision=True)
    like = init_state(
        jax.tree.map(jnp.copy, params), optimizer, init_moments(1), make_mesh(), reference=False
    )
    met = making.named(kept.state(like).params)
    clean = making.named(saved_state(tmp_path / "clean", 2)["params"])
    assert [values.tobytes() for values in met.values()] == [values.tobytes() for values in clean.values()]

    config = replace(smoke(), name="run", out=tmp_path, sft=LONG, model=replace(smoke().model, remat="none"))
    said = replayed(config, making.CONFIG, capsys)
    assert "sft step 5: loss 175" in said and "gradient norm nan in the run; 1 micro-batches" in said
    assert re.search(
        r"0 +│ 175\.\d+ +│ nan +│ +\d+", said
    )  # the loss again, and a gradient that is not finite
    assert re.search(r"decoder\.layers +│ \d", said) and re.search(r"visual\.[a-z_]+ +│ nan", said)
    assert "not finite: input inputs.vision.embed_weight of micro-batch 0: in rows 0" in said
    lines = [line for line in said.splitlines() if line.startswith("not finite: gradient ")]
    assert lines and all(line.startswith("not finite: gradient visual.") for line in lines)
    assert "not finite: parameter" not in said and "not finite: optimiser" not in said

    settings = replace(LONG, log_every=8)
    gone_on = train_sft(sft_policy, tmp_path / "run", Poisoned(3, 4, 5), settings)
    (row,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert row["health/skipped_updates"] == 3 and row["step"] == 8
    through = train_sft(
        sft_policy,
        tmp_path / "through",
        Poisoned(3, 4, 5),
        settings,
        HealthSettings(max_consecutive_nonfinite=4),
    )
    same(gone_on, through)


def poison(monkeypatch: pytest.MonkeyPatch, *bad: int) -> None:
    """The minibatches of RL of these numbers, from 1, were sampled with a probability that is not a number."""
    made, seen = policy_update.policy_batches, [0]

    def poisoned(*arguments: Any) -> Any:
        seen[0] += 1
        batches = made(*arguments)
        if seen[0] in bad:
            sampled = np.array(batches[0].sampled)
            sampled[np.asarray(batches[0].batch.target_mask)] = NAN
            batches[0] = replace(batches[0], sampled=sampled)
        return batches

    monkeypatch.setattr(policy_update, "policy_batches", poisoned)


def test_rl_skips_and_goes_on(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of which nothing is taken leaves the moments too; of another, one of two updates counts."""
    settings = replace(SETTINGS, steps=3, save_every=1)
    poison(monkeypatch, 3, 4, 5)
    generous = HealthSettings(max_consecutive_nonfinite=4)
    train(tmp_path / "run", settings=settings, health=generous)
    rows = metrics(tmp_path / "run")
    assert [row["health/skipped_updates"] for row in rows] == [0, 2, 3]
    assert "loss" not in rows[1] and rows[1]["trained_tokens"] == 0 and rows[1]["reward"] > 0
    assert rows[2]["loss"] is not None and rows[2]["grad_norm"] > 0
    states = [saved_state(tmp_path / "run", FIRST + step) for step in (1, 2, 3)]
    for part in ("params", "optimizer", "step", "moments"):
        first, second, third = (making.named(state[part]) for state in states)
        for name, array in first.items():
            assert array.tobytes() == second[name].tobytes(), name
        assert any(array.tobytes() != third[name].tobytes() for name, array in first.items()), part


def test_rl_stops_after_three_in_a_row(
    train: Any,
    processor: Processor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison(monkeypatch, 3, 4, 5)
    with pytest.raises(NotFinite, match=r"rl step 3: 3 updates in a row .*/rl_00000003: python -m"):
        train(tmp_path / "run", settings=SETTINGS)
    assert numbers(tmp_path / "run") == [FIRST + 3]
    kept = read_replay(tmp_path / "run" / "replay" / "rl_00000003")
    assert len(kept.records) == SETTINGS.prompts_per_step // SETTINGS.num_minibatches
    for record in kept.records:
        assert len(record["samples"]) == len(record["advantages"]) == SETTINGS.rollout.group_size
        assert record["problem_id"] in range(20)
    assert np.isnan(kept.micro_batches[0]["sampled"]).any()
    config = replace(smoke(), name="run", out=tmp_path, rl=SETTINGS)
    write_tokenizer(config.folder.base, image_pixels=(1024, 4096))
    said = replayed(config, making.config_for(processor), capsys, config.folder.replay("rl", 3))
    assert "rl step 3: loss nan, gradient norm nan in the run; " in said
    assert "not finite: input sampled of micro-batch 0: in rows" in said
    assert "not finite: gradient decoder.layers." in said and "in layers 0, 1 of 2" in said
    assert "kl_reference" in said and "Rows of the micro-batches that are not finite, each alone" in said
    assert "records of the row" in said and re.search(r"│ record \d+", said)

    monkeypatch.undo()
    train(tmp_path / "run", settings=SETTINGS)
    assert [row["health/skipped_updates"] for row in metrics(tmp_path / "run")] == [0, 2, 3, 3]
    assert saved(tmp_path / "run", FIRST + 4)["stream"]


def saved_state(directory: Path, number: int) -> Any:
    """A checkpoint's state, whatever its structure."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        return reader.restore((directory / "checkpoints" / str(number) / "state").absolute())


def test_two_processes_skip_and_keep_the_same_update(tmp_path: Path) -> None:
    port, module = running.free_port(), "tests.train.health.nonfinite_process"
    commands = [["-m", module, number, port, tmp_path] for number in range(2)]
    ends = running.ends_of(running.start_together(commands, devices=2))
    assert [status for status, _ in ends] == [0, 0], ends
