"""The flags of the export. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from onethinker_jax.command_line import UsageError


@dataclass(frozen=True)
class Arguments:
    """Exports a checkpoint of a run as a Hugging Face directory, one tensor at a time."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    out: Path
    """The directory to write; an older one is replaced once the new one is complete."""
    step: str = "newest"
    """Which checkpoint: newest, best (by its held-out score), or its number."""
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """What the weights are written as; by default as the checkpoint holds them."""
    adapter: bool = False
    """Of a run with LoRA the adapters alone, as `peft` loads them; else they are merged into the whole model."""
    overwrite_card: bool = False
    """Write README.md anew also where somebody has edited it."""
    check: bool = False
    """Load the directory in transformers too, in a process of its own that needs torch, and compare logits."""
    check_tolerance: float = 1e-3
    """Largest difference of logits that passes, both sides computed in float32, as a share of the largest logit."""

    def __post_init__(self) -> None:
        if self.step not in ("newest", "best") and not self.step.isdecimal():
            raise UsageError(f"--step {self.step}: say newest, best, or the number of a checkpoint")
        if self.adapter and (self.check or self.dtype is not None):
            raise UsageError(
                "--adapter writes adapters as they are: it goes with neither --dtype nor --check"
            )
        if not self.check_tolerance > 0:
            raise UsageError(f"--check-tolerance {self.check_tolerance} must be positive")
