"""The page on which one watches a model think: `python -m onethinker_jax.demo MODEL --serve`."""
