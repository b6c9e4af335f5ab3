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
    adapter: bool = False
    """Of a run with LoRA the adapters alone, as `peft` loads them; else they are merged into the whole model."""
