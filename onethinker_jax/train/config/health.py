"""What a run watches of itself: when it says so in a line, and when it stops."""

from dataclasses import dataclass

from onethinker_jax.train.config.checks import SettingError, at_least_zero, positive


@dataclass(frozen=True)
class HealthSettings:
    """What a run watches of itself; 0 switches a part off. Changes no number of a run whose updates are finite."""

    max_consecutive_nonfinite: int = 3
    """Updates in a row whose loss or gradient is NaN or infinite, each of them skipped, after which the run stops and
    keeps the batch for `python -m onethinker_jax.train.replay`."""
    step_timeout_factor: float = 10.0
    """A step that takes this many times the longest of the last 20 ends the run with exit status 124 …"""
    step_timeout_seconds: float = 1800.0
    """… but not before it has taken this many seconds."""
    first_step_timeout_seconds: float = 14_400.0
    """The same for the first two steps of a start, which compile."""
    grad_norm_spike: float = 10.0
    """A gradient norm above this many times the median of the last 100 is flagged."""
    window: int = 10
    """Logged steps of RL whose mean is looked at for the three below."""
    reward_collapse: float = 0.5
    """A mean reward that has lost this share of its best is flagged."""
    entropy_collapse: float = 0.01
    """A mean entropy below this many nats a token is flagged."""
    length_explosion: float = 4.0
    """Responses this many times as long as in the stage's first window are flagged."""
    low_host_memory: float = 0.05
    """A share of the host's memory: less of it available is flagged."""
    low_disk: float = 1.0
    """Less free space than this many checkpoints take, when one is about to be written, is flagged. A run whose
    checkpoints and model do not fit is refused before its first step."""

    def __post_init__(self) -> None:
        at_least_zero(
            "health",
            self,
            "max_consecutive_nonfinite",
            "step_timeout_factor",
            "step_timeout_seconds",
            "grad_norm_spike",
            "reward_collapse",
            "entropy_collapse",
            "length_explosion",
            "low_host_memory",
            "low_disk",
        )
        positive("health", self, "first_step_timeout_seconds", "window")
        for name in ("step_timeout_factor", "grad_norm_spike", "length_explosion"):
            if 0 < getattr(self, name) <= 1:
                raise SettingError(f"health.{name} {getattr(self, name)} must be above 1, or 0 for none")
        for name in ("reward_collapse", "low_host_memory"):
            if getattr(self, name) >= 1:
                raise SettingError(f"health.{name} {getattr(self, name)} is a share: below 1, or 0 for none")
