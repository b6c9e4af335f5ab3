"""Rewards: a response and its ground truth in, a `Score` out, and the service that judges what rules cannot.

Nothing here imports JAX. `client` and `server` (gRPC) are imported by name, so that scoring stays light; the names
below are imported on first use.
"""

from typing import TYPE_CHECKING

from onethinker_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from onethinker_jax.rewards.score import (
        GroundTruthError,
        RewardSettings,
        Score,
        max_accuracy,
        max_overall,
        score_response,
    )

__all__ = ["GroundTruthError", "RewardSettings", "Score", "max_accuracy", "max_overall", "score_response"]

_HOME = {
    "score": ("GroundTruthError", "RewardSettings", "Score", "max_accuracy", "max_overall", "score_response")
}
__getattr__, __dir__ = lazy_names(__name__, _HOME)
