"""The answers to the held-out records."""

from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        at_least_zero("evaluation", self, "gallery")
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
