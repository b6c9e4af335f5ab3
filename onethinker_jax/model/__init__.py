"""Qwen3-VL in Flax NNX.  Knows nothing of training, data or rewards.

``load_hf`` and ``save_hf`` read and write Hugging Face directories; names are loaded on first use, so that
importing the package costs nothing to code that needs only its host-side parts.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onethinker_jax.model.config import Qwen3VLConfig
    from onethinker_jax.model.hf_weights import load_hf, save_hf
    from onethinker_jax.model.inputs import ModelInputs, VisionInputs
    from onethinker_jax.model.qwen3_vl import Qwen3VL

__all__ = ["ModelInputs", "Qwen3VL", "Qwen3VLConfig", "VisionInputs", "load_hf", "save_hf"]

_HOME = {
    "ModelInputs": "inputs",
    "Qwen3VL": "qwen3_vl",
    "Qwen3VLConfig": "config",
    "VisionInputs": "inputs",
    "load_hf": "hf_weights",
    "save_hf": "hf_weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
