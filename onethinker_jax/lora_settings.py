"""The settings of LoRA, which training, the model and the export share. Imports no JAX."""

from dataclasses import dataclass

from onethinker_jax.errors import UserError
from onethinker_jax.spelling import hint

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


class LoRAError(UserError, ValueError):
    """A setting of LoRA that cannot work; the message names it."""


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters (arXiv 2106.09685): W stands still, and W + alpha / rank A B is what the model computes with.

    Raises LoRAError naming a setting that cannot work.
    """

    rank: int = 0
    """Columns of A and rows of B; 0: no adapters, every weight is trained."""
    alpha: float = 32.0
    """An adapter's product counts alpha / rank times, so that the learning rate need not change with the rank."""
    targets: tuple[str, ...] = ATTENTION + FEED_FORWARD
    """The linear maps of the language model's layers that have adapters. A model of experts takes those of attention
    alone."""
    vision: bool = False
    """Adapters on every linear map of the vision tower's blocks and mergers, too."""

    def __post_init__(self) -> None:
        known = ATTENTION + FEED_FORWARD
        if self.rank < 0:
            raise LoRAError(f"model.lora.rank {self.rank} must be positive, or 0 for no adapters")
        if self.alpha <= 0:
            raise LoRAError(f"model.lora.alpha {self.alpha:g} must be positive")
        for target in self.targets:
            if target not in known:
                raise LoRAError(
                    f"model.lora.targets {target!r}: there are {', '.join(known)}{hint(target, known)}"
                )
        if len(set(self.targets)) < len(self.targets):
            raise LoRAError(f"model.lora.targets {' '.join(self.targets)}: name each once")
        if self.rank and not self.targets and not self.vision:
            raise LoRAError(
                "model.lora.targets: name some, or set model.lora.vision: nothing would be trained"
            )

    @property
    def scale(self) -> float:
        """What the product A B is multiplied by."""
        return self.alpha / self.rank
