"""`python -m onethinker_jax.data_pipeline.annotate`: an SFT set from a teacher's answers, filtered by their scores."""
