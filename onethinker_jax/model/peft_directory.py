"""A model's adapters as a directory that `peft` loads onto transformers' model of the base.

`adapter_config.json` says what they are, `adapter_model.safetensors` holds a tensor [rank, in] and one [out, rank] for
every layer's linear map, under transformers' name of it between PEFT's own prefix and ending.
"""

import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from onethinker_jax.files import whole_folder
from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model.hf_weights import TABLE, to_host
from onethinker_jax.model.lora import adapted_maps
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.safetensors_files import Tensor, write_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_peft(model: Qwen3VL, path: str | Path, *, base: str) -> None:
    """Writes the adapters of a model that has some; `base` is the directory or name that they are to be loaded onto.

    The directory is complete or absent; an older one is replaced. Every process of a run must call it; the first one
    writes. Raises OSError where the directory cannot be written.
    """
    path, settings = Path(path), model.lora
    assert settings is not None
    modules: list[str] = []
    tensors: list[Tensor] = []
    for name, linear in adapted_maps(model, settings):
        assert linear.lora is not None
        module = TABLE[f"{name}.kernel"][0].removesuffix(".weight")
        modules += _endings(module, len(linear.kernel.shape) > 2 and linear.kernel.shape[0])
        for letter, array in (("A", linear.lora.a[...]), ("B", linear.lora.b[...])):
            tensors += _tensors(f"base_model.model.{module}.lora_{letter}.weight", array)
    if jax.process_index():
        write_file(tensors, None)
    else:
        with whole_folder(path) as folder:
            (folder / CONFIG).write_text(json.dumps(_config(settings, base, modules), indent=2) + "\n")
            write_file(tensors, folder / WEIGHTS)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{path} is written")


def _endings(module: str, layers: int) -> list[str]:
    """Endings of transformers' names that are those of a map of ours and of no other."""
    before, stacked, after = module.rpartition("{}.")
    if not stacked:
        return [module]
    if before.endswith("deepstack_merger_list."):
        return [f"deepstack_merger_list.{layer}.{after}" for layer in range(layers)]
    return [after]  # such as self_attn.q_proj


def _config(settings: LoRASettings, base: str, modules: list[str]) -> dict[str, object]:
    """What PEFT reads; what it does not find there has its default: no dropout, no bias, alpha over rank."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": modules,
        "inference_mode": True,
    }


def _tensors(name: str, array: Array) -> Iterator[Tensor]:
    """The tensors of one of our matrices, [out, in] as PyTorch has them, a layer each where it is stacked."""
    host = cache(lambda: to_host(array))

    def fetch(layer: int | None) -> np.ndarray:
        return (host() if layer is None else host()[layer]).T

    stacked = "{}" in name
    shape = array.shape[:-3:-1]
    for layer in range(array.shape[0]) if stacked else (None,):
        yield Tensor(name.format(layer), np.dtype(array.dtype), shape, partial(fetch, layer))
