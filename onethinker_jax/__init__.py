"""A JAX OneThinker: fine-tune Qwen3-VL to reason over images and videos.

`model` is Qwen3-VL, `data_pipeline` turns records into batches, `rewards` scores responses,
`train` holds supervised fine-tuning and EMA-GRPO. Start with `python -m onethinker_jax.train`.
"""

__version__ = "0.1.0"
