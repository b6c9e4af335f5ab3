"""The policy update at which a run stops because it was not finite: what is kept of it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from onethinker_jax.train.health.replay_folder import FailedUpdate, record_row
from onethinker_jax.train.health.stage_health import NotedUpdate
from onethinker_jax.train.rl.policy_update import PolicyBatch
from onethinker_jax.train.rl.rollouts import Group


def failed_update(
    update: NotedUpdate, groups: Sequence[Group], advantages: np.ndarray, micro_batches: Sequence[PolicyBatch]
) -> FailedUpdate:
    """This process's part of `update`; `groups` and float32 [groups, G] `advantages` are those of its whole step."""
    records: list[dict[str, Any]] = [
        {
            **record_row(group.record),
            "samples": group.samples.texts,
            "scores": [asdict(score) for score in group.scores],
            "advantages": of_group.tolist(),
        }
        for group, of_group in zip(groups[update.place], advantages[update.place], strict=True)
    ]
    return FailedUpdate(update.step, float(update.loss), float(update.norm), list(micro_batches), records)
