"""Rewards: a response and its ground truth in, a `Score` out, and the service that judges what rules cannot.

Nothing here imports JAX. `client` and `server` (gRPC) are imported by name, so that scoring stays light.
"""

from onethinker_jax.rewards.score import (
    GroundTruthError,
    RewardSettings,
    Score,
    max_accuracy,
    max_overall,
    score_response,
)

__all__ = ["GroundTruthError", "RewardSettings", "Score", "max_accuracy", "max_overall", "score_response"]
