"""The devices of this process, a model's weights on them, and what decodes media: once for all benchmarks."""

import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.evaluate.arguments import Arguments
from onethinker_jax.model.sharding import ShardingError, data_shards, make_mesh

logger = logging.getLogger("onethinker_jax.evaluate")

WEIGHTS_SHARE = 0.6
"""Of a device's memory that weights may take; the rest is for the cache and what is computed."""


class Machine:
    """The mesh and the readers of media that the flags ask for, and the weights: each made when it is first needed."""

    def __init__(self, arguments: Arguments):
        self._arguments = arguments

    @cached_property
    def mesh(self) -> Mesh:
        """Of this process's devices. Raises ShardingError: the flags ask for more."""
        flags, devices = self._arguments.mesh, jax.local_devices()
        tensor = flags.tensor or self._tensor(devices)
        data = flags.data or max(len(devices) // (flags.fsdp * tensor), 1)
        return make_mesh(data, flags.fsdp, tensor, devices=devices)

    @cached_property
    def shards(self) -> int:
        """Parts of the mesh that take prompts of their own."""
        return data_shards(self.mesh)

    @cached_property
    def weights(self) -> tuple[nnx.GraphDef, nnx.State]:
        """The model's graph, and its weights on the mesh. Raises ConfigError, WeightsError."""
        logger.info("loading %s …", self._arguments.model)
        return self._arguments.load(self.mesh)

    @cached_property
    def media(self) -> MediaReader:
        """Reads media in the processes that the flags ask for."""
        return self._arguments.media()

    def _tensor(self, devices: Sequence[Any]) -> int:
        """The fewest devices that hold a copy of the weights together."""
        stats = devices[0].memory_stats() or {}
        limit = stats.get("bytes_limit")
        if not limit:
            return 1
        sizes = [file.stat().st_size for file in self._arguments.model.glob("*.safetensors")]
        needed = sum(sizes) * (
            2 if self._arguments.dtype == "float32" else 1
        )  # files are of bfloat16 as a rule
        fewest = math.ceil(needed / (WEIGHTS_SHARE * limit))
        for tensor in range(max(fewest, 1), len(devices) + 1):
            if len(devices) % tensor == 0:
                return tensor
        raise ShardingError(
            f"{self._arguments.model}: {needed / 1e9:.1f} GB of weights do not fit in {len(devices)} devices of "
            f"{limit / 1e9:.1f} GB; name another --dtype, or --mesh.tensor to try"
        )
