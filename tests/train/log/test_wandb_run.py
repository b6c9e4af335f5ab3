"""Metrics at Weights & Biases: with a stand-in for the package, and its errors as one line."""

import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.run import LogSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.log.wandb_run import WandbRun

CONFIG = replace(shapes(), name="mine", log=LogSettings(wandb="project"))


class Wandb(ModuleType):
    """Notes what a run sends."""

    class Error(Exception):
        pass

    def __init__(self, refusal: str = ""):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None, origin="made")
        self.refusal = refusal
        self.begun: list[dict[str, Any]] = []
        self.rows: list[dict[str, float]] = []
        self.axes: dict[str, Any] = {}
        self.ends: list[int] = []
        self.url, self.offline = "https://wandb.example/run", False

    def Settings(self, **options: Any) -> dict[str, Any]:
        return options

    def init(self, **options: Any) -> "Wandb":
        if self.refusal:
            raise self.Error(self.refusal)
        self.begun.append(options)
        return self

    def define_metric(self, name: str, step_metric: str | None = None, hidden: bool = False) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.ends.append(exit_code)


def put(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_a_run_and_its_resume_are_one_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    put(monkeypatch, wandb)
    with RunLog(tmp_path, wandb=WandbRun("project", CONFIG)) as log:
        assert not wandb.begun  # a finished run sends nothing
        log.stage("sft", 2)
        log.metrics(1, {"loss": 2.0, "odd": float("nan")})
        log.stage("rl", 4)
        log.metrics(1, {"reward/OCR (image)": 0.5})
    with pytest.raises(KeyboardInterrupt), RunLog(tmp_path, wandb=WandbRun("project", CONFIG)) as log:
        log.stage("rl", 4, start_step=1)
        raise KeyboardInterrupt
    first, again = wandb.begun
    assert first["id"] == again["id"] and first["resume"] == "allow"
    assert first["project"] == "project" and first["name"] == "mine"
    assert first["config"]["rl"]["prompts_per_step"] == CONFIG.rl.prompts_per_step
    assert wandb.rows == [{"sft/step": 1, "sft/loss": 2.0}, {"rl/step": 1, "rl/reward/OCR (image)": 0.5}]
    assert wandb.axes["rl/*"] == "rl/step" and wandb.axes["sft/*"] == "sft/step"
    assert wandb.ends == [0, 1]


def test_what_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, Wandb(refusal="no API key"))
    refused = pytest.raises(SettingError, match=r"log.wandb project: no API key")
    with RunLog(tmp_path, wandb=WandbRun("project", CONFIG)) as log, refused:
        log.stage("rl", 4)
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"log.wandb project needs the package wandb: pip install wandb"):
        WandbRun("project", CONFIG)
