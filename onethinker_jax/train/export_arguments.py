"""The flags of the export. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Exports the newest checkpoint of a run as a Hugging Face directory."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    out: Path
    """The directory to write; an older one is replaced once the new one is complete."""
