"""Directories that should be Hugging Face models and are something else: what they are and what to do, in one line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

_LFS = b"version https://git-lfs"
_ADAPTER = "adapter_config.json"
_GGUF = "*.gguf"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")  # owner/name
_NOT_READ = ("pytorch_model*.bin", "consolidated*.pt*", "tf_model*.h5", "flax_model*.msgpack", "*.nemo")


def lfs_error(file: Path) -> str | None:
    """What is wrong with a file that is only Git LFS's pointer to the file; None if it is the file."""
    with file.open("rb") as stream:
        if stream.read(len(_LFS)) != _LFS:
            return None
    return "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"


def directory_error(path: Path) -> str | None:
    """Why a path is no model directory, and what to do; None if it may be one."""
    if not path.exists():
        return missing(path)
    if path.is_file():
        if path.suffix == ".gguf":
            return _gguf_error(path)
        return "is a file; name the directory that it lies in"
    if (path / _ADAPTER).is_file():
        return _adapter_error(path / _ADAPTER)
    if not (path / "config.json").is_file():
        return other_weights(path)
    return None


def missing(path: Path) -> str:
    """What to do about a model directory that is not there; for a name of the Hugging Face hub, how to fetch it."""
    if _HUB_NAME.fullmatch(str(path)):
        return (
            f"no such directory; models are not fetched by themselves: `hf download {path} --local-dir {path.name}` "
            f"(from pip's huggingface_hub), then name the directory {path.name}"
        )
    return (
        "no such directory; name one with a model's config.json, tokenizer and safetensors, as "
        "`hf download Qwen/Qwen3-VL-2B-Instruct --local-dir DIRECTORY` makes"
    )


def other_weights(directory: Path) -> str | None:
    """Which weights of a directory are in a format that is not read, and what to do; None if there are none."""
    if file := _first(directory, _GGUF):
        return _gguf_error(file)
    if file := next((found for pattern in _NOT_READ if (found := _first(directory, pattern))), None):
        return (
            f"holds its weights as {file.name}, which is not read; save them as safetensors, as transformers' "
            "save_pretrained does"
        )
    return None


def companion_files(directory: Path) -> Iterator[Path]:
    """The files of a model directory beside config and weights: tokenizer, processor, chat template and so on."""
    for file in sorted(directory.iterdir()):
        if file.suffix not in (".json", ".jinja", ".txt") or file.name.endswith(".index.json"):
            continue
        if not file.name.startswith(("config.", "model.")):
            yield file


def _gguf_error(file: Path) -> str:
    return (
        f"{file.name} holds weights in GGUF, which is not read; name the directory of safetensors that it was "
        "made from"
    )


def _adapter_error(file: Path) -> str:
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    return (
        f"holds an adapter ({file.name}) of {base or 'a base model'}, which is not read; merge the two (peft's "
        "merge_and_unload) and name the directory of the whole model"
    )


def _first(directory: Path, pattern: str) -> Path | None:
    return min(directory.glob(pattern), default=None)
