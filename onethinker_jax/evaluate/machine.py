"""The model on this process's devices: its mesh, what its answers depend on, and an answerer for each benchmark."""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.failures import Tries
from onethinker_jax.evaluate.answers.local_model import LocalModel
from onethinker_jax.evaluate.answers.sizes import fitted, lengths_of
from onethinker_jax.evaluate.arguments import GROUPS_OF_SLOTS, Arguments
from onethinker_jax.model.sharding import BATCH_AXES, ShardingError, make_mesh
from onethinker_jax.processes import Processes
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings

logger = logging.getLogger("onethinker_jax.evaluate")

WEIGHTS_SHARE = 0.6
"""Of a device's memory that weights may take; the rest is for the cache and what is computed."""
_READ_WHOLE = 2**20
_PIECES, _PIECE_BYTES = 16, 2**16


class Machine:
    """Makes answerers; the weights are loaded when the first question is asked."""

    def __init__(self, arguments: Arguments, processor: Processor, processes: Processes):
        self._arguments, self._processor, self.processes = arguments, processor, processes

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
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    @cached_property
    def together(self) -> int:
        """Questions of a group, see `Answerer`."""
        return self._arguments.together or GROUPS_OF_SLOTS * self._arguments.slots(self.shards)

    @cached_property
    def tries(self) -> Tries:
        """What the flags say of samples that fail."""
        return Tries(self._arguments.tries - 1, end=self._arguments.on_bad_record == "raise")

    def sampler_settings(self) -> SamplerSettings:
        """Those of the flags, before they are fitted to records. Raises UsageError."""
        arguments = self._arguments
        settings = arguments.sampler(
            prompt_slots=arguments.slots(self.shards),
            prompt_tokens=arguments.prompt_tokens,
            prompt_patches=arguments.prompt_patches,
            prompt_buckets=arguments.prompt_buckets,
        )
        return replace(settings, group_size=arguments.samples)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on, by the names of the flags."""
        arguments = self._arguments
        sampling = asdict(self.sampler_settings())
        sampling["samples"] = sampling.pop("group_size")
        media = ("image_max_pixels", "video_fps", "video_max_frames", "video_min_pixels", "video_max_pixels")
        own = ("limit", "prompts_ahead", "seed", "dtype", *media, "video_total_pixels")
        named = {
            **sampling,
            **{name: getattr(arguments, name) for name in own},
            "together": self.together,
            **{f"mesh.{axis}": size for axis, size in self.mesh.shape.items()},
            "hosts.count": self.processes.count,
            "prompt_file": _digest(self._processor.prompts.to_json()),
            "processor": self._processor.fingerprint,
            "MODEL": directory_digest(arguments.model),
        }
        return {name.replace("_", "-"): value for name, value in named.items()}

    @cached_property
    def weights(self) -> tuple[nnx.GraphDef, nnx.State]:
        """The model's graph, and its weights on the mesh. Raises ConfigError, WeightsError."""
        logger.info("loading %s …", self._arguments.model)
        return self._arguments.load(self.mesh)

    def answerer(self, all_records: Sequence[Record], folder: Path) -> LocalModel:
        """An answerer of this process's part of a benchmark, its sizes fitted to all records of the benchmark."""
        arguments, processes = self._arguments, self.processes
        measured = lengths_of(all_records, self._processor, folder)
        settings = fitted(self.sampler_settings(), measured, self.shards)
        graphdef, params = self.weights
        sampler = Sampler(
            graphdef,
            self._processor,
            settings,
            mesh=self.mesh,
            compute_dtype=arguments.dtype,
            first=processes.index,
            stride=processes.count,
            lazy=True,
        )
        return LocalModel(
            sampler,
            params,
            arguments.seed,
            self.together,
            arguments.prompts_ahead,
            self.tries,
            self.settings,
        )

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


def directory_digest(path: Path) -> str:
    """Of a model's directory, wherever it lies: names and sizes of its files, and content, parts of large ones."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.iterdir()) if path.is_dir() else []:
        if file.suffix not in (".json", ".safetensors", ".txt", ".jinja") or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            if size <= _READ_WHOLE:
                digest.update(content.read())
                continue
            for piece in range(_PIECES):
                content.seek(piece * (size - _PIECE_BYTES) // (_PIECES - 1))
                digest.update(content.read(_PIECE_BYTES))
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.blake2b(str(value).encode(), digest_size=8).hexdigest()
