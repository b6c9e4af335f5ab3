"""The checkpoints of a run: where they lie, which are kept, and what is done about a damaged one."""

from dataclasses import dataclass
from typing import Literal

from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive


@dataclass(frozen=True)
class KeepSettings:
    """Which checkpoints are kept: those that any of these settings names; the others are deleted."""

    last: int | None = 2
    """The newest ones; None: all."""
    every: int | None = None
    """Also those whose number (updates of SFT plus steps of RL) is a multiple of this."""
    best: int = 1
    """Also those with the best held-out scores, where `evaluation.every` scores during RL."""

    def __post_init__(self) -> None:
        for name in ("last", "every"):
            if getattr(self, name) is not None:
                positive("checkpoints.keep", self, name)
        at_least_zero("checkpoints.keep", self, "best")


@dataclass(frozen=True)
class CheckpointSettings:
    """How a run keeps its checkpoints; changes no number of it."""

    directory: str | None = None
    """Where they lie, a folder or gs://BUCKET/FOLDER, which no other run has; by default in the run's folder."""
    keep: KeepSettings = KeepSettings()
    checksums: bool = True
    """Each checkpoint holds the SHA-256 of its files, and is held against them before a run goes on from it."""
    on_damaged: Literal["stop", "older"] = "stop"
    """What a run does whose newest checkpoint is damaged: stop with an error that names the file and the newest good
    checkpoint, or go on from that one."""

    def __post_init__(self) -> None:
        scheme, found, _ = (self.directory or "").partition("://")
        if found and scheme != "gs":
            raise SettingError(
                f"checkpoints.directory {self.directory}: Orbax writes arrays into folders and to gs:// only; for "
                f"{scheme}:// name a folder in which the bucket is mounted by something that can rename folders"
            )
