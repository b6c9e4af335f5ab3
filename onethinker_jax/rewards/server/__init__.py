"""`python -m onethinker_jax.rewards.server`: the reward service, which batches calls and runs the back ends."""
