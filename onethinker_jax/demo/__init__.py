"""`python -m onethinker_jax.demo`: ask a model about an image or a video."""
