"""The device mesh, and how each parameter is sharded over it: logical axes -> mesh axes, to train and to decode.

The mesh is always `("data", "fsdp", "tensor")`. Training shards a kernel's width over `fsdp` and its
heads, feed-forward or vocabulary axis over `tensor`; decoding keeps only the `tensor` part, so that no
weight is gathered at every token. Batches are split over `data` and `fsdp` together. Experts are cut
like the dense feed-forward (every device holds a slice of every expert), so that tokens never change devices.

A mesh over the devices of several processes trains; each process decodes on a mesh of its own devices alone.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from onethinker_jax.errors import UserError
from onethinker_jax.model.int8_weights import are_quantised, quantised, split_kernels, summed_axis

T = TypeVar("T")

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # mesh axes that a batch's rows are split over

# parameter name (regular expression) -> logical axis of each dimension, None: not sharded. Every parameter is listed.
_AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"embed", ("vocab", "embed")),
    (r"lm_head\.kernel", ("embed", "vocab")),
    (r"decoder\.layers\.[qkv]_proj\.kernel", ("layers", "embed", "heads")),
    (r"decoder\.layers\.o_proj\.kernel", ("layers", "heads", "embed")),
    (r"decoder\.layers\.(gate|up)_proj\.kernel", ("layers", "embed", "mlp")),
    (r"decoder\.layers\.down_proj\.kernel", ("layers", "mlp", "embed")),
    (r"decoder\.layers\.experts\.router\.kernel", ("layers", "embed", None)),
    (r"decoder\.layers\.experts\.gate_up\.kernel", ("layers", "experts", None, "embed", "mlp")),
    (r"decoder\.layers\.experts\.down\.kernel", ("layers", "experts", "mlp", "embed")),
    (r"visual\.pos_embed", (None, "embed")),
    (r"visual\.patch_embed\.kernel", (None, "embed")),
    (r"visual\.blocks\.(qkv|fc1)\.kernel", ("layers", "embed", "mlp")),
    (r"visual\.blocks\.(proj|fc2)\.kernel", ("layers", "mlp", "embed")),
    (r"visual\.merger\.fc1\.kernel", ("embed", "mlp")),
    (r"visual\.merger\.fc2\.kernel", ("mlp", "embed")),
    (r"visual\.deepstack_mergers\.fc1\.kernel", ("layers", "embed", "mlp")),
    (r"visual\.deepstack_mergers\.fc2\.kernel", ("layers", "mlp", "embed")),
    # norms and biases: small, replicated
    (r"decoder\.norm\.scale", (None,)),
    (r"decoder\.layers\.(input|mlp|q|k)_norm\.scale", ("layers", None)),
    (r"visual\.patch_embed\.bias", (None,)),
    (r"visual\.blocks\.norm[12]\.(scale|bias)", ("layers", None)),
    (r"visual\.blocks\.(qkv|proj|fc1|fc2)\.bias", ("layers", None)),
    (r"visual\.merger\.(norm\.scale|norm\.bias|fc[12]\.bias)", (None,)),
    (r"visual\.deepstack_mergers\.(norm\.scale|norm\.bias|fc[12]\.bias)", ("layers", None)),
    (r"ns_coeffs", (None,)),  # Muon's three Newton-Schulz coefficients, in its state
)


def _int8_rows() -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """A matrix in int8 (`int8_weights.py`): `values` lie as it does, `scale` has size 1 along the axis summed over."""
    for pattern, axes in _AXES:
        axis = summed_axis(pattern.replace("\\", ""))
        if axis is not None:
            at = len(axes) + axis
            yield rf"{pattern}\.values", axes
            yield rf"{pattern}\.scale", (*axes[:at], None, *axes[at + 1 :])


def _lora_rows() -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """Beside a kernel [..., in, out] LoRA's a [..., in, rank] and b [..., rank, out]; a rank is not sharded."""
    for pattern, axes in _AXES:
        if pattern.endswith(r"\.kernel") and "experts" not in pattern:
            yield pattern.replace("kernel", r"lora\.a"), (*axes[:-1], None)
            yield pattern.replace("kernel", r"lora\.b"), (*axes[:-2], None, axes[-1])


LOGICAL_AXES = (*_AXES, *_lora_rows(), *_int8_rows())

TRAIN_RULES: Mapping[str, str] = {"embed": "fsdp", "heads": "tensor", "mlp": "tensor", "vocab": "tensor"}
DECODE_RULES: Mapping[str, str] = {"heads": "tensor", "mlp": "tensor", "vocab": "tensor"}


class ShardingError(UserError, ValueError):
    """A dimension that the mesh does not divide, or a parameter that no pattern matches; the message names it."""


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the first `data * fsdp * tensor` of `devices` (by default all that JAX sees).

    Raises ShardingError when there are fewer, or when axis `tensor` would be split over processes.
    """
    needed = data * fsdp * tensor
    devices = jax.devices() if devices is None else devices
    if needed > len(devices):
        raise ShardingError(
            f"mesh data={data} fsdp={fsdp} tensor={tensor} needs {needed} devices, not {len(devices)}"
        )
    shape, chosen = (data, fsdp, tensor), devices[:needed]
    # An 8 x 2 mesh of a 4 x 4 torus, for example, splits an axis of the torus.
    arranged = mesh_utils.create_device_mesh(shape, chosen, allow_split_physical_axes=True)
    mesh = Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * 3)
    if jax.process_count() == 1 or _rows_are_apart(mesh):
        return mesh
    by_process = sorted(chosen, key=lambda device: (device.process_index, device.id))
    mesh = Mesh(np.array(by_process).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)
    if not _rows_are_apart(mesh):
        raise ShardingError(f"mesh tensor={tensor} is split over processes: it must divide their devices")
    return mesh


def _rows_are_apart(mesh: Mesh) -> bool:
    """Whether no row of a batch lies on devices of two processes."""
    rows = mesh.devices.reshape(-1, mesh.shape["tensor"])
    return all(len({device.process_index for device in row}) == 1 for row in rows)


def process_count(mesh: Mesh) -> int:
    """The number of processes that have devices of the mesh."""
    return len({device.process_index for device in mesh.devices.flat})


def local_mesh(mesh: Mesh) -> Mesh:
    """The mesh of this process's own devices among those of `mesh`; where there are several processes `data` is 1."""
    if jax.process_count() == 1:
        return mesh
    rows = mesh.devices.reshape(-1, mesh.shape["tensor"])
    mine = [row for row in rows if row[0].process_index == jax.process_index()]
    return Mesh(np.array([mine]), AXES, axis_types=(AxisType.Auto,) * 3)


def context_mesh() -> AbstractMesh | None:
    """The mesh of the `jax.set_mesh` around the caller, if there is one; not inside a `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.axis_names == AXES and not mesh.manual_axes else None


def constrain(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """`x` with its first axes sharded over the mesh in context: `axes` names the mesh axes of each.

    Without a mesh `x` is left alone, and so is an axis whose size the mesh axes do not divide.
    """
    mesh = context_mesh()
    if mesh is None or mesh.size == 1:
        return x
    spec = [dividing(mesh, size, axis) for size, axis in zip(x.shape, axes, strict=False)]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def dividing(
    mesh: AbstractMesh, size: int, axis: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """`axis` of the mesh, or axes, where it divides `size`; else None, by which nothing is sharded."""
    names = (axis,) if isinstance(axis, str) else axis or ()
    return axis if size % math.prod(mesh.shape[name] for name in names) == 0 else None


def constrain_parameters(tree: T) -> T:
    """A tree of parameters (or gradients) sharded for training over the mesh in context, if any.

    Raises ShardingError as `tree_shardings` does.
    """
    mesh = context_mesh()
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, tree_shardings(tree, mesh))


def gather_weights(layer: T, name: str) -> T:
    """The parameters of one layer of the stack `name`, gathered over `fsdp` before they are used.

    Left to itself, XLA's partitioner turns a product with a sharded kernel into a loop over the shards. Each turn adds
    to the whole result and so moves it through HBM, once for every shard. The backward pass shards the gradients again.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _gather(leaf, f"{name}.{_dotted(path)}"), layer
    )


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(leaf: jax.Array, name: str) -> jax.Array:
    """One parameter of a layer: where it is frozen, no gradient is made of it."""
    return _constrain_layer(leaf, name, DECODE_RULES)


def _gather_forward(leaf: jax.Array, name: str) -> tuple[jax.Array, None]:
    return _constrain_layer(leaf, name, DECODE_RULES), None


def _gather_backward(name: str, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    whole = _constrain_layer(gradient, name, DECODE_RULES)  # else its product, too, would be a loop
    return (_constrain_layer(whole, name, TRAIN_RULES),)


_gather.defvjp(_gather_forward, _gather_backward)


def _constrain_layer(leaf: jax.Array, name: str, rules: Mapping[str, str]) -> jax.Array:
    """One layer's part of the stacked parameter `name`, sharded by `rules` over the mesh in context, if any."""
    mesh = context_mesh()
    if mesh is None or mesh.size == 1:
        return leaf
    spec = parameter_spec(name, (1, *leaf.shape), mesh, rules)
    return jax.lax.with_sharding_constraint(leaf, PartitionSpec(*spec[1:]))


def decoding_layout(
    params: nnx.State,
    mesh: Mesh,
    dtype: str,
    *,
    weights_dtype: str | None = None,
    donate: bool = False,
) -> nnx.State:
    """`params` in `dtype`, sharded by `DECODE_RULES`: decoding then gathers no weight at every token.

    One compiled copy moves them; an array that would not change is passed on as it is. With `weights_dtype` another
    compiled program makes int8 matrices of those that are quantised (`int8_weights.py`), unless they are. With
    `donate` the given arrays are used up, and no more memory than theirs is needed where shapes and dtypes stay.
    Parameters that lie on several processes are moved by all of them together, and `mesh` is a process's own. Raises
    ShardingError as `tree_shardings` does.
    """
    first = jax.tree.leaves(params)[0].sharding
    source = mesh if first.is_fully_addressable else first.mesh
    if weights_dtype is None:
        laid_out = _decoding_copy(params, source, dtype, donate=donate)
    else:
        kernels, others = split_kernels(params)
        kernels = kernels if are_quantised(kernels) else _int8_copy(kernels, source, dtype)
        laid_out = nnx.merge_state(kernels, _decoding_copy(others, source, dtype, donate=donate))
    return laid_out if first.is_fully_addressable else _local_view(laid_out, mesh)


@partial(jax.jit, static_argnums=(1, 2))
def _int8_copy(kernels: nnx.State, source: Mesh, dtype: str) -> nnx.State:
    made = quantised(kernels, dtype)
    return jax.lax.with_sharding_constraint(made, tree_shardings(made, source, DECODE_RULES))


def _decoding_copy(params: nnx.State, source: Mesh, dtype: str, *, donate: bool) -> nnx.State:
    leaves, tree = jax.tree.flatten(params)
    wanted = jax.tree.leaves(tree_shardings(params, source, DECODE_RULES))
    stay = [
        leaf.dtype == dtype and leaf.sharding.is_equivalent_to(to, leaf.ndim)
        for leaf, to in zip(leaves, wanted, strict=True)
    ]
    if not all(stay):
        move = _move_and_free if donate else _move
        going = [(leaf, to) for leaf, to, stays in zip(leaves, wanted, stay, strict=True) if not stays]
        moved = iter(move([leaf for leaf, _ in going], dtype, tuple(to for _, to in going)))
        leaves = [leaf if stays else next(moved) for leaf, stays in zip(leaves, stay, strict=True)]
        params = jax.tree.unflatten(tree, leaves)
    return params


def _local_view(tree: T, mesh: Mesh) -> T:
    """Arrays on the process's own `mesh`, made of the whole copy that the process holds of arrays on all processes."""

    def view(leaf: jax.Array) -> jax.Array:
        assert isinstance(leaf.sharding, NamedSharding)
        shards = [shard.data for shard in leaf.addressable_shards]
        sharding = NamedSharding(mesh, leaf.sharding.spec)
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, shards)

    return jax.tree.map(view, tree)


def _moved(leaves: list[jax.Array], dtype: str, shardings: tuple[NamedSharding, ...]) -> list[jax.Array]:
    return [
        jax.lax.with_sharding_constraint(leaf.astype(dtype), to)
        for leaf, to in zip(leaves, shardings, strict=True)
    ]


_move = jax.jit(_moved, static_argnums=(1, 2))
_move_and_free = jax.jit(_moved, static_argnums=(1, 2), donate_argnums=0)


def parameter_spec(
    name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Mapping[str, str]
) -> PartitionSpec:
    """How the parameter `name` (dotted path) is sharded.

    Raises ShardingError naming it when no pattern of `LOGICAL_AXES` matches or the mesh does not divide it.
    """
    for pattern, axes in LOGICAL_AXES:
        if re.fullmatch(pattern, name):
            mesh_axes = [None if axis is None else rules.get(axis) for axis in axes]
            for size, axis, mesh_axis in zip(shape, axes, mesh_axes, strict=True):
                if mesh_axis is not None and size % mesh.shape[mesh_axis]:
                    raise ShardingError(
                        f"{name}: dimension {axis!r} of size {size} is not a multiple of mesh axis "
                        f"{mesh_axis!r} of size {mesh.shape[mesh_axis]}"
                    )
            return PartitionSpec(*mesh_axes)
    raise ShardingError(f"{name}: no pattern of LOGICAL_AXES says how a parameter of this name is sharded")


def parameter_sharding(
    name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Mapping[str, str] = TRAIN_RULES
) -> NamedSharding:
    """`parameter_spec` as a sharding on its mesh; raises as it does."""
    return NamedSharding(mesh, parameter_spec(name, shape, mesh, rules))


def tree_shardings(tree: object, mesh: Mesh | AbstractMesh, rules: Mapping[str, str] = TRAIN_RULES) -> Any:
    """The shardings of a tree of parameters, or of an optimiser state that holds trees like it.

    A leaf is matched by the end of its path, so that Adam's moments are sharded as their parameters are. Single
    numbers, such as an optimiser's counts, are replicated. Raises ShardingError naming an array that no pattern
    matches or the mesh does not divide.
    """

    def sharding_of(path: tuple[object, ...], leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        if not leaf.shape:
            return NamedSharding(mesh, PartitionSpec())
        parts = _dotted(path).split(".")
        for start in range(len(parts)):
            name = ".".join(parts[start:])
            if any(re.fullmatch(p, name) and len(axes) == len(leaf.shape) for p, axes in LOGICAL_AXES):
                return parameter_sharding(name, leaf.shape, mesh, rules)
        raise ShardingError(
            f"{_dotted(path)} of shape {leaf.shape}: no pattern of LOGICAL_AXES says how it is sharded"
        )

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def _dotted(path: tuple[object, ...]) -> str:
    """A leaf's path as `LOGICAL_AXES` spells it."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    return ".".join(part for part in parts if part != "value")


def data_shards(mesh: Mesh | AbstractMesh) -> int:
    """Devices that rows are split over: those of `BATCH_AXES`."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """The sharding of `rows` rows over `data` and `fsdp`; raises ShardingError when these do not divide them."""
    shards = data_shards(mesh)
    if rows % shards:
        raise ShardingError(f"{rows} rows are not a multiple of the {shards} data shards of the mesh")
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def shard_rows(tree: T, mesh: Mesh) -> T:
    """Arrays, whose first axis is the batch's rows, on the devices of the mesh and sharded along that axis.

    On a mesh over several processes each gives its own part of the rows, as many as the others. Raises ShardingError
    when the mesh does not divide the rows.
    """
    processes = process_count(mesh)

    def shard(x: Any) -> jax.Array:
        sharding = batch_sharding(mesh, processes * x.shape[0])
        if processes == 1:
            return jax.device_put(x, sharding)
        shape = (processes * x.shape[0], *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, shape)

    return jax.tree.map(shard, tree)
