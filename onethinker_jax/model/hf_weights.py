"""Hugging Face directories in and out: ONE table of names and layouts drives loading and saving.

A parameter of ours is a path in the module tree; a stacked parameter [L, ...] is L tensors in the checkpoint,
their name holding `{}` for the layer. Layouts: `linear` is stored transposed ([out, in] in PyTorch),
`conv` is the patch convolution [out, channel, time, side, side] flattened to a matrix and transposed,
`same` is as it is, `gate_up` and `down` are experts. Released checkpoints hold these as [E, D, 2F], for [E, 2, D, F] of
ours, and [E, F, D], and so does `save_hf`; transformers 5 may write them with the last two axes swapped, which is read
too (where the sizes cannot tell, as with D = 2F, the released layout is meant). Weights are cast straight to the
dtype asked for. `qwen3_vl.py` has the legend of the axis letters.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from onethinker_jax.files import whole_folder
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.directory import companion_files
from onethinker_jax.model.layers import Remat
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.safetensors_files import (
    Index,
    StoredTensor,
    Tensor,
    WeightsError,
    find_tensors,
    write_tensors,
)

_LANGUAGE = "model.language_model."
_VISUAL = "model.visual."


def _pairs(ours: str, theirs: str, layout: str, *, bias: bool) -> dict[str, tuple[str, str]]:
    """Rows of the table for a Linear (`linear`) or a LayerNorm (`same`)."""
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
    "decoder.layers.experts.router.kernel": (f"{_LAYER}mlp.gate.weight", "linear"),
    "decoder.layers.experts.gate_up.kernel": (f"{_LAYER}mlp.experts.gate_up_proj", "gate_up"),
    "decoder.layers.experts.down.kernel": (f"{_LAYER}mlp.experts.down_proj", "down"),
}
AnyArray = TypeVar("AnyArray", Array, np.ndarray)
Axes = tuple[int, ...]  # how a tensor of the checkpoint is transposed to become ours
# By layout; each undoes itself.
TURNED: dict[str, Axes] = {"linear": (1, 0), "conv": (1, 0), "gate_up": (0, 2, 1, 3)}
_SWAPPED: dict[str, Axes] = {
    "gate_up": (0, 1, 3, 2),
    "down": (0, 2, 1),
}  # experts as transformers 5 may write
SMALL = 1 << 22  # bytes of a parameter, all layers, up to which it passes through the host whole


def load_hf(
    path: str | Path,
    *,
    mesh: jax.sharding.Mesh | None = None,
    dtype: Any = jnp.float32,
    remat: Remat = "none",
) -> Qwen3VL:
    """The model of a Hugging Face directory (`config.json` and safetensors, single or indexed).

    With `mesh` every tensor goes straight to its training sharding: a process reads what its devices hold,
    one tensor of the checkpoint (one layer's matrix, or one layer's experts) at a time. Raises FileNotFoundError,
    ConfigError, WeightsError listing missing, unknown and misshapen tensors, or ShardingError naming a parameter
    that the mesh does not divide.
    """
    from onethinker_jax.model.sharding import parameter_sharding

    config, graphdef, flat, tensors = find_parameters(Path(path), dtype, remat)
    for key, variable in flat.items():
        name, shape = parameter_name(key), variable.shape
        sharding = None if mesh is None else parameter_sharding(name, shape, mesh)
        flat[key] = variable.replace(load_parameter(name, shape, config, tensors, sharding, jnp.dtype(dtype)))
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


def check_weights(path: str | Path) -> None:
    """Raises what `load_hf` would raise without a mesh; it reads only the headers of the files."""
    find_parameters(Path(path), jnp.float32, "none")


def find_parameters(
    path: Path, dtype: Any, remat: Remat
) -> tuple[Qwen3VLConfig, nnx.GraphDef, dict[Any, Any], dict[str, StoredTensor]]:
    """A directory's config, the model's graph and shapes, and its tensors, which are all there and of these shapes."""
    config = Qwen3VLConfig.from_directory(path)
    model = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0), dtype=dtype, remat=remat))
    graphdef, shapes = nnx.split(model)
    flat = dict(nnx.to_flat_state(shapes))
    tensors = find_tensors(path)
    wanted = {parameter_name(key): value.shape for key, value in flat.items()}
    problems = _problems(wanted, {name: tensor.shape for name, tensor in tensors.items()}, config)
    if problems:
        raise WeightsError(f"{path}: " + "; ".join(problems))
    return config, graphdef, flat, tensors


@dataclass(frozen=True)
class Beside:
    """What a directory holds beside its weights.

    From `copy_from` come the tokenizer, processor and generation config files; `generation_config` replaces the last of
    these, `extra_config` adds top-level keys to `config.json`, and `files` are more files of text by their names.
    """

    copy_from: str | Path | None = None
    extra_config: Mapping[str, Any] | None = None
    generation_config: Mapping[str, Any] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def save_hf(
    model: Qwen3VL,
    path: str | Path,
    *,
    copy_from: str | Path | None = None,
    extra_config: Mapping[str, Any] | None = None,
    generation_config: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    max_file_bytes: int = 5 * 10**9,
) -> None:
    """Writes a Hugging Face directory: `config.json`, the weights, and what lies beside them, as `Beside` says.

    A file of weights has at most `max_file_bytes`; where there are several, there is an index. Tensors are gathered and
    written one at a time. The directory is complete or absent: it is written beside `path` and renamed; an older one is
    replaced. Every process of a run must call it; the first one writes. Raises OSError where the directory cannot be
    written.
    """
    tensors = [
        tensor
        for key, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
        for tensor in _tensors(parameter_name(key), variable[...], model.config)
    ]
    beside = Beside(copy_from, extra_config, generation_config, files or {})
    write_directory(tensors, model.config, Path(path), beside, max_file_bytes)


def write_directory(
    tensors: Sequence[Tensor], config: Qwen3VLConfig, path: Path, beside: Beside, max_file_bytes: int
) -> None:
    """Writes a directory whole or not at all, as `save_hf` does of a model's `tensors`."""
    if jax.process_index():
        write_tensors(tensors, None, max_file_bytes=max_file_bytes)
        multihost_utils.sync_global_devices(f"{path} is written")
        return
    with whole_folder(path) as folder:
        text = json.dumps(config.to_hf(dtype=str(tensors[0].dtype), extra=beside.extra_config), indent=2)
        (folder / "config.json").write_text(text + "\n")
        if beside.copy_from is not None:
            for file in companion_files(Path(beside.copy_from)):
                shutil.copy2(file, folder / file.name)
        if beside.generation_config is not None:
            text = json.dumps(beside.generation_config, indent=2)
            (folder / "generation_config.json").write_text(text + "\n")
        for name, text in beside.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_tensors(tensors, folder, max_file_bytes=max_file_bytes)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{path} is written")


def parameter_name(key: tuple[Any, ...]) -> str:
    """The dotted name of a parameter at that path of the tree."""
    return ".".join(str(part) for part in key)


def expected_tensors(
    ours: str, shape: tuple[int, ...], config: Qwen3VLConfig
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes of the checkpoint's tensors that one parameter of ours is made of."""
    name, layout = TABLE[ours]
    one = shape[1:] if "{}" in name else shape
    if layout == "linear":
        one = one[::-1]
    elif layout == "gate_up":
        one = (one[0], one[2], one[1] * one[3])
    elif layout == "conv":
        one = (one[1], *_conv_shape(config))
    for layer in range(shape[0]) if "{}" in name else (0,):
        yield name.format(layer), one


def _problems(
    ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]], config: Qwen3VLConfig
) -> list[str]:
    wanted: dict[str, tuple[int, ...]] = {}
    allowed: set[tuple[str, tuple[int, ...]]] = set()
    for key, full in ours.items():
        for name, shape in expected_tensors(key, full, config):
            wanted[name] = shape
            allowed.add((name, shape))
            if TABLE[key][1] in _SWAPPED:
                allowed.add((name, (shape[0], shape[2], shape[1])))
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = sorted(wanted.keys() - theirs.keys())
    unknown = sorted(theirs.keys() - wanted.keys() - tied)
    misshapen = [
        f"{n} {theirs[n]} != {wanted[n]}"
        for n in sorted(wanted.keys() & theirs.keys())
        if (n, theirs[n]) not in allowed
    ]
    return [
        f"{len(names)} {kind} tensor(s): {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
        if names
    ]


def load_parameter(
    ours: str,
    shape: tuple[int, ...],
    config: Qwen3VLConfig,
    tensors: Mapping[str, StoredTensor],
    sharding: NamedSharding | None,
    dtype: Any,
) -> Array:
    """One parameter; a large stacked one is filled in place on the devices, layer by layer."""
    name, layout = TABLE[ours]
    stacked = "{}" in name
    one = shape[1:] if stacked else shape
    views = [
        _view(tensors[full_name], layout, one, there)
        for full_name, there in expected_tensors(ours, shape, config)
    ]
    if not stacked:
        stored, axes = views[0]
        return _transposing(sharding, axes)(_read(stored, axes, sharding, dtype))
    if dtype.itemsize * math.prod(shape) <= SMALL:
        stack = np.stack([stored.read().transpose(axes) for stored, axes in views]).astype(dtype, copy=False)
        if sharding is None:
            return jnp.asarray(stack)
        return jax.make_array_from_callback(shape, sharding, lambda index: stack[index or ()])
    inner = None if sharding is None else NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    stack = jnp.zeros(shape, dtype, device=sharding)
    for layer, (stored, axes) in enumerate(views):
        # Waiting keeps one layer on the host: dispatch would run ahead and hold them all.
        stack = jax.block_until_ready(
            _putting(sharding, axes)(stack, _read(stored, axes, inner, dtype), layer)
        )
    return stack


def _view(
    stored: StoredTensor, layout: str, shape: tuple[int, ...], released: tuple[int, ...]
) -> tuple[StoredTensor, Axes]:
    """A tensor with the axes of ours, of `shape`, in the file's order, and the transposition from there to ours."""
    axes = TURNED.get(layout, tuple(range(len(shape))))
    if stored.shape != released:
        axes = _SWAPPED[layout]
    there = [0] * len(shape)
    for size, axis in zip(shape, axes, strict=True):
        there[axis] = size
    return replace(stored, shape=tuple(there)), axes


def _read(stored: StoredTensor, axes: Axes, sharding: NamedSharding | None, dtype: Any) -> Array:
    """One tensor on the devices, with its axes in the file's order: the devices transpose it."""
    if sharding is None:
        return jnp.asarray(stored.read().astype(dtype, copy=False))
    there: list[Any] = [None] * len(axes)
    for mesh_axis, axis in zip(sharding.spec, axes, strict=False):
        there[axis] = mesh_axis
    parts: dict[str, np.ndarray] = {}  # devices that hold the same part read it once

    def part(index: Index | None) -> np.ndarray:
        if str(index) not in parts:
            parts[str(index)] = stored.read(index or ()).astype(dtype, copy=False)
        return parts[str(index)]

    there_sharding = NamedSharding(sharding.mesh, PartitionSpec(*there))
    return jax.make_array_from_callback(stored.shape, there_sharding, part, dtype=dtype)


@lru_cache(maxsize=64)  # so that a second load compiles nothing
def _transposing(sharding: NamedSharding | None, axes: Axes) -> Callable[[Array], Array]:
    if axes == tuple(range(len(axes))):
        return lambda one: one
    return jax.jit(lambda one: one.transpose(axes), out_shardings=sharding)


@lru_cache(maxsize=64)
def _putting(sharding: NamedSharding | None, axes: Axes) -> Callable[[Array, Array, int], Array]:
    def put(stack: Array, one: Array, layer: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(stack, one.transpose(axes), layer, axis=0)

    return jax.jit(put, donate_argnums=0, out_shardings=sharding)


def _tensors(ours: str, array: Array, config: Qwen3VLConfig) -> Iterator[Tensor]:
    """The checkpoint's tensors of one parameter, each gathered to the host when it is written."""
    name, layout = TABLE[ours]
    axes, stacked, dtype = TURNED.get(layout), "{}" in name, np.dtype(array.dtype)
    whole = cache(lambda: to_host(array))
    small = dtype.itemsize * array.size <= SMALL

    def fetch(layer: int | None) -> np.ndarray:
        if small:
            return turned(whole() if layer is None else whole()[layer], layout)
        return to_host(array if layer is None and axes is None else _take(array, layer, layout))

    for layer, (full_name, shape) in enumerate(expected_tensors(ours, array.shape, config)):
        yield Tensor(full_name, dtype, shape, partial(fetch, layer if stacked else None))


def to_host(array: Array) -> np.ndarray:
    """A whole array on this host; of one that lies on several processes, all of them must ask."""
    if not isinstance(array, Array) or array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@partial(jax.jit, static_argnums=2)
def _take(array: Array, layer: Array | int | None, layout: str) -> Array:
    one = array if layer is None else jax.lax.dynamic_index_in_dim(array, layer, axis=0, keepdims=False)
    return turned(one, layout)


def turned(one: AnyArray, layout: str) -> AnyArray:
    """A parameter of ours with its axes in the checkpoint's order."""
    return one.transpose(TURNED[layout]) if layout in TURNED else one


def _conv_shape(config: Qwen3VLConfig) -> tuple[int, int, int, int]:
    vision = config.vision
    return vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size
