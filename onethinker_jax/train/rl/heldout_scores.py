"""Scores on the held-out records during RL, and when they say that it is enough.

The scores are part of every checkpoint: a run that goes on from one makes the scorings and the stop of a run that was
never interrupted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from onethinker_jax.train.config.evaluation import EvaluationSettings


class HeldOutScores:
    """The scorings so far; `score(step, params)` gives metrics, one of which is `heldout/METRIC` of the settings."""

    def __init__(
        self,
        settings: EvaluationSettings,
        score: Callable[[int, nnx.State], Mapping[str, float]],
        scored: Sequence[tuple[int, float]] = (),
    ):
        """`scored`: the steps that are scored already, rising, with their scores."""
        self._settings, self._score = settings, score
        self._scored = list(scored)

    def wanted(self, step: int) -> bool:
        """Whether the model after that step is to be scored."""
        every = self._settings.every
        return every > 0 and step % every == 0

    def score(self, step: int, params: nnx.State) -> dict[str, float]:
        """Scores the model after that step; the metrics of that."""
        metrics = dict(self._score(step, params))
        self._scored.append((step, metrics[f"heldout/{self._settings.metric}"]))
        return metrics

    def at(self, step: int) -> float | None:
        """The score of that step's model, if it has one."""
        return dict(self._scored).get(step)

    @property
    def last(self) -> int | None:
        """The newest step that was scored."""
        return self._scored[-1][0] if self._scored else None

    @property
    def verdict(self) -> str | None:
        """Why RL stops: the best score is `evaluation.patience` scorings old; None where it goes on."""
        patience = self._settings.patience
        if not self._scored or not patience:
            return None
        scores = [value for _, value in self._scored]
        best = scores.index(max(scores))
        if len(scores) - 1 - best < patience:
            return None
        step, value = self._scored[best]
        return (
            f"the held-out {self._settings.metric} {value:.4f} of step {step} stands after {patience} more scorings "
            "(evaluation.patience)"
        )

    def state(self) -> list[list[Any]]:
        """What a checkpoint keeps, as JSON holds it."""
        return [list(scoring) for scoring in self._scored]

    def restore(self, saved: Sequence[Sequence[Any]]) -> None:
        """Goes on from what `state` gave."""
        self._scored = [(step, value) for step, value in saved]
