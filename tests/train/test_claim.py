"""A run's folder belongs to one configuration; which settings may change, and which may grow."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError, Checkpoints
from onethinker_jax.train.claim import _MAY_CHANGE, _MAY_GROW, _MAY_MOVE, check_claim, claim_directory
from onethinker_jax.train.config.checkpoints import CheckpointSettings
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import shapes, smoke
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.state import init_state

CONSTANT = OptimizerSettings(learning_rate=1e-2, schedule="constant", warmup=0.0)


def settings_of(config: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        yield f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{prefix}{field.name}.")


def test_settings_that_may_change_exist() -> None:
    assert not {*_MAY_CHANGE, *_MAY_GROW, *_MAY_MOVE} - set(settings_of(shapes()))


def test_a_directory_belongs_to_one_config(tmp_path: Path) -> None:
    config = replace(smoke(), out=tmp_path)
    claim_directory(config)
    written = (config.directory / "config.json").read_text()
    claim_directory(config)
    rollout = replace(config.rl.rollout, temperature=0.5)
    other = replace(config, rl=replace(config.rl, rollout=rollout))
    (config.directory / "heldout").mkdir()
    (config.directory / "heldout" / "fresh.jsonl").write_text("{}\n")
    with pytest.raises(SettingError, match=r"smoke holds a run with rl.rollout.temperature 1.0, not 0.5"):
        claim_directory(other)
    assert (config.directory / "config.json").read_text() == written

    old = json.loads(written)
    old["data"]["placing"] = old["data"].pop("packing_strategy")
    (config.directory / "config.json").write_text(json.dumps(old))
    with pytest.raises(
        SettingError, match=r"smoke holds a run of another version .* a setting data.placing that"
    ):
        claim_directory(config)
    (config.directory / "config.json").write_text(written)

    moved = tmp_path / "elsewhere"
    shutil.copytree(config.directory, moved / "smoke")
    claim_directory(replace(config, out=moved))  # a run may be moved
    data = replace(config.data, media_workers=2, frame_cache=tmp_path, cache_bytes=0)
    ahead = replace(config.rl, prompts_ahead=3)
    claim_directory(replace(config, out=moved, data=data, rl=ahead))  # and decode in another way
    with pytest.raises(SettingError, match="seed 0, not 1"):
        claim_directory(replace(config, out=moved, seed=1))

    shutil.rmtree(config.directory / "heldout")
    claim_directory(other)  # it had come to nothing
    assert json.loads((config.directory / "config.json").read_text())["rl"]["rollout"]["temperature"] == 0.5


def standing(tmp_path: Path, *, stage: str, number: int, constant: bool = True) -> TrainConfig:
    """A finished-looking run of smoke's 6 SFT and 4 RL steps, its newest checkpoint of this number."""
    config = replace(smoke(), out=tmp_path)
    if constant:
        config = replace(config, rl=replace(config.rl, optimizer=CONSTANT))
    claim_directory(config)
    params: Any = {"lm_head": {"kernel": np.ones((2, 2), np.float32)}}
    state = init_state(
        params, make_optimizer(CONSTANT, 1, train_vision=True), init_moments(1), make_mesh(), reference=False
    )
    checkpoints = Checkpoints(config.directory / "checkpoints", CheckpointSettings())
    checkpoints.save(number, state, {"stage": stage, "hosts": []})
    checkpoints.close()
    answered = ["fresh", "sft", "sft_sampled", "rl", "rl_sampled"] if stage == "rl" else ["fresh", "sft"]
    (config.directory / "heldout").mkdir()
    for name in answered:
        (config.directory / "heldout" / f"{name}.jsonl").write_text("{}\n")
    (config.directory / "index.html").write_text("page")
    return config


def test_a_run_goes_on_on_other_devices(tmp_path: Path) -> None:
    """What is said of it; a finished run stays finished. Another global batch is refused."""
    config = standing(tmp_path, stage="rl", number=10)
    elsewhere = replace(config, mesh=MeshSettings(data=2))
    (note,) = check_claim(elsewhere)
    assert note.startswith("mesh.data 2 instead of 1: sums are taken in another order from here")
    before = answers(config)
    claim_directory(elsewhere, [note])
    assert answers(config) == before and (config.directory / "index.html").exists()
    assert json.loads((config.directory / "config.json").read_text())["mesh"]["data"] == 2
    both = with_steps(config, rl=9)
    assert len(check_claim(both)) == 2  # the steps, and back to one device
    batch = replace(elsewhere.sft.batch, rows=4)
    with pytest.raises(SettingError, match=r"holds a run with sft.batch.rows 2, not 4"):
        check_claim(replace(elsewhere, sft=replace(elsewhere.sft, batch=batch)))


def test_other_devices_may_hold_more_or_less(tmp_path: Path) -> None:
    """What is kept for the backward pass, rows a micro-batch, prompts prefilled together: as their memory allows."""
    config = standing(tmp_path, stage="sft", number=3)
    model = replace(config.model, remat="full")
    rollout = replace(config.rl.rollout, prefill_rows=1, prompt_buckets=2)
    rows = replace(config.sft, batch=replace(config.sft.batch, rows=1), accumulate=2, save_every=1)
    smaller = replace(config, model=model, sft=rows, rl=replace(config.rl, rollout=rollout, save_every=1))
    changed = {
        *("model.remat", "sft.batch.rows", "sft.accumulate"),
        *("rl.rollout.prefill_rows", "rl.rollout.prompt_buckets"),
    }
    assert {note.partition(" ")[0] for note in check_claim(smaller)} == changed
    fewer = replace(smaller, sft=replace(rows, accumulate=1))
    with pytest.raises(SettingError, match=r"holds a run with sft.batch.rows 2, not 1"):
        check_claim(fewer)


def with_steps(config: TrainConfig, *, sft: int | None = None, rl: int | None = None) -> TrainConfig:
    return replace(
        config,
        sft=replace(config.sft, steps=config.sft.steps if sft is None else sft),
        rl=replace(config.rl, steps=config.rl.steps if rl is None else rl),
    )


def answers(config: TrainConfig) -> set[str]:
    return {file.stem for file in (config.directory / "heldout").iterdir()}


def test_a_finished_run_is_given_more_rl_steps(tmp_path: Path) -> None:
    config = standing(tmp_path, stage="rl", number=10)
    longer = with_steps(config, rl=9)
    (note,) = check_claim(longer)
    assert note == "rl.steps 9 instead of 4: this run goes on after RL step 4"
    assert (config.directory / "index.html").exists()  # to ask changes nothing
    claim_directory(longer)
    assert (
        answers(config) == {"fresh", "sft", "sft_sampled"} and not (config.directory / "index.html").exists()
    )
    assert json.loads((config.directory / "config.json").read_text())["rl"]["steps"] == 9
    assert check_claim(longer) == []


def test_a_schedule_over_all_steps_is_said(tmp_path: Path) -> None:
    (note,) = check_claim(with_steps(standing(tmp_path, stage="rl", number=10, constant=False), rl=9))
    assert (
        "goes on after RL step 4; the learning rate has a cosine schedule and a warm-up over all steps"
        in note
    )


def test_sft_grows_until_rl_begins(tmp_path: Path) -> None:
    config = standing(tmp_path, stage="sft", number=6)
    longer = with_steps(config, sft=8)
    assert check_claim(longer) == [
        "sft.steps 8 instead of 6: this run goes on after SFT step 6" + COSINE_OF_8
    ]
    claim_directory(longer)
    assert answers(config) == {"fresh"}  # the SFT model's answers were another one's


COSINE_OF_8 = (
    "; the learning rate has a cosine schedule over all steps, so that from here on it is that of a run of 8, "
    "which the steps before were not"
)


@pytest.mark.parametrize(
    ("stage", "number", "steps", "message"),
    [
        ("rl", 10, {"sft": 8}, "sft.steps 6, not 8: its RL has begun from the model after 6 of them"),
        ("rl", 9, {"rl": 2}, "3 RL steps are done: rl.steps 2 is less"),
        ("rl", 10, {"rl": 0}, "4 RL steps are done: rl.steps 0 is less"),
        ("sft", 5, {"sft": 4}, "5 SFT steps are done: sft.steps 4 is less"),
    ],
)
def test_what_is_refused(tmp_path: Path, stage: str, number: int, steps: dict, message: str) -> None:
    config = standing(tmp_path, stage=stage, number=number)
    before = sorted(path.name for path in config.directory.rglob("*"))
    with pytest.raises(SettingError, match=message) as caught:
        claim_directory(with_steps(config, **steps))
    assert str(config.directory) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in config.directory.rglob("*")) == before


def test_fewer_steps_than_planned_but_not_than_done(tmp_path: Path) -> None:
    config = standing(tmp_path, stage="rl", number=8)
    assert check_claim(with_steps(config, rl=3)) == [
        "rl.steps 3 instead of 4: this run goes on after RL step 2"
    ]


def test_another_setting_is_refused_beside_more_steps(tmp_path: Path) -> None:
    config = replace(with_steps(standing(tmp_path, stage="rl", number=10), rl=9), seed=1)
    with pytest.raises(SettingError, match="seed 0, not 1"):
        check_claim(config)


def test_a_run_from_before_a_setting_existed(tmp_path: Path) -> None:
    """Goes on with the setting's default, and with no other value."""
    config = standing(tmp_path, stage="rl", number=10)
    file = config.directory / "config.json"
    saved = json.loads(file.read_text())
    del saved["model"]["tiny"], saved["data"]["check_lengths"]
    file.write_text(json.dumps(saved))
    assert check_claim(config) == []
    with pytest.raises(SettingError, match=r"model\.tiny False, not True"):
        check_claim(replace(config, model=replace(config.model, tiny=True)))


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    config = standing(tmp_path, stage="rl", number=10)
    (config.directory / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        check_claim(config)
