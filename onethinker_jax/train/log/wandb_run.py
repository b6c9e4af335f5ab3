"""Metrics of a run at Weights & Biases, where `log.wandb` names a project; the package is imported only then.

A stage has an x axis of its own, `<stage>/step`. A run that goes on from a checkpoint goes on as the same run
there; points past the checkpoint, which nothing takes back, are then sent again.
"""

import dataclasses
import importlib
import importlib.util
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onethinker_jax.files import write_whole
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.run_folder import RunFolder


class WandbRun:
    """One run of a project. Raises SettingError when the package is not installed."""

    def __init__(self, project: str, config: TrainConfig):
        spec = importlib.util.find_spec("wandb")
        if spec is None or spec.origin is None:  # a mere folder of that name, as W&B itself leaves, is none
            raise SettingError(f"log.wandb {project} needs the package wandb: pip install wandb")
        self._project, self._config = project, config
        self._run: Any = None

    def begin(self, directory: Path, stage: str) -> str | None:
        """Begins a stage, with the first one the run; its address then, where there is one.

        Raises SettingError with the service's reason when it cannot begin: no account, no network.
        """
        address = None
        if self._run is None:
            wandb = importlib.import_module("wandb")
            try:
                self._run = wandb.init(
                    project=self._project,
                    name=self._config.name,
                    id=_identity(directory),
                    resume="allow",
                    dir=directory,
                    config=json.loads(json.dumps(dataclasses.asdict(self._config), default=str)),
                    settings=wandb.Settings(console="off", silent=True),
                )
            except wandb.Error as error:
                raise SettingError(f"log.wandb {self._project}: {error}") from error
            address = None if self._run.offline else self._run.url
        self._run.define_metric(f"{stage}/step", hidden=True)
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        return address

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Sends the metrics of a step of a stage that has begun."""
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def end(self, *, failed: bool) -> None:
        """Waits until all is sent, and ends the run there; a second call does nothing."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None


def _identity(directory: Path) -> str:
    """The run's at the service, made once."""
    file = RunFolder(directory).wandb_id
    if not file.is_file():
        write_whole(file, secrets.token_hex(4) + "\n")
    return file.read_text().strip()
