"""Which checkpoints are kept, and why: Orbax's preservation policies, one for each setting of `checkpoints.keep`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from onethinker_jax.train.config.checkpoints import KeepSettings

HELDOUT, NUMBER = "heldout", "number"
"""What Orbax keeps of a checkpoint as its metrics: the held-out score of its model, and its number."""


@dataclass(frozen=True)
class Described:
    """A whole checkpoint as Orbax's policies see it: its number, and its held-out score where it has one."""

    step: int
    metrics: Mapping[str, Any] | None


def rank(metrics: Mapping[str, Any]) -> tuple[float, int]:
    """What rises with the held-out score; of equal ones the older counts as better, as early stopping sees them."""
    return metrics[HELDOUT], -metrics[NUMBER]


def policy(keep: KeepSettings) -> policies.PreservationPolicy:
    """The policy by which Orbax deletes after each save."""
    return policies.AnyPreservationPolicy([one for _, one in _policies(keep)])


def reasons(keep: KeepSettings, checkpoints: Sequence[Described]) -> dict[int, list[str]]:
    """Why each of `checkpoints` is kept, by its number; an empty list where nothing keeps it."""
    found: dict[int, list[str]] = {one.step: [] for one in checkpoints}
    for reason, one in _policies(keep):
        kept = one.should_preserve(checkpoints, context=policies.PreservationContext())
        for checkpoint, preserved in zip(checkpoints, kept, strict=True):
            if preserved:
                found[checkpoint.step].append(reason)
    return found


def _policies(keep: KeepSettings) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("last", policies.LatestN(keep.last))]
    if keep.every is not None:
        found.append(("every", policies.EveryNSteps(keep.every)))
    if keep.best:
        best = policies.BestN(
            n=keep.best,
            get_metric_fn=rank,  # type: ignore[arg-type]  # anything that can be sorted
            keep_checkpoints_without_metrics=False,
        )
        found.append(("best", _BestOfScored(best)))
    return found


class _BestOfScored:
    """The best of the checkpoints that have a score: with few checkpoints Orbax's policy keeps them all."""

    def __init__(self, best: policies.BestN):
        self._best = best

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: policies.PreservationContext
    ) -> list[bool]:
        scored = [one for one in checkpoints if one.metrics is not None]
        kept = dict(
            zip(
                (one.step for one in scored), self._best.should_preserve(scored, context=context), strict=True
            )
        )
        return [kept.get(one.step, False) for one in checkpoints]
