"""What a curve must not do, each in one line when it begins: which number, and what to look at.

A flag that is up says nothing more until it has been down for a whole window. What the flags remember is in every
checkpoint, so that a resumed run says what an undisturbed one would have said, and no more.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onethinker_jax.train.config.health import HealthSettings

NORMS = 100
"""Gradient norms whose median a new one is held against."""
FEWEST_NORMS = 20
"""With fewer there is no median to speak of."""
FLAGS = ("grad_norm_spike", "reward_collapse", "entropy_collapse", "length_explosion")
CURVES = ("reward", "entropy", "response_length")


class Flags:
    """The flags of a stage."""

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._norms: deque[float] = deque(maxlen=NORMS)
        self._curves = {name: deque[float](maxlen=settings.window) for name in CURVES}
        self._best_reward: float | None = None
        self._first_length: float | None = None
        self._quiet: dict[str, int] = {}  # flags that are up, or were: looks since they were up

    def look(self, norms: Sequence[float], metrics: Mapping[str, float]) -> dict[str, str]:
        """The flags that are up now -> what each says.

        `norms` are those of the updates since the last look, `metrics` the step's; what is not finite or not there is
        passed over.
        """
        found = {"grad_norm_spike": self._spike([norm for norm in norms if math.isfinite(norm)])}
        for name, values in self._curves.items():
            if math.isfinite(metrics.get(name, math.nan)):
                values.append(metrics[name])
        means = {
            name: statistics.fmean(values)
            for name, values in self._curves.items()
            if len(values) == self._settings.window
        }
        looks: dict[str, tuple[str, Callable[[float], str]]] = {
            "reward_collapse": ("reward", self._reward),
            "entropy_collapse": ("entropy", self._entropy),
            "length_explosion": ("response_length", self._length),
        }
        found |= {flag: look(means[curve]) for flag, (curve, look) in looks.items() if curve in means}
        return {flag: said for flag, said in found.items() if said}

    def new(self, up: Mapping[str, str]) -> list[str]:
        """Of the flags that are `up`, what those say that were not up within the last window."""
        said = [text for flag, text in up.items() if flag not in self._quiet]
        quiet = {flag: looks + 1 for flag, looks in self._quiet.items() if flag not in up}
        self._quiet = {flag: looks for flag, looks in quiet.items() if looks < self._settings.window}
        self._quiet |= dict.fromkeys(up, 0)
        return said

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON holds it."""
        return {
            "norms": list(self._norms),
            "curves": {name: list(values) for name, values in self._curves.items()},
            "best_reward": self._best_reward,
            "first_length": self._first_length,
            "quiet": self._quiet,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._norms.extend(saved["norms"])
        for name, values in saved["curves"].items():
            self._curves[name].extend(values)
        self._best_reward, self._first_length = saved["best_reward"], saved["first_length"]
        self._quiet = dict(saved["quiet"])

    def _spike(self, norms: Sequence[float]) -> str:
        found, factor = "", self._settings.grad_norm_spike
        for norm in norms:
            if factor and len(self._norms) >= FEWEST_NORMS:
                median = statistics.median(self._norms)
                if median and norm > factor * median:
                    found = (
                        f"gradient norm {norm:.3g} is {norm / median:.3g} times the median of the last "
                        f"{len(self._norms)}, {median:.3g}: clipping by optimizer.max_grad_norm holds one such update; "
                        "if more come, look at the records of these steps, then at optimizer.learning_rate"
                    )
            self._norms.append(norm)
        return found

    def _reward(self, mean: float) -> str:
        best = self._best_reward = mean if self._best_reward is None else max(self._best_reward, mean)
        share = self._settings.reward_collapse
        if not share or best - mean <= share * abs(best):
            return ""
        return (
            f"mean reward {mean:.3g} of {self._settings.window} steps, {best:.3g} at its best: look at the newest page "
            "of rollouts, at format and truncated, and whether kl_reference or clipped_* rise (steps too large)"
        )

    def _entropy(self, mean: float) -> str:
        if mean >= self._settings.entropy_collapse:
            return ""
        return (
            f"mean entropy {mean:.2g} nats a token of {self._settings.window} steps: the samples of a prompt are "
            "nearly alike; look at groups_kept and at the newest page of rollouts, then at rl.loss.clip_high and "
            "rl.loss.entropy_coefficient"
        )

    def _length(self, mean: float) -> str:
        if self._first_length is None:
            self._first_length = mean
        factor = self._settings.length_explosion
        if not factor or mean <= factor * self._first_length:
            return ""
        return (
            f"mean response of {mean:.0f} tokens, {mean / self._first_length:.3g} times as many as at first: look at "
            "truncated and at the newest page of rollouts (loops, padding), then at rl.loss.overlong and "
            "rl.loss.aggregation"
        )
