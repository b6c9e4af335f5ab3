"""`python -m onethinker_jax.data_pipeline.check`: what a corpus holds, and what is wrong with it, before training."""
