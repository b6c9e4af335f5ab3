"""How parameters move, and the shape of what their gradients come from."""

from dataclasses import dataclass
from typing import Literal

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive


@dataclass(frozen=True)
class OptimizerSettings:
    """Gradient clipping, then AdamW or Muon; warm-up is a share of all steps."""

    learning_rate: float
    """Its highest, after the warm-up."""
    kind: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the momentum of every layer's matrices, its steps scaled to AdamW's size; embeddings,
    norms and biases are AdamW's. A model that starts from nothing needs fewer steps with it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` falls to a tenth."""
    warmup: float = 0.02
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 1e-2
    """Decoupled from the gradient, scaled by the learning rate; of matrices, not of norms and biases."""
    adam_weight_decay: float | None = None
    """With `muon` that of the matrices which AdamW keeps (the embedding, the output head, the patch embedding); by
    default `weight_decay`."""
    beta1: float = 0.9
    """Decay of Adam's first moment."""
    beta2: float = 0.999
    """Decay of Adam's second moment."""
    max_grad_norm: float = 1.0
    """Gradients with a larger global norm are scaled down to it."""
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    """Adam's first moment. The second stays float32: at beta2 = 0.999 its changes are below bfloat16's grain."""
    vision_lr_multiplier: float = 1.0
    """Learning rate of the vision tower relative to the rest."""
    patch_lr_multiplier: float = 1.0
    """Learning rate of the patch embedding relative to the rest: a patch's 1,536 pixels are so alike that Adam's
    equal steps add up, and a fresh tower learns to see only with a small one."""

    def __post_init__(self) -> None:
        positive(
            "optimizer", self, "learning_rate", "max_grad_norm", "vision_lr_multiplier", "patch_lr_multiplier"
        )
        at_least_zero("optimizer", self, "weight_decay")
        if self.adam_weight_decay is not None:
            at_least_zero("optimizer", self, "adam_weight_decay")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"optimizer.{name} {getattr(self, name)} is not in [0, 1)")
        if not 0 <= self.warmup < 1:
            raise SettingError(f"optimizer.warmup {self.warmup} is not in [0, 1)")


@dataclass(frozen=True)
class BatchSettings(BatchShape):
    """The fixed shape of a packed micro-batch."""

    rows: int = 1
    """Packed rows of a micro-batch; a multiple of `mesh.data` x `mesh.fsdp`."""
    tokens: int = 16_384
    """Tokens of a row: at least those of the longest example."""
    patches: int = 25_088
    """Patches of a row's images and frames together; a multiple of 4."""

    def __post_init__(self) -> None:
        positive("batch", self, "rows", "tokens", "patches")
        if self.patches % 4:
            raise SettingError(f"batch.patches {self.patches} is not a multiple of 4 (merge blocks)")
