"""A policy -> a Hugging Face directory that transformers and vLLM load, or its adapters -> one that `peft` loads."""

from collections.abc import Mapping
from pathlib import Path

from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer
from onethinker_jax.data_pipeline.processor.end_tokens import (
    EndTokens,
    read_end_tokens,
    read_generation_config,
)
from onethinker_jax.model.hf_weights import Beside, save_hf
from onethinker_jax.model.lora import merge_adapters
from onethinker_jax.model.peft_directory import CONFIG, save_peft
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.stored_parameters import save_parameters
from onethinker_jax.train.export.stored_model import StoredModel


def export_model(model: Qwen3VL, base: Path, out: Path, *, files: Mapping[str, str] | None = None) -> None:
    """Weights, config, tokenizer, processor and generation config into `out`, whole or not at all.

    Adapters are merged into the weights. `files` are more files by their names, such as a model card. A model directory
    that stands there is replaced; raises FileExistsError for anything else.
    """
    beside = _beside(base, out, files)
    save_hf(
        merge_adapters(model),
        out,
        copy_from=base,
        extra_config=beside.extra_config,
        generation_config=beside.generation_config,
        files=beside.files,
    )


def export_stored(
    model: StoredModel, base: Path, out: Path, *, files: Mapping[str, str] | None = None
) -> None:
    """The same of a model in a checkpoint: no more than one of its parameters is in memory at a time."""
    save_parameters(model.parameters, model.config, out, beside=_beside(base, out, files))


def check_export(base: Path, out: Path) -> EndTokens:
    """What `export_model` needs beside the weights, so that a run that cannot end well does not begin.

    Raises FileExistsError, or ProcessorError naming a file of `base`.
    """
    check_out(out)
    return read_end_tokens(base, ChatTokenizer(base))


def export_adapter(model: Qwen3VL, base: str, out: Path) -> None:
    """The adapters alone into `out`, as `peft` loads them onto `base`, whole or not at all.

    A directory of adapters that stands there is replaced; raises FileExistsError for anything else.
    """
    if out.exists() and not (out / CONFIG).is_file():
        raise FileExistsError(f"{out}: exists and is no directory of adapters; it is not replaced")
    save_peft(model, out, base=base)


def check_out(out: Path) -> None:
    """Raises FileExistsError where a model cannot be exported to."""
    if out.exists() and not (out / "config.json").is_file():
        raise FileExistsError(f"{out}: exists and is no model directory; it is not replaced")


def _beside(base: Path, out: Path, files: Mapping[str, str] | None) -> Beside:
    """What a directory at `out` holds beside the weights."""
    ends = check_export(base, out)
    generation = read_generation_config(base, ends)
    return Beside(copy_from=base, extra_config=ends.to_hf(), generation_config=generation, files=files or {})
