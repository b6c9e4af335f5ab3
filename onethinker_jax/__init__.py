"""A JAX OneThinker: fine-tune Qwen3-VL to reason over images and videos.

`model` is Qwen3-VL, `data_pipeline` turns records into batches, `rewards` scores responses,
`train` holds supervised fine-tuning and EMA-GRPO; `load` gives a model to be asked. The names below are imported on
first use, so that importing the package costs nothing. `python -m onethinker_jax` lists what can be run.
"""

from typing import TYPE_CHECKING

from onethinker_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from onethinker_jax.assistant import Answer, Assistant, load
    from onethinker_jax.data_pipeline.processor.processor import Processor
    from onethinker_jax.data_pipeline.records.record import Record, read_records
    from onethinker_jax.model.hf_weights import load_hf, save_hf
    from onethinker_jax.responses import Sampler
    from onethinker_jax.rewards.score import Score, score_response

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Assistant",
    "Processor",
    "Record",
    "Sampler",
    "Score",
    "load",
    "load_hf",
    "read_records",
    "save_hf",
    "score_response",
]

_HOME = {
    "assistant": ("Answer", "Assistant", "load"),
    "data_pipeline.processor.processor": ("Processor",),
    "data_pipeline.records.record": ("Record", "read_records"),
    "model.hf_weights": ("load_hf", "save_hf"),
    "responses": ("Sampler",),
    "rewards.score": ("Score", "score_response"),
}
_MODULES = (
    "assistant",
    "data_pipeline",
    "demo",
    "evaluate",
    "model",
    "responses",
    "rewards",
    "sampler_settings",
    "scoring",
    "train",
)
__getattr__, __dir__ = lazy_names(__name__, _HOME, _MODULES)
