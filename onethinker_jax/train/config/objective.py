"""What reinforcement learning maximises: how rewards become advantages, and the loss that they weigh."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from onethinker_jax.rewards.score import Variant
from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive

Estimator = Literal["ema_grpo", "grpo", "dr_grpo", "rloo", "gdpo"]
PolicyLoss = Literal["ppo", "gspo", "cispo"]
Aggregation = Literal["token", "sequence", "constant"]
KLEstimator = Literal["k1", "k2", "k3"]
ImportanceSampling = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


@dataclass(frozen=True)
class AdvantageConfig:
    """How rewards become advantages; the equations stand in `train/advantages.py`.

    Raises ValueError naming the field that is out of range.
    """

    method: Annotated[Estimator, tyro.conf.arg(name="estimator")] = "ema_grpo"
    """What the rewards, centred by their group's mean, are divided by."""
    variant: Variant = "paper"
    """Of `ema_grpo`, the paper's clipping or the released code's guard."""
    decay: float = 0.99
    """Share of a task's moments that is kept in a step, in [0, 1)."""
    clip: float = 5.0
    """Largest magnitude of an advantage of `ema_grpo`: `paper` clips to it, `released` falls back beyond it."""
    min_std: float = 1e-3
    """Smallest standard deviation that `ema_grpo` divides by."""
    eps: float = 1e-6
    """Added to the divisors of `grpo`, `gdpo` and the released `ema_grpo`."""
    weights: tuple[float, ...] = ()
    """Of `gdpo`, one a component of the reward; in a run accuracy, format and structure, by default as the reward
    sums them."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Estimator):
            raise ValueError(f"method is {self.method!r}, not one of {', '.join(get_args(Estimator))}")
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant is {self.variant!r}, not one of {', '.join(get_args(Variant))}")
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay is {self.decay}, outside [0, 1)")
        for name in ("clip", "min_std", "eps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, not positive")
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights):
            raise ValueError(f"weights are {self.weights}, not all finite and at least 0")
        if self.weights and not any(self.weights):
            raise ValueError(f"weights are {self.weights}, all zero")


@dataclass(frozen=True)
class PolicyLossSettings:
    """What the policy minimises; the equations stand in `train/rl/policy_losses.py`."""

    kind: PolicyLoss = "ppo"
    """A token's part of the loss."""
    clip_low: float = 0.2
    """The ratio of probabilities is clipped below at 1 - this."""
    clip_high: float = 0.3
    """The ratio of probabilities is clipped above at 1 + this."""
    dual_clip: float = 3.0
    """For a negative advantage the loss is at most this many times it; `inf`: no bound."""
    aggregation: Aggregation = "token"
    """The loss is a mean over tokens, over samples of their means, or over samples x `rl.rollout.max_new_tokens`."""
    kl_coefficient: float = 0.0
    """Weight of the estimate of KL to the SFT model; 0 keeps no reference model."""
    kl_estimator: KLEstimator = "k3"
    """How that KL is estimated from the sampled tokens."""
    kl_bias_correction: bool = False
    """Multiplies the estimate by the ratio, so that its gradient is that of the KL."""
    entropy_coefficient: float = 0.0
    """Weight of the policy's entropy, which is raised; 0: none."""
    importance_sampling: ImportanceSampling = "none"
    """Corrects for a sampler whose probabilities are not quite the trainer's; with more than one minibatch a rollout
    batch it costs a forward pass."""
    tis_cap: float = 2.0
    """Weights of the correction above this are cut to it, or masked."""
    tis_floor: float = 0.0
    """Weights of the correction below this are masked; for `token_mask` and `sequence_mask`."""
    max_log_ratio: float = 20.0
    """Every log-ratio of probabilities is clamped to +- this."""
    overlong: Literal["keep", "mask", "penalty"] = "keep"
    """Answers near `rl.rollout.max_new_tokens`: `mask` takes those cut off out of the loss, `penalty` lowers the
    reward."""
    overlong_buffer: int = 0
    """Last tokens before `rl.rollout.max_new_tokens` over which `penalty` grows to its full size."""
    overlong_penalty: float = 1.0
    """The most that `penalty` takes off the reward."""

    def __post_init__(self) -> None:
        positive("rl.loss", self, "clip_high", "dual_clip", "max_log_ratio")
        at_least_zero("rl.loss", self, "clip_low", "kl_coefficient", "entropy_coefficient")
        if self.tis_cap < 1:
            raise SettingError(f"rl.loss.tis_cap {self.tis_cap} must be at least 1: equal probabilities")
        if not 0 <= self.tis_floor <= 1:
            raise SettingError(f"rl.loss.tis_floor {self.tis_floor} is not in [0, 1]")
        if self.tis_floor and not self.importance_sampling.endswith("_mask"):
            raise SettingError(
                f"rl.loss.tis_floor {self.tis_floor} needs rl.loss.importance_sampling token_mask or sequence_mask, "
                f"not {self.importance_sampling}"
            )
        if self.overlong == "penalty":
            positive("rl.loss", self, "overlong_penalty")
