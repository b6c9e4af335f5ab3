"""The flags of the replay. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Computes an update at which a run stopped once more: losses, gradient norms, and what is not finite."""

    run: tyro.conf.Positional[Path]
    """The run's folder, whose newest such update is taken, or RUN/replay/STAGE_STEP."""
    lines: int = 40
    """Most lines of what is not finite; of more, the rest is counted."""
