"""`python -m onethinker_jax.evaluate`: a model's answers to a file of records, scored by task."""
