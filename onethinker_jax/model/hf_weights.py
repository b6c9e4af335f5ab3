"""Hugging Face directories in and out: ONE table of names and layouts drives loading and saving.

A parameter of ours is a path in the module tree; a stacked parameter [L, ...] is L tensors in the checkpoint,
their name holding ``{}`` for the layer.  Layouts: ``linear`` is stored transposed ([out, in] in PyTorch),
``conv`` is the patch convolution [out, channel, time, side, side] flattened to a matrix and transposed,
``same`` is as it is.  Weights are never passed through another dtype than the one asked for.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.layers import Remat
from onethinker_jax.model.qwen3_vl import Qwen3VL

_LANGUAGE = "model.language_model."
_VISUAL = "model.visual."


def _pairs(ours: str, theirs: str, layout: str, *, bias: bool) -> dict[str, tuple[str, str]]:
    """Rows of the table for a Linear (``linear``) or a LayerNorm (``same``)."""
    weight = "kernel" if layout in ("linear", "conv") else "scale"
    rows = {f"{ours}.{weight}": (f"{theirs}.weight", layout)}
    if bias:
        rows[f"{ours}.bias"] = (f"{theirs}.bias", "same")
    return rows


def _merger(ours: str, theirs: str) -> dict[str, tuple[str, str]]:
    return {
        **_pairs(f"{ours}.norm", f"{theirs}.norm", "same", bias=True),
        **_pairs(f"{ours}.fc1", f"{theirs}.linear_fc1", "linear", bias=True),
        **_pairs(f"{ours}.fc2", f"{theirs}.linear_fc2", "linear", bias=True),
    }


_BLOCK, _LAYER = f"{_VISUAL}blocks.{{}}.", f"{_LANGUAGE}layers.{{}}."

TABLE: dict[str, tuple[str, str]] = {
    "embed": (f"{_LANGUAGE}embed_tokens.weight", "same"),
    "decoder.norm.scale": (f"{_LANGUAGE}norm.weight", "same"),
    "lm_head.kernel": ("lm_head.weight", "linear"),
    "visual.pos_embed": (f"{_VISUAL}pos_embed.weight", "same"),
    **_pairs("visual.patch_embed", f"{_VISUAL}patch_embed.proj", "conv", bias=True),
    **_pairs("visual.blocks.norm1", f"{_BLOCK}norm1", "same", bias=True),
    **_pairs("visual.blocks.norm2", f"{_BLOCK}norm2", "same", bias=True),
    **_pairs("visual.blocks.qkv", f"{_BLOCK}attn.qkv", "linear", bias=True),
    **_pairs("visual.blocks.proj", f"{_BLOCK}attn.proj", "linear", bias=True),
    **_pairs("visual.blocks.fc1", f"{_BLOCK}mlp.linear_fc1", "linear", bias=True),
    **_pairs("visual.blocks.fc2", f"{_BLOCK}mlp.linear_fc2", "linear", bias=True),
    **_merger("visual.merger", f"{_VISUAL}merger"),
    **_merger("visual.deepstack_mergers", f"{_VISUAL}deepstack_merger_list.{{}}"),
    **_pairs("decoder.layers.input_norm", f"{_LAYER}input_layernorm", "same", bias=False),
    **_pairs("decoder.layers.mlp_norm", f"{_LAYER}post_attention_layernorm", "same", bias=False),
    **_pairs("decoder.layers.q_norm", f"{_LAYER}self_attn.q_norm", "same", bias=False),
    **_pairs("decoder.layers.k_norm", f"{_LAYER}self_attn.k_norm", "same", bias=False),
    **{
        row: value
        for name, parent in (
            *((f"{letter}_proj", "self_attn") for letter in "qkvo"),
            *((f"{part}_proj", "mlp") for part in ("gate", "up", "down")),
        )
        for row, value in _pairs(
            f"decoder.layers.{name}", f"{_LAYER}{parent}.{name}", "linear", bias=False
        ).items()
    },
}


class WeightsError(ValueError):
    """A checkpoint whose tensors do not fit the model; the message lists them."""


def load_hf(
    path: str | Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    dtype: Any = jnp.float32,
    remat: Remat = "none",
) -> Qwen3VL:
    """The model of a Hugging Face directory (``config.json`` and safetensors, single or indexed).

    Tensors are read one by one and placed with the training shardings when ``mesh`` is given.  Raises
    FileNotFoundError, ConfigError, or WeightsError listing missing, unknown and misshapen tensors.
    """
    from onethinker_jax.model.sharding import parameter_sharding

    config = Qwen3VLConfig.from_directory(path)
    model = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0), dtype=dtype, remat=remat))
    graphdef, shapes = nnx.split(model)
    flat = dict(nnx.to_flat_state(shapes))
    with _Tensors(Path(path)) as tensors:
        problems = _problems({_name(key): value.shape for key, value in flat.items()}, tensors.shapes, config)
        if problems:
            raise WeightsError(f"{path}: " + "; ".join(problems))
        for key, variable in flat.items():
            array = _read(_name(key), variable.shape, tensors.read).astype(dtype)
            sharding = None if mesh is None else parameter_sharding(_name(key), array.shape, mesh)
            flat[key] = variable.replace(jax.device_put(array, sharding))
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


def save_hf(
    model: Qwen3VL,
    path: str | Path,
    *,
    copy_from: str | Path | None = None,
    extra_config: Mapping[str, Any] | None = None,
) -> None:
    """Writes ``config.json`` and ``model.safetensors``, with the tokenizer and processor files of ``copy_from``.

    The directory is complete or absent: it is written beside ``path`` and renamed; an older one is replaced.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    flat = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    tensors: dict[str, np.ndarray] = {}
    for key, variable in flat.items():
        name, layout = TABLE[_name(key)]
        array = np.asarray(jax.device_get(variable[...]))
        parts = [(name.format(i), part) for i, part in enumerate(array)] if "{}" in name else [(name, array)]
        for part_name, part in parts:
            tensors[part_name] = np.ascontiguousarray(_to_hf(part, layout, model.config))
    dtype = str(next(iter(tensors.values())).dtype)
    config = model.config.to_hf(dtype=dtype, extra=extra_config)
    (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if copy_from is not None:
        for file in sorted(Path(copy_from).iterdir()):
            if file.suffix in (".json", ".jinja", ".txt") and not file.name.startswith(("config.", "model.")):
                shutil.copy2(file, temporary / file.name)
    save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
    if path.exists():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        try:
            os.rename(temporary, path)
        except BaseException:
            os.rename(old, path)
            raise
        shutil.rmtree(old)
    else:
        os.rename(temporary, path)


class _Tensors:
    """The tensors of a directory's safetensors files, by name, read lazily."""

    def __init__(self, directory: Path):
        index = directory / "model.safetensors.index.json"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise WeightsError(f"{index}: not an index of tensors ({error!r})") from error
        elif (directory / "model.safetensors").is_file():
            names = ["model.safetensors"]
        else:
            raise FileNotFoundError(
                f"{directory}: neither model.safetensors nor model.safetensors.index.json"
            )
        self._files = [_open(directory / name) for name in names]
        self._where = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in self._where.items()}

    def read(self, name: str) -> np.ndarray:
        return np.asarray(self._where[name].get_tensor(name))

    def __enter__(self) -> "_Tensors":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()
        self._where.clear()


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="flax")
    except SafetensorError as error:
        raise WeightsError(f"{file}: broken or cut short ({error})") from error


def _name(key: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in key)


def _expected(
    ours: str, shape: tuple[int, ...], config: Qwen3VLConfig
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the checkpoint of one parameter of ours."""
    name, layout = TABLE[ours]
    one = shape[1:] if "{}" in name else shape
    if layout == "linear":
        one = one[::-1]
    elif layout == "conv":
        one = (one[1], *_conv_shape(config))
    for layer in range(shape[0]) if "{}" in name else (0,):
        yield name.format(layer), one


def _problems(
    ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]], config: Qwen3VLConfig
) -> list[str]:
    wanted = {name: shape for key, full in ours.items() for name, shape in _expected(key, full, config)}
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = sorted(wanted.keys() - theirs.keys())
    unknown = sorted(theirs.keys() - wanted.keys() - tied)
    misshapen = [
        f"{n} {theirs[n]} != {wanted[n]}"
        for n in sorted(wanted.keys() & theirs.keys())
        if theirs[n] != wanted[n]
    ]
    return [
        f"{len(names)} {kind} tensor(s): {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
        if names
    ]


def _read(ours: str, shape: tuple[int, ...], read: Callable[[str], np.ndarray]) -> np.ndarray:
    name, layout = TABLE[ours]
    if "{}" not in name:
        return _from_hf(read(name), layout)
    return np.stack([_from_hf(read(name.format(layer)), layout) for layer in range(shape[0])])


def _conv_shape(config: Qwen3VLConfig) -> tuple[int, int, int, int]:
    vision = config.vision
    return vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size


def _from_hf(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "conv":
        array = array.reshape(array.shape[0], -1)
    return array if layout == "same" else array.T


def _to_hf(array: np.ndarray, layout: str, config: Qwen3VLConfig) -> np.ndarray:
    array = array if layout == "same" else array.T
    return array.reshape(array.shape[0], *_conv_shape(config)) if layout == "conv" else array
