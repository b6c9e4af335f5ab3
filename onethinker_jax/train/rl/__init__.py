"""The parts of an EMA-GRPO step: rollouts, dynamic sampling, advantages, policy losses, the update, its metrics."""
