"""A benchmark's questions put to a model on this machine: how its answers are drawn, and what they depend on."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.failures import Tries
from onethinker_jax.evaluate.answers.local_model import LocalModel
from onethinker_jax.evaluate.answers.sizes import fitted, lengths_of
from onethinker_jax.evaluate.arguments import GROUPS_OF_SLOTS, Arguments
from onethinker_jax.evaluate.asking.machine import Machine
from onethinker_jax.processes import Processes
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings

logger = logging.getLogger("onethinker_jax.evaluate")

_READ_WHOLE = 2**20
_PARTS, _PART_BYTES = 16, 2**16


class LocalAsking:
    """Makes an `Answerer` of a benchmark, with the flags that count for it."""

    def __init__(self, machine: Machine, arguments: Arguments, processor: Processor, processes: Processes):
        self._machine, self._arguments = machine, arguments
        self._processor, self._processes = processor, processes
        self.media, self.prompts = processor.media, processor.prompts
        self.starts = "compiling"

    @cached_property
    def together(self) -> int:
        """Questions of a group, see `Answerer`."""
        return self._arguments.together or GROUPS_OF_SLOTS * self._arguments.slots(self._machine.shards)

    @cached_property
    def tries(self) -> Tries:
        """What the flags say of samples that fail."""
        return Tries(self._arguments.tries - 1, end=self._arguments.on_bad_record == "raise")

    def sampler_settings(self) -> SamplerSettings:
        """Those of the flags, before they are fitted to records. Raises UsageError."""
        arguments = self._arguments
        settings = arguments.sampler(
            prompt_slots=arguments.slots(self._machine.shards),
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
        own = ("limit", "prompts_ahead", "seed", "dtype", "video_total_pixels")
        named = {
            **asdict(arguments.answer_settings()),
            **sampling,
            **{name: getattr(arguments, name) for name in own},
            "together": self.together,
            **{f"mesh.{axis}": size for axis, size in self._machine.mesh.shape.items()},
            "hosts.count": self._processes.count,
            "prompt_file": _digest(self._processor.prompts.to_json()),
            "processor": self._processor.fingerprint,
            "MODEL": directory_digest(arguments.model),
        }
        return {name.replace("_", "-"): value for name, value in named.items()}

    def answerer(self, all_records: Sequence[Record], folder: Path) -> LocalModel:
        """An answerer of this process's part of a benchmark, its sizes fitted to all records of the benchmark."""
        arguments, processes = self._arguments, self._processes
        logger.info("measuring %s prompts …", f"{len(all_records):,}")
        measured = lengths_of(all_records, self._processor, folder)
        settings = fitted(self.sampler_settings(), measured, self._machine.shards)
        graphdef, params = self._machine.weights
        sampler = Sampler(
            graphdef,
            self._processor,
            settings,
            mesh=self._machine.mesh,
            compute_dtype=arguments.dtype,
            first=processes.index,
            stride=processes.count,
            lazy=True,
        )
        chosen_from = -(-arguments.prompts_ahead // 2)
        return LocalModel(
            sampler,
            params,
            seed=arguments.seed,
            together=self.together,
            prompts_ahead=chosen_from,
            read_ahead=arguments.prompts_ahead - chosen_from,
            tries=self.tries,
            settings=self.settings,
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
            for part in range(_PARTS):
                content.seek(part * (size - _PART_BYTES) // (_PARTS - 1))
                digest.update(content.read(_PART_BYTES))
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.blake2b(str(value).encode(), digest_size=8).hexdigest()
