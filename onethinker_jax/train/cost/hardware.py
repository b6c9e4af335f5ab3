"""Chips that a plan knows, and the names of TPU slices in Google Cloud's and in libtpu's style.

Limits are a device's, as JAX counts them. Sources: the pages of
docs.cloud.google.com/tpu/docs named at each chip; for GPUs NVIDIA's data sheets. `hbm` of a TPU is what XLA's
compiler lets a program use, as it says itself when a program is too large: less than the advertised size. That of a
GPU is the advertised size. `gpu.py` beside this file has the names of GPU hosts.
"""

import math
import re
from dataclasses import dataclass

from onethinker_jax.errors import UserError

GIB = 2**30


class TopologyError(UserError, ValueError):
    """A topology that cannot be planned for; the message names it."""


@dataclass(frozen=True)
class Chip:
    """Limits of one device: bytes, bfloat16 FLOP/s, bytes/s.

    `link_bandwidth` of a TPU is what one device sends along one axis of the torus, both directions together: a
    collective over one mesh axis runs as a ring there, whatever the chip's other links could do beside it. That of a
    GPU is what it sends over NVLink, in one direction; `network` is what it sends to other hosts.
    """

    name: str
    hbm: float
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    link: str = "ICI"  # or NVLink
    network: float = 0.0  # 0: the links reach every device
    margin: float = 0.0  # share of `hbm` that a program must leave free
    dimensions: int = 2  # of the torus
    cores_counted: int = 1  # what a cloud name counts a chip: 2 where it counts TensorCores
    devices: int = 1  # of JAX a chip


CHIPS = {
    # /v5e: 197 TFLOP/s, 16 GB, 819 GB/s, 400 GB/s over 4 ports, both directions
    "v5e": Chip("v5e", 15.75 * GIB, 197e12, 819e9, 400e9 / 4),
    # /v5p: 459 TFLOP/s, 95 GB, 2,765 GB/s, 1,200 GB/s over 6 ports; cloud names count TensorCores, two a chip
    "v5p": Chip("v5p", 95.74 * GIB, 459e12, 2765e9, 1200e9 / 6, dimensions=3, cores_counted=2),
    # /v6e: 918 TFLOP/s, 32 GB, 1,600 GB/s, 800 GB/s over 4 ports
    "v6e": Chip("v6e", 31.25 * GIB, 918e12, 1600e9, 800e9 / 4),
    # /tpu7x: 2,307 TFLOP/s, 192 GiB, 7,380 GB/s, 1,200 GB/s over 6 ports; JAX sees two devices a chip
    "tpu7x": Chip("tpu7x", 94.75 * GIB, 2307e12 / 2, 7380e9 / 2, 1200e9 / 6, dimensions=3, devices=2),
}

MARGIN = 0.08  # of a GPU's memory stays free, for CUDA, NCCL and what the allocator cannot fill


def _gpu(name: str, hbm: float, flops: float, hbm_bandwidth: float, nvlink: float, network: float) -> Chip:
    return Chip(name, hbm, flops, hbm_bandwidth, nvlink, "NVLink", network, MARGIN)


# jax.Device.device_kind of a GPU -> its data sheet's memory, dense bfloat16 FLOP/s, memory bandwidth, and half of the
# NVLink bandwidth, which counts both directions; the network is that of NVIDIA's own hosts of eight, a card a GPU.
GPUS = {
    # H100 SXM: 989 TFLOP/s, 80 GB, 3.35 TB/s, NVLink 900 GB/s; DGX H100: eight ConnectX-7 of 400 Gb/s
    "NVIDIA H100 80GB HBM3": _gpu("H100 SXM", 80e9, 989e12, 3350e9, 900e9 / 2, 400e9 / 8),
    # H200 SXM: 989 TFLOP/s, 141 GB, 4.8 TB/s, NVLink 900 GB/s; DGX H200: eight ConnectX-7 of 400 Gb/s
    "NVIDIA H200": _gpu("H200 SXM", 141e9, 989e12, 4800e9, 900e9 / 2, 400e9 / 8),
    # A100 SXM 80GB: 312 TFLOP/s, 80 GB, 2,039 GB/s, NVLink 600 GB/s; DGX A100: eight ConnectX-6 of 200 Gb/s
    "NVIDIA A100-SXM4-80GB": _gpu("A100 SXM 80GB", 80e9, 312e12, 2039e9, 600e9 / 2, 200e9 / 8),
    # DGX B200, an eighth of: 72 PFLOP/s in sparse FP8 (a quarter of that in dense bfloat16), 1,440 GB, 64 TB/s,
    # NVLink 14.4 TB/s; eight ConnectX-7 of 400 Gb/s
    "NVIDIA B200": _gpu("B200", 180e9, 2250e12, 8000e9, 1800e9 / 2, 400e9 / 8),
}

# jax.Device.device_kind of a TPU, as jax/_src/pallas/mosaic/tpu_info.py knows them
TPUS = {
    "TPU v5 lite": CHIPS["v5e"],
    "TPU v5e": CHIPS["v5e"],
    "TPU v5": CHIPS["v5p"],
    "TPU v5p": CHIPS["v5p"],
    "TPU v6 lite": CHIPS["v6e"],
    "TPU v6e": CHIPS["v6e"],
    "TPU7x": CHIPS["tpu7x"],
}

# Slices by number of chips: v5e and v6e as listed on their pages, v5p as its page's most common shapes.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
    512: "8x8x8",
    1024: "8x8x16",
}


@dataclass(frozen=True)
class Topology:
    """A slice: its chip, its shape in libtpu's writing, and the number of devices."""

    chip: Chip
    shape: str
    devices: int

    @property
    def libtpu_name(self) -> str:
        """Chip and shape as libtpu takes them: `v6e:4x8`."""
        return f"{self.chip.name}:{self.shape}"


def chip_of(device_kind: str) -> Chip | None:
    """The limits of a `jax.Device.device_kind`, where they are known."""
    return TPUS.get(device_kind) or GPUS.get(device_kind)


def parse_topology(name: str) -> Topology:
    """`v5p-32` (16 chips: it counts TensorCores), `v6e-32` (32 chips) or `v6e:4x8`; raises TopologyError."""
    found = re.fullmatch(r"(\w+?)(?:-(\d+)|:(\d+(?:x\d+)+))", name)
    if found is None or found[1] not in CHIPS:
        raise TopologyError(
            f"unknown topology {name!r}; write v6e-32 or v6e:4x8, the chips being {', '.join(CHIPS)}"
        )
    chip = CHIPS[found[1]]
    if found[3]:
        sides = [int(side) for side in found[3].split("x")]
        if len(sides) != chip.dimensions or not all(sides):
            raise TopologyError(f"topology {name!r}: a {chip.name} slice has {chip.dimensions} sides")
        return Topology(chip, found[3], math.prod(sides) * chip.devices)
    shapes = _CUBES if chip.dimensions == 3 else _FLAT
    chips, odd = divmod(int(found[2]), chip.cores_counted)
    if odd or chips not in shapes or chip.devices > 1:  # how names count v7 chips is not documented alike
        known = ", ".join(f"{chip.name}-{count * chip.cores_counted}" for count in shapes)
        raise TopologyError(f"unknown topology {name!r}; there are: {known}")
    return Topology(chip, shapes[chips], chips * chip.devices)
