"""Qwen3-VL in Flax NNX. It knows nothing of training, data or rewards.

`load_hf` and `save_hf` read and write Hugging Face directories; names are loaded on first use, so that
importing the package costs nothing to code that needs only its host-side parts.
"""

from typing import TYPE_CHECKING

from onethinker_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from onethinker_jax.model.config import Qwen3VLConfig
    from onethinker_jax.model.hf_weights import load_hf, save_hf
    from onethinker_jax.model.inputs import ModelInputs, VisionInputs
    from onethinker_jax.model.qwen3_vl import Qwen3VL

__all__ = ["ModelInputs", "Qwen3VL", "Qwen3VLConfig", "VisionInputs", "load_hf", "save_hf"]

_HOME = {
    "config": ("Qwen3VLConfig",),
    "hf_weights": ("load_hf", "save_hf"),
    "inputs": ("ModelInputs", "VisionInputs"),
    "qwen3_vl": ("Qwen3VL",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOME)
