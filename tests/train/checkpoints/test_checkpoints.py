"""Checkpoints: exact, complete, and never passed over in silence when they are broken."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.advantages import compute_advantages, init_moments
from onethinker_jax.train.checkpoints.checkpoints import LAYOUT, CheckpointError, Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.config.objective import AdvantageConfig
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.state import TrainState, init_state, make_update

OPTIMIZER = make_optimizer(OptimizerSettings(1e-2), 5, train_vision=True)


def loss(params: Any, reference: Any, batch: Any) -> Any:
    value = sum(jnp.sum(jnp.sin(leaf) * batch) for leaf in jax.tree.leaves(params))
    return value, {"tokens": jnp.float32(1)}


UPDATE = make_update(loss, OPTIMIZER)


def fresh(width: int = 400) -> TrainState:
    params: Any = {
        "lm_head": {"kernel": np.linspace(-1, 1, 3 * width, dtype=np.float32).reshape(3, width)},
        "visual": {"patch_embed": {"bias": np.ones(2, np.float32)}},
    }
    params = jax.tree.map(jnp.asarray, params)
    return init_state(params, OPTIMIZER, init_moments(3), make_mesh(), reference=True)


def stepped(state: TrainState, number: int) -> TrainState:
    """The state after an update and a batch of rewards."""
    rewards = np.array([0.1, 0.2 * number, 0.3, 0.7], np.float32)
    groups, tasks = np.array([0, 0, 1, 1]), np.array([0, 0, 2, 2])
    _, moments = compute_advantages(rewards, groups, tasks, state.moments, AdvantageConfig())
    state = replace(state, moments=moments)
    gradients, sums = UPDATE.accumulate(
        state.params, state.reference, UPDATE.zeros(state.params), jnp.float32(number)
    )
    return UPDATE.apply(state, gradients, sums["tokens"], sums["loss"])[0]


def same(ours: TrainState, theirs: TrainState) -> None:
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))
        assert mine.dtype == other.dtype


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainState]]:
    """A folder with checkpoints 2 and 3 of three saved ones, and the states at 0 .. 3."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints, state = Checkpoints(directory, CheckpointSettings()), fresh()
    states = [jax.device_get(state)]
    for number in (1, 2, 3):
        state = stepped(state, number)
        checkpoints.save(number, state, {"stage": "rl", "floats": [0.1, 1e-45, 3.0]})
        states.append(jax.device_get(state))
    state = stepped(state, 4)  # goes on at once, in the buffers of what is being saved
    checkpoints.close()
    return directory, states


def test_a_state_comes_back_in_every_bit(saved: tuple[Path, list[TrainState]]) -> None:
    directory, states = saved
    checkpoints = Checkpoints(directory)
    assert checkpoints.newest() == (3, {"layout": LAYOUT, "stage": "rl", "floats": [0.1, 1e-45, 3.0]})
    for number in (2, 3):
        same(checkpoints.restore(number, fresh()), states[number])
    assert sorted(path.name for path in directory.iterdir()) == ["2", "3"]
    checkpoints.close()


def test_going_on_from_a_checkpoint(saved: tuple[Path, list[TrainState]]) -> None:
    """A restored state makes the steps that the uninterrupted one makes, without compiling anything anew."""
    directory, states = saved
    checkpoints = Checkpoints(directory)
    like = fresh()
    restored = checkpoints.restore(2, like)
    for mine, other in zip(jax.tree.leaves(restored), jax.tree.leaves(like), strict=True):
        assert mine.sharding == other.sharding
    same(stepped(restored, 3), states[3])
    checkpoints.close()


def test_parameters_alone(saved: tuple[Path, list[TrainState]]) -> None:
    directory, states = saved
    checkpoints = Checkpoints(directory)
    arrays = checkpoints.arrays(3)
    assert {name: one.shape for name, one in arrays.shapes.items()} == {
        "lm_head.kernel": (3, 400),
        "visual.patch_embed.bias": (2,),
    }
    np.testing.assert_array_equal(arrays.read("lm_head.kernel"), states[3].params["lm_head"]["kernel"])
    checkpoints.close()


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.newest() is None
    checkpoints.close()


def break_file(pattern: str, how: str):
    def apply(directory: Path) -> None:
        files = [file for file in sorted(directory.glob(pattern)) if file.is_file()]
        assert files, pattern
        for file in files:
            data = file.read_bytes()
            if how == "remove":
                file.unlink()
            else:
                file.write_bytes(data[: len(data) // 2] if how == "cut" else bytes(len(data)))

    return apply


DAMAGES = {
    "no host part": lambda directory: shutil.rmtree(directory / "host"),
    "no state": lambda directory: shutil.rmtree(directory / "state"),
    "host file gone": break_file("host/metadata", "remove"),
    "host file cut": break_file("host/metadata", "cut"),
    "structure gone": break_file("state/_METADATA", "remove"),
    "structure cut": break_file("state/_METADATA", "cut"),
    "manifest gone": break_file("state/manifest.ocdbt", "remove"),
    "index cut": break_file("state/d/*", "cut"),
    "numbers gone": break_file("state/**/d/*", "remove"),
    "numbers cut": break_file("state/**/d/*", "cut"),
    "numbers zero": break_file("state/**/d/*", "zero"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_is_named(
    damage: str, saved: tuple[Path, list[TrainState]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither taken for good nor passed over for the one before, and nothing else is said of it."""
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved[0], directory)
    DAMAGES[damage](directory / "3")
    checkpoints = Checkpoints(directory)
    with pytest.raises(CheckpointError) as caught:
        newest = checkpoints.newest()
        assert newest is not None and newest[0] == 3
        checkpoints.restore(3, fresh())
    message = str(caught.value)
    assert message.startswith(f"checkpoint {directory / '3'} cannot be restored: ")
    assert "\n" not in message
    assert capfd.readouterr().err == ""
    checkpoints.close()


def test_a_checkpoint_of_another_shape(saved: tuple[Path, list[TrainState]]) -> None:
    checkpoints = Checkpoints(saved[0])
    with pytest.raises(
        CheckpointError, match=re.escape("its params.lm_head.kernel is float32 [3, 400], and this")
    ):
        checkpoints.restore(3, fresh(width=401))
    checkpoints.close()


def test_what_was_being_written_does_not_count(saved: tuple[Path, list[TrainState]], tmp_path: Path) -> None:
    """A process killed while saving leaves a folder under another name; the checkpoint before it is used."""
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved[0], directory)
    (directory / "3").rename(directory / "3.orbax-checkpoint-tmp-0")
    checkpoints = Checkpoints(directory)
    newest = checkpoints.newest()
    assert newest is not None and newest[0] == 2
    same(checkpoints.restore(2, fresh()), saved[1][2])
    checkpoints.close()
