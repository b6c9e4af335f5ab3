"""`python -m onethinker_jax.serve`: an OpenAI-compatible endpoint on our own sampler."""
