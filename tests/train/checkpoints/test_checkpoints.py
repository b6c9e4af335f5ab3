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
from onethinker_jax.train.checkpoints.keeping import reasons
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
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
            elif how == "flip":
                middle = len(data) // 2
                file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
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
    "a byte flipped": break_file("state/**/d/*", "flip"),
    "a byte of the host part flipped": break_file("host/metadata", "flip"),
    "checksums cut": break_file("checksums.json", "cut"),
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
    assert "(checkpoint 2 is good: train goes on from it with --checkpoints.on-damaged older" in message
    assert "\n" not in message
    assert capfd.readouterr().err == ""
    checkpoints.close()


def test_the_damaged_file_is_named(saved: tuple[Path, list[TrainState]], tmp_path: Path) -> None:
    """The first one by name, with what is wrong with it."""
    directory = tmp_path / "checkpoints"
    for how, said in (
        ("flip", "is not as it was written"),
        ("cut", "holds 28 of 57 bytes"),
        ("remove", "is gone"),
    ):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(saved[0], directory)
        break_file("host/metadata", how)(directory / "3")
        with pytest.raises(CheckpointError, match=rf"restored: host/metadata .*{said}"):
            Checkpoints(directory).newest()


@pytest.mark.parametrize("pattern", ["state/**/d/*", "host/metadata", "state/_METADATA"])
def test_without_checksums_orbax_still_finds_what_is_gone(
    pattern: str, saved: tuple[Path, list[TrainState]], tmp_path: Path
) -> None:
    """A checkpoint without checksums can be restored, and is not taken for good where a file is missing."""
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved[0], directory)
    (directory / "3" / "checksums.json").unlink()
    checkpoints = Checkpoints(directory)
    assert checkpoints.newest() is not None
    same(checkpoints.restore(3, fresh()), saved[1][3])
    break_file(pattern, "remove")(directory / "3")
    with pytest.raises(CheckpointError, match="cannot be restored"):
        checkpoints.host(3)
        checkpoints.restore(3, fresh())


def test_an_older_one_is_taken_where_the_settings_say_so(
    saved: tuple[Path, list[TrainState]], tmp_path: Path
) -> None:
    """The damaged one keeps its files under another name, and its number is written anew."""
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved[0], directory)
    break_file("state/**/d/*", "flip")(directory / "3")
    with pytest.raises(CheckpointError, match=r"3 cannot be restored: .* \(checkpoint 2 is good"):
        Checkpoints(directory, CheckpointSettings()).settle()
    checkpoints = Checkpoints(directory, CheckpointSettings(on_damaged="older"))
    (said,) = checkpoints.settle()
    assert said.endswith(f"it is now {directory / '3.damaged'}, and this run goes on from checkpoint 2")
    assert checkpoints.newest() is not None and checkpoints.numbers() == [2]
    state = checkpoints.restore(2, fresh())
    same(state, saved[1][2])
    checkpoints.save(3, stepped(state, 3), {"stage": "rl"})
    checkpoints.close()
    assert Checkpoints(directory).numbers() == [2, 3] and (directory / "3.damaged" / "state").is_dir()
    break_file("state/**/d/*", "flip")(directory / "2")
    break_file("state/**/d/*", "flip")(directory / "3")
    with pytest.raises(CheckpointError, match=r"2 cannot be restored: .* \(no older one is good"):
        Checkpoints(directory, CheckpointSettings(on_damaged="older")).settle()


def test_another_layout_is_refused(saved: tuple[Path, list[TrainState]], tmp_path: Path) -> None:
    """Of a version of the program before or after this one."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointSettings())
    checkpoints.save(1, fresh(), {"stage": "rl", "layout": LAYOUT + 1})
    with pytest.raises(
        CheckpointError, match=rf"1 is of layout {LAYOUT + 1}, and this version .* {LAYOUT}: go on"
    ):
        checkpoints.newest()
    checkpoints.close()


def test_a_folder_that_is_removed_under_the_run(tmp_path: Path) -> None:
    """It is noticed, made again, and holds what is written from then on."""
    directory = tmp_path / "checkpoints"
    checkpoints, state = Checkpoints(directory, CheckpointSettings()), fresh()
    checkpoints.save(1, state, {"stage": "rl"})
    assert checkpoints.numbers() == [1] and not checkpoints.missing()
    shutil.rmtree(directory)
    assert checkpoints.missing()
    checkpoints.begin_anew()
    assert checkpoints.numbers() == []
    checkpoints.save(1, state, {"stage": "rl"})
    checkpoints.close()
    assert Checkpoints(directory).numbers() == [1]


def test_the_newest_the_even_and_the_best_are_kept(tmp_path: Path) -> None:
    """After each save, by hand: last 1, every 4, best 1; of equal scores the older one is the best."""
    keep = KeepSettings(last=1, every=4, best=1)
    checkpoints, state = Checkpoints(tmp_path / "c", CheckpointSettings(keep=keep)), fresh(4)
    scores = {1: None, 2: 0.5, 3: None, 4: 0.5, 5: 0.7, 6: None, 7: 0.6}
    kept = {1: [1], 2: [2], 3: [2, 3], 4: [2, 4], 5: [4, 5], 6: [4, 5, 6], 7: [4, 5, 7]}
    for number, score in scores.items():
        checkpoints.save(number, state, {"stage": "rl"}, heldout=score)
        assert checkpoints.numbers() == kept[number], number
    assert checkpoints.best() == 5
    assert reasons(keep, checkpoints.described()) == {4: ["every"], 5: ["best"], 7: ["last"]}
    checkpoints.add_score(4, 0.9)
    assert checkpoints.best() == 4
    checkpoints.close()
    again = Checkpoints(tmp_path / "c", CheckpointSettings(keep=keep))  # the scores are read again
    again.save(9, state, {"stage": "rl"})
    again.close()
    assert again.numbers() == [4, 9] and again.best() == 4


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
