"""Which devices a collective of compiled text joins, and what a device sends for it over links and between hosts.

XLA writes groups of devices in three ways: listed, as an array of all devices reshaped and transposed, and as axes of
a mesh. Bytes are those of ring algorithms.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def groups_of(text: str) -> list[list[int]]:
    """The groups (or pairs) of an instruction's attributes; empty where it names none, which means all devices."""
    pairs = re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}", text)
    if pairs:
        return [[int(one) for one in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", pairs[1])]
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _devices(iota[3]).reshape(int(iota[1]), int(iota[2])).tolist()
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\)?)\))? \{(.*?)\}", text):
        return _groups_over_axes(mesh[1], mesh[2], mesh[3])
    return []


def _groups_over_axes(sizes: str, order: str | None, over: str) -> list[list[int]]:
    """`'a'=4,'b'=2`, the order of the devices where it is not their own, `'a'` or a part of an axis `'a':(1)2`."""
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", sizes)}
    shape, joined = [], []
    wanted = {name: part for name, *part in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", over)}
    for name, size in axes.items():
        before, taken = wanted.get(name, ["", "1"])
        part = size if name in wanted and not before else int(taken)
        first = int(before or 1)
        joined.append(len(shape) + 1)
        shape += [first, part, size // first // part]
    devices = np.arange(math.prod(axes.values())) if order is None else _devices(order)
    devices = devices.reshape(shape)
    kept = [axis for axis in range(len(shape)) if axis not in joined]
    joined_size = math.prod(shape[axis] for axis in joined)
    return devices.transpose(kept + joined).reshape(-1, joined_size).tolist()


def _devices(order: str) -> np.ndarray:
    """All devices as `[4,2]T(1,0)` orders them: counted in that shape, then transposed."""
    shape = [int(side) for side in re.findall(r"\d+", order.split("T")[0])]
    devices = np.arange(math.prod(shape)).reshape(shape)
    if "T" in order:
        devices = devices.transpose([int(axis) for axis in re.findall(r"\d+", order.split("T")[1])])
    return devices.reshape(-1)


def bytes_sent(kind: str, size: float, group: int) -> float:
    """What a device of a group sends, where `size` is that of the larger of its argument and its result."""
    share = (group - 1) / group
    return {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share) * size


def bytes_between_hosts(
    kind: str, sent: float, groups: Sequence[Sequence[int]], hosts: Sequence[int]
) -> float:
    """What of `sent` a device sends through its own network card; `hosts` has the host of each device.

    The members of a group on one host share the ring's traffic with the next host among their cards, as NCCL does.
    """
    most = 0.0
    for group in groups:
        each = [hosts[device] for device in group]
        if len(set(each)) == 1:
            continue
        together = max(each.count(host) for host in set(each))
        share = 1 / together
        if kind == "all-to-all":
            share = (len(group) - together) / (len(group) - 1)
        most = max(most, 1.0 if kind == "collective-permute" else share)
    return most * sent
