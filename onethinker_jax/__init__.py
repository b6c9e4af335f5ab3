"""A JAX OneThinker: fine-tune Qwen3-VL to reason over images and videos.

`model` is Qwen3-VL, `data_pipeline` turns records into batches, `rewards` scores responses,
`train` holds supervised fine-tuning and EMA-GRPO. `python -m onethinker_jax` lists what can be run.
"""

from onethinker_jax.lazy_names import lazy_names

__version__ = "0.1.0"

_HOME = {
    "data_pipeline": (),
    "demo": (),
    "evaluate": (),
    "model": (),
    "responses": (),
    "rewards": (),
    "sampler_settings": (),
    "scoring": (),
    "train": (),
}
__getattr__, __dir__ = lazy_names(__name__, _HOME)
