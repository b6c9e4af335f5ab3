"""The flags of the command for checkpoints. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from onethinker_jax.train.config.checkpoints import KeepSettings


@dataclass(frozen=True)
class KeepFlags:
    """What is kept when checkpoints are deleted: the newest, and what any of these names."""

    last: int | None = None
    """The newest ones."""
    every: int | None = None
    """Those whose number is a multiple of this."""
    best: int | None = None
    """Those with the best held-out scores."""

    @property
    def settings(self) -> KeepSettings | None:
        """As the run's own settings have them; None where nothing is to be deleted."""
        if self == KeepFlags():
            return None
        last = 1 if self.last is None else self.last
        return KeepSettings(last=last, every=self.every, best=self.best or 0)


@dataclass(frozen=True)
class Arguments:
    """Lists the checkpoints of a run, verifies them, and deletes those that are not to be kept."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    verify: bool = False
    """Hold every file against its checksum; the exit status is 1 where one is damaged."""
    keep: KeepFlags = field(default_factory=KeepFlags)
