"""The stage of reinforcement learning."""

from dataclasses import dataclass

from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive
from onethinker_jax.train.config.objective import AdvantageConfig, PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings


@dataclass(frozen=True)
class RLSettings:
    """EMA-GRPO: G samples a prompt, task-wise moments scale the advantage, clipped policy loss."""

    steps: int = 200
    """Rollout batches, each trained on in `num_minibatches` updates; 0 leaves RL out."""
    prompts_per_step: int = 128
    """Groups of one step; divided evenly over `num_minibatches`."""
    num_minibatches: int = 4
    """Optimiser updates a rollout batch."""
    max_generation_rounds: int = 20
    """Rounds of `prompts_per_step` prompts that may be drawn to fill a step."""
    overlap: bool = False
    """Sample the next step's groups, with the weights from before it, while this step's update runs. They are one
    update old when they are trained on: `loss.importance_sampling` must correct for it."""
    rollout_mesh: tuple[int, int, int] | None = None
    """Devices of their own for the rollouts of `overlap`, along data, fsdp and tensor, taken after the mesh's."""
    accuracy_low: float = 0.01
    """A group is kept when its mean accuracy, as a share of the most that its task gives, is strictly above this …"""
    accuracy_high: float = 0.99
    """… and strictly below this."""
    prompts_ahead: int | None = None
    """Prompts of the next rounds that are read and kept ready while the devices work; one round's `prompts_per_step`
    by default, fewer where their media do not fit the host's memory."""
    rollout: SamplerSettings = SamplerSettings(prompt_patches=16_384, group_size=8)
    batch: BatchSettings = BatchSettings(rows=1, tokens=20_480, patches=16_384)
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=2e-6, schedule="constant", warmup=0.0)
    advantage: AdvantageConfig = AdvantageConfig(variant="released")
    loss: PolicyLossSettings = PolicyLossSettings()
    log_every: int = 1
    """Steps between points of the curves."""
    save_every: int = 10
    """Steps between checkpoints."""
    save_rollouts: bool = True
    """Keep the samples of finished prompts on disk until a checkpoint holds what was learnt from them: a run that was
    killed or preempted does not sample them again."""

    def __post_init__(self) -> None:
        positive("rl", self, "prompts_per_step", "num_minibatches", "max_generation_rounds")
        positive("rl", self, "log_every", "save_every")
        at_least_zero("rl", self, "steps")
        if self.prompts_per_step % self.num_minibatches:
            raise SettingError(
                f"rl.prompts_per_step {self.prompts_per_step} is not a multiple of rl.num_minibatches "
                f"{self.num_minibatches}"
            )
        if self.prompts_ahead is not None:
            at_least_zero("rl", self, "prompts_ahead")
        if self.overlap and self.loss.importance_sampling == "none":
            raise SettingError(
                "rl.overlap trains on samples that are one update old: set rl.loss.importance_sampling, for example "
                "token_truncate"
            )
        if self.rollout_mesh is not None:
            if not self.overlap:
                raise SettingError("rl.rollout_mesh is for rl.overlap, which is off")
            if min(self.rollout_mesh) < 1:
                raise SettingError(f"rl.rollout_mesh {self.rollout_mesh} must be positive")
        self._check_rollout()
        if self.advantage.weights:
            if self.advantage.method != "gdpo":
                raise SettingError(
                    f"rl.advantage.weights is for rl.advantage.estimator gdpo, not {self.advantage.method}"
                )
            if len(self.advantage.weights) != 3:
                raise SettingError(
                    f"rl.advantage.weights {self.advantage.weights}: give three, of accuracy, format and structure"
                )

    def _check_rollout(self) -> None:
        rollout, loss = self.rollout, self.loss
        positive("rl.rollout", rollout, "prompt_patches", "temperature")
        if rollout.group_size < 2:
            raise SettingError(
                f"rl.rollout.group_size {rollout.group_size}: a group needs at least 2 samples"
            )
        check_untruncated("rl.rollout", rollout)
        if rollout.quantised and loss.importance_sampling == "none":
            raise SettingError(
                f"rl.rollout.{rollout.quantised} int8 trains on samples of other probabilities: set "
                "rl.loss.importance_sampling, for example token_truncate"
            )
        if loss.overlong == "penalty" and not 0 < loss.overlong_buffer <= rollout.max_new_tokens:
            raise SettingError(
                f"rl.loss.overlong penalty needs rl.loss.overlong_buffer in 1 .. rl.rollout.max_new_tokens "
                f"{rollout.max_new_tokens}, not {loss.overlong_buffer}"
            )


def check_untruncated(section: str, sampler: SamplerSettings) -> None:
    """Raises SettingError where tokens are left out: what RL optimises must be what is sampled."""
    if sampler.truncated:
        raise SettingError(
            f"{section}: RL optimises the distribution that it samples from, so top_k, top_p and min_p must be off"
        )
