"""`python -m onethinker_jax.evaluate`: a model's answers to benchmarks, measured, compared and shown."""
