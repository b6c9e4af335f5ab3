"""Scores of an unbounded judge (POLAR) made comparable: `raw`, `sigmoid`, or `released` within groups.

- `raw`: as the model gave them, unbounded.
- `sigmoid`: 1 / (1 + exp(−score)), in (0, 1), each by itself.
- `released`: what OneThinker's published code does in each prompt's group of samples: standardise with the
  biased deviation, then min-max scale to [0, 1]; a group without spread gets 1.0 for all. The best sample of
  a group always gets about 1 and the worst 0, however close or bad they are.

`released` depends on who is in the group: give it whole groups. A service that merges or splits calls into
batches must score raw and normalise afterwards, where the groups are whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

Normalisation = Literal["raw", "sigmoid", "released"]


def normalise_scores(scores: Sequence[float], groups: Sequence[Hashable], normalisation: str) -> list[float]:
    """Scores and each one's group -> normalised scores, in order. Raises ValueError for an unknown name."""
    if len(scores) != len(groups):
        raise ValueError(f"{len(scores)} scores and {len(groups)} groups")
    if normalisation == "raw":
        return [float(score) for score in scores]
    if normalisation == "sigmoid":
        values = np.asarray(scores, dtype=np.float64)
        return [float(value) for value in np.exp(-np.logaddexp(0.0, -values))]
    if normalisation != "released":
        raise ValueError(f"unknown normalisation {normalisation!r}")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    result = [0.0] * len(scores)
    for indices in members.values():
        for index, value in zip(indices, _released([scores[index] for index in indices]), strict=True):
            result[index] = float(value)
    return result


def _released(scores: Sequence[float]) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float32)
    deviation = values.std()
    if deviation == 0:
        return np.ones_like(values)
    standard = (values - values.mean()) / (deviation + 1e-6)
    return (standard - standard.min()) / (standard.max() - standard.min() + 1e-12)
