"""The supervised stage."""

from dataclasses import dataclass

from onethinker_jax.train.config.checks import at_least_zero, positive
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings


@dataclass(frozen=True)
class SFTSettings:
    """Supervised cold start on chain-of-thought messages."""

    steps: int = 10_000
    """Optimiser updates; 0 leaves SFT out."""
    batch: BatchSettings = BatchSettings()
    accumulate: int = 32
    """Micro-batches summed into one update."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=1e-5, weight_decay=1e-6)
    train_vision: bool = False
    """False freezes the vision tower, as OneThinker's SFT of a pretrained model does."""
    log_every: int = 10
    """Steps between points of the curves."""
    save_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        at_least_zero("sft", self, "steps")
        positive("sft", self, "accumulate", "log_every", "save_every")
