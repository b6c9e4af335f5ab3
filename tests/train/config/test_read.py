"""A run's settings come back out of its config.json, of every preset; what is unknown is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onethinker_jax.train.claim import claim_directory
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.read import read_config


@pytest.mark.parametrize("name", PRESETS)
def test_settings_come_back(name: str, tmp_path: Path) -> None:
    config = replace(PRESETS[name](), out=tmp_path)
    claim_directory(config, [])
    assert read_config(config.folder.settings) == config


def test_what_is_unknown_or_missing(tmp_path: Path) -> None:
    config = replace(PRESETS["smoke"](), out=tmp_path, health=HealthSettings(window=7))
    claim_directory(config, [])
    file = config.folder.settings
    settings = json.loads(file.read_text())
    del settings["health"]
    file.write_text(json.dumps(settings))
    assert read_config(file) == replace(config, health=HealthSettings())  # of a version before it
    settings["rl"]["magic"] = 1
    file.write_text(json.dumps(settings))
    with pytest.raises(SettingError, match=rf"^{file}: a setting rl\.magic that this version does not know$"):
        read_config(file)
    with pytest.raises(SettingError, match="No such file"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_consecutive_nonfinite": -1}, "health.max_consecutive_nonfinite -1 must not be negative"),
        ({"step_timeout_factor": 0.5}, "health.step_timeout_factor 0.5 must be above 1, or 0 for none"),
        ({"window": 0}, "health.window 0 must be positive"),
        ({"reward_collapse": 1.0}, "health.reward_collapse 1.0 is a share: below 1, or 0 for none"),
    ],
)
def test_health_settings_that_cannot_work(changed: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        HealthSettings(**changed)  # type: ignore[arg-type]
    assert str(caught.value) == message
