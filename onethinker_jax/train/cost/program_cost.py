"""What a compiled program costs: FLOPs from its jaxpr, bytes and collectives from its HLO, loops counted in full.

XLA's own `cost_analysis` counts the body of a loop once, so a scanned model looks as cheap as one layer. Here
FLOPs are those of matrix products (2 m n k) and of the attention kernels, walked through scans, shards and
recomputation; bytes and collectives are read from the compiled text, each instruction times the trip counts of
the loops around it: those that XLA wrote at the loop, or the constant that a loop's counter is compared with.
A fusion that reads or writes a slice of an array is charged for the slice.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
from jax.extend import core

from onethinker_jax.model.attention.flash_blocks import ONE_LAYER, PRODUCTS
from onethinker_jax.train.cost.collectives import KINDS, bytes_between_hosts, bytes_sent, groups_of

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "s4": 1, "u4": 1, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "iota",
}
_SLICES = ("dynamic-slice", "gather", "slice")
_FREE |= {"after-all", "opt-barrier", "partition-id", "replica-id"}


def count_flops(jaxpr: core.Jaxpr, *, trips: int = 1, skip_conditional: bool = False) -> Counter[str]:
    """FLOPs of all devices together by kind: `matmul`, and each attention kernel by its name.

    `trips` is how often a `while` of unknown length is taken to run. Of a `cond` the costliest branch counts,
    or with `skip_conditional` the cheapest. A kernel whose results nothing uses does not count: JAX leaves it in what a
    layer makes anew, XLA takes it out.
    """
    inside = partial(count_flops, trips=trips, skip_conditional=skip_conditional)
    used = {
        id(one) for users in (*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars) for one in users
    }
    total: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total["matmul"] += _dot_flops(equation)
        elif name.startswith("ragged_dot"):
            rows: Any = equation.invars[0].aval
            kernel: Any = equation.invars[1].aval
            total["matmul"] += 2 * math.prod(rows.shape[-2:]) * kernel.shape[-1]
        elif name == "pallas_call" and used.isdisjoint(map(id, equation.outvars)):
            continue
        elif name == "pallas_call":
            estimate = params["cost_estimate"]
            total[str(params["name"])] += 0 if estimate is None else int(estimate.flops)
        elif name == "cond":
            branches = [inside(branch.jaxpr) for branch in params["branches"]]
            total += (min if skip_conditional else max)(branches, key=lambda counts: sum(counts.values()))
        else:
            times = {"scan": params.get("length", 1), "while": trips}.get(name, 1)
            if name == "shard_map":
                times = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
            for inner in _inner(params):
                for kind, count in inside(inner).items():
                    total[kind] += times * count
    return total


def of_pairs(flops: Counter[str], shares: Mapping[str, float], *, others: float = 1.0) -> Counter[str]:
    """Counts with each attention kernel at its share of the pairs that it was counted with, the others at `others`.

    A kernel's own estimate takes a row for one segment; see `attention_layout.py` for the shares.
    """
    return Counter({kind: int(count * shares.get(kind, others)) for kind, count in flops.items()})


def without_recomputation(flops: Mapping[str, int]) -> Counter[str]:
    """Attention's backward pass is four matrix products; a TPU's kernel does five, a GPU's two seven: scores anew.

    The kernel of experts multiplies a token with all of them and counts with the token's own.
    """
    kept = Counter({kind: n for kind, n in flops.items() if "attention" not in kind or "forward" in kind})
    for kind in kept:
        if found := re.fullmatch(rf"experts_(\d+)_of_(\d+){ONE_LAYER}", kind):
            kept[kind] = kept[kind] * int(found[1]) // int(found[2])
    for part in ("gradients", "query_gradient"):
        total = sum(n for kind, n in flops.items() if kind.startswith(f"attention_{part}"))
        kept["attention_backward"] += total * 4 // PRODUCTS[part]
    return kept


def _dot_flops(equation: core.JaxprEqn) -> int:
    ((contracting, _), _) = equation.params["dimension_numbers"]
    left: Any = equation.invars[0].aval
    out: Any = equation.outvars[0].aval
    return 2 * math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracting)


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


@dataclass
class Traffic:
    """Of one device, over one run of a program: HBM bytes, and by collective the number and bytes on the wire.

    `network` are those of the latter that leave the device's host.
    """

    hbm: float = 0.0
    network: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    wire: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Instruction:
    name: str
    opcode: str
    shape: str
    operands: list[str]
    arguments: str  # as written between the parentheses
    rest: str


_Computations = dict[str, dict[str, _Instruction]]


@dataclass(frozen=True)
class _Count:
    """What a count goes by beside the text: the runs of loops of unknown length, and the host of each device."""

    computations: _Computations
    trips: int
    hosts: Sequence[int]
    traffic: Traffic = field(default_factory=Traffic)


def count_traffic(hlo: str, *, trips: int = 1, hosts: Sequence[int] = ()) -> Traffic:
    """Bytes moved and collectives of compiled HLO; `trips` for loops whose length the compiler does not know.

    `hosts` has the host of each device of the mesh, where a network joins several hosts.
    """
    computations, entry = _parse(hlo)
    count = _Count(computations, trips, hosts)
    _visit(count, entry, 1, fused=False)
    return count.traffic


def _parse(hlo: str) -> tuple[_Computations, str]:
    computations: _Computations = {}
    entry, current = "", {}
    for line in hlo.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$", line):
            body = found[3]
            if opcode := re.search(r" ([a-z][a-z0-9\-]*)\(", body):
                arguments, rest = _arguments(body, opcode.end())
                operands = re.findall(r"%([\w.\-]+)", arguments)
                shape = body[: opcode.start()]
                current[found[2]] = _Instruction(found[2], opcode[1], shape, operands, arguments, rest)
    return computations, entry


def _arguments(body: str, start: int) -> tuple[str, str]:
    """What is between the opcode's parentheses, and what follows."""
    depth, end = 1, start
    while depth and end < len(body):
        depth += {"(": 1, ")": -1}.get(body[end], 0)
        end += 1
    return body[start : end - 1], body[end:]


def _visit(count: _Count, name: str, times: float, *, fused: bool) -> None:
    computations, traffic = count.computations, count.traffic
    instructions = computations[name]
    for one in instructions.values():
        kind = one.opcode.removesuffix("-start")
        if kind in KINDS:
            _add_collective(count, one, kind, name, times)
        if not fused and one.opcode not in _FREE and not one.opcode.endswith("-done"):
            traffic.hbm += times * _moved(computations, instructions, one)
        if one.opcode == "while":
            (condition,) = re.findall(r"condition=%?([\w.\-]+)", one.rest)
            turns = times * _trip_count(one, computations[condition], count.trips)
            for body in (condition, *re.findall(r"body=%?([\w.\-]+)", one.rest)):
                _visit(count, body, turns, fused=fused)
        else:
            called = re.findall(
                r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", one.rest
            )
            called += re.findall(
                r"%([\w.\-]+)", "".join(re.findall(r"branch_computations=\{(.*?)\}", one.rest))
            )
            inside = fused or one.opcode not in ("call", "conditional", "async-start")
            for callee in called:
                _visit(count, callee, times, fused=inside)


def _trip_count(loop: _Instruction, condition: dict[str, _Instruction], unknown: int) -> int:
    """Of a loop that XLA has counted, or that counts from 0 to a constant, as scans do."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    last = list(condition.values())[-1]
    if last.opcode == "compare" and "direction=LT" in last.rest:
        limits = [condition[name] for name in last.operands if name in condition]
        for limit in limits:
            if limit.opcode == "constant":
                return int(limit.arguments)
    return unknown


def _add_collective(count: _Count, one: _Instruction, kind: str, inside: str, times: float) -> None:
    """Wire bytes a device sends, as rings do it."""
    instructions, traffic = count.computations[inside], count.traffic
    groups = groups_of(one.rest) or [list(range(max(len(count.hosts), 2)))]
    if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # the TPU compiler's way to write one
    given = sum(_size(instructions[name].shape) for name in one.operands if name in instructions)
    size = given * len(groups[0]) if kind == "all-gather" else given
    sent = bytes_sent(kind, size, len(groups[0]))
    traffic.calls[kind] += int(times)
    traffic.wire[kind] += int(times * sent)
    if len(set(count.hosts)) > 1:
        traffic.network += times * bytes_between_hosts(kind, sent, groups, count.hosts)


def _moved(computations: _Computations, instructions: dict[str, _Instruction], one: _Instruction) -> float:
    """HBM bytes that an instruction reads and writes."""
    operands = [instructions[name] for name in one.operands if name in instructions]
    if one.opcode in _SLICES:
        return 2 * _hbm(one.shape)
    if one.opcode == "dynamic-update-slice":
        return 2 * _hbm(operands[1].shape)
    if one.opcode.endswith("-start"):
        return sum(_hbm(operand.shape) for operand in operands)
    if one.opcode == "fusion":
        return _moved_by_fusion(computations, operands, one)
    if one.opcode == "custom-call" and f"{ONE_LAYER}/" in one.rest:
        stacks = sum(_hbm(operand.shape) / _leading(operand.shape) for operand in operands[4:])
        return _hbm(one.shape) + sum(_hbm(operand.shape) for operand in operands[:4]) + stacks
    return _hbm(one.shape) + sum(_hbm(operand.shape) for operand in operands)


def _moved_by_fusion(computations: _Computations, operands: list[_Instruction], one: _Instruction) -> float:
    """An operand that is only sliced counts as its slices, a result that is updated in place as the update."""
    body = _called(computations, one)
    total, result = 0.0, _hbm(one.shape)
    for number, operand in enumerate(operands):
        whole = _hbm(operand.shape)
        used = _used(computations, body, _parameter(body, number))
        if used is None:
            total += whole
            continue
        sliced, updated = used
        total += min(sliced, whole) + 2 * updated
        result -= whole if updated else 0.0
    return total + max(result, 0.0)


def _used(
    computations: _Computations, body: dict[str, _Instruction], name: str
) -> tuple[float, float] | None:
    """Bytes that a fusion reads of a value by slices, and that it updates of it in place; None: it reads it all."""
    sliced, updated, users = 0.0, 0.0, [one for one in body.values() if name in one.operands]
    for one in users:
        if one.opcode in _SLICES:
            sliced += _size(one.shape)
        elif one.opcode == "dynamic-update-slice" and one.operands[0] == name:
            updated += _size(body[one.operands[1]].shape)
        elif one.opcode in ("bitcast", "fusion"):
            values = [(body, one.name)]
            inner = _called(computations, one) if one.opcode == "fusion" else {}
            # Of a fusion within this one that is a copy, as of an int8 operand into other tiles, no more is read.
            if inner and [inside.opcode for inside in inner.values()] != ["parameter", "copy"]:
                values = [(inner, _parameter(inner, at)) for at, x in enumerate(one.operands) if x == name]
            for where, value in values:
                if (used := _used(computations, where, value)) is None:
                    return None
                sliced, updated = sliced + used[0], updated + used[1]
        else:
            return None
    return (sliced, updated) if users else None


def _called(computations: _Computations, fusion: _Instruction) -> dict[str, _Instruction]:
    (name,) = re.findall(r"calls=%?([\w.\-]+)", fusion.rest)
    return computations[name]


def _parameter(body: dict[str, _Instruction], number: int) -> str:
    """The name of a computation's parameter."""
    (name,) = (
        one.name for one in body.values() if one.opcode == "parameter" and int(one.arguments) == number
    )
    return name


def _parts(shape: str) -> list[str]:
    return re.findall(r"[a-z]\w*\[[\d,]*\](?:\{[^}]*\})?", shape)


def _size(shape: str) -> float:
    """Bytes of every array in a type."""
    total = 0.0
    for kind, sides in re.findall(r"([a-z]\w*)\[([\d,]*)\]", shape):
        total += _BYTES.get(kind, 4) * math.prod(int(side) for side in sides.split(",") if side)
    return total


def _leading(shape: str) -> int:
    """The length of an array's first axis."""
    (length,) = re.findall(r"^[a-z]\w*\[(\d+)", shape)
    return int(length)


def _hbm(shape: str) -> float:
    """Bytes of the arrays that lie in HBM; S(1) and above are the chip's own memories."""
    return sum(_size(part) for part in _parts(shape) if not re.search(r"S\([1-9]", part))


def device_bytes(tree: Any) -> float:
    """Of one device, by the leaves' shardings; all of a leaf that has none."""
    total = 0.0
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        size = 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
        total += float(math.prod(shape)) * size
    return total
