"""The answers to the held-out records."""

from dataclasses import dataclass
from typing import Literal

from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive
from onethinker_jax.train.config.rl import check_untruncated


@dataclass(frozen=True)
class EvaluationSettings:
    """Answers to the held-out records."""

    sampler: SamplerSettings = SamplerSettings(prompt_patches=25_088, max_new_tokens=8192, temperature=0.0)
    sampled: bool = True
    """Before and after RL, beside greedy answers one at RL's temperature: their mean reward is what RL raises."""
    gallery: int = 3
    """Held-out records a task shown on the page."""
    every: int = 0
    """RL steps between scorings of the held-out records, greedily, each with a checkpoint; 0: none during RL."""
    metric: Literal["accuracy", "reward"] = "accuracy"
    """Whose mean over the held-out records is the score of a checkpoint."""
    patience: int = 0
    """Scorings in a row without a better score after which RL stops; 0: never."""

    def __post_init__(self) -> None:
        at_least_zero("evaluation", self, "gallery", "every", "patience")
        if self.patience and not self.every:
            raise SettingError(
                "evaluation.patience counts the scorings of evaluation.every, which is 0: set both"
            )
        positive("evaluation.sampler", self.sampler, "prompt_patches")
        check_untruncated("evaluation.sampler", self.sampler)
        if self.sampler.group_size != 1:
            raise SettingError(
                f"evaluation.sampler.group_size {self.sampler.group_size} must be 1: one answer a held-out record"
            )
        if self.sampler.temperature:
            raise SettingError(
                f"evaluation.sampler.temperature {self.sampler.temperature} must be 0: these answers are greedy, and "
                "evaluation.sampled adds some at rl.rollout.temperature"
            )
