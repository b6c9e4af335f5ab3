"""What SIGTERM, a scheduler's notice that the machine is taken away, leads to."""

from dataclasses import dataclass

from onethinker_jax.train.config.checks import SettingError, positive


@dataclass(frozen=True)
class PreemptionSettings:
    """How SIGTERM stops a run."""

    deadline: float = 30.0
    """Seconds from SIGTERM to the end: a step that has not ended after half of them is cut, the rest is the
    checkpoint's."""
    exit_status: int = 143
    """Exit status after SIGTERM, by which a scheduler knows that the same command goes on."""

    def __post_init__(self) -> None:
        positive("preemption", self, "deadline")
        if not 1 <= self.exit_status <= 255:
            raise SettingError(f"preemption.exit_status {self.exit_status} is not in 1 .. 255")
