"""What a checkpoint of adapters says they are of: their settings, and the base by the digest of its weights.

The base is in no checkpoint. One that does not stand any more as it did is an error that is named, never another model.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model.safetensors_files import weights_digest
from onethinker_jax.train.checkpoints.checkpoints import CheckpointError
from onethinker_jax.train.config.model import ModelSettings


@dataclass(frozen=True)
class AdapterRecord:
    """The adapters of a run and their base: its directory, what it is kept in, and SHA-256 of its weights."""

    lora: LoRASettings
    base: str
    dtype: str
    digest: str

    @classmethod
    def of_run(cls, settings: ModelSettings) -> "AdapterRecord | None":
        """The record of a run that begins; None where every weight is trained. Reads all of the base's files."""
        if not settings.lora.rank or settings.init_from is None:
            return None
        base = settings.init_from.absolute()
        return cls(settings.lora, str(base), settings.frozen_dtype, weights_digest(base))

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "AdapterRecord":
        """The record from what `to_json` gave."""
        lora = {**saved["lora"], "targets": tuple(saved["lora"]["targets"])}
        return cls(**{**saved, "lora": LoRASettings(**lora)})

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def check_base(self, where: os.PathLike[str]) -> None:
        """Raises CheckpointError where the base's weights are others now than those of the checkpoint `where`."""
        if (now := weights_digest(Path(self.base))) != self.digest:
            raise CheckpointError(_other_base(where, self, self.base, now))


def check_adapters(
    saved: Mapping[str, Any] | None, mine: AdapterRecord | None, where: os.PathLike[str]
) -> None:
    """Raises CheckpointError where the checkpoint `where` is not of this run's adapters and base."""
    if saved is None and mine is None:
        return
    if mine is None:
        raise CheckpointError(f"checkpoint {where} holds adapters, and this run trains every weight")
    if saved is None:
        raise CheckpointError(
            f"checkpoint {where} holds every weight, and this run trains adapters (model.lora.rank {mine.lora.rank})"
        )
    theirs = AdapterRecord.from_json(saved)
    for name, value in asdict(theirs.lora).items():
        if value != (wanted := getattr(mine.lora, name)):
            raise CheckpointError(
                f"checkpoint {where} holds adapters with model.lora.{name} {value!r}, not {wanted!r}"
            )
    if theirs.digest != mine.digest:
        raise CheckpointError(_other_base(where, theirs, mine.base, mine.digest))
    if theirs.dtype != mine.dtype:
        raise CheckpointError(
            f"checkpoint {where} holds adapters of a base in {theirs.dtype}, not in {mine.dtype}"
        )


def _other_base(where: os.PathLike[str], theirs: AdapterRecord, base: str, digest: str) -> str:
    return (
        f"checkpoint {where} holds adapters of the weights with SHA-256 {theirs.digest[:12]}, and {base} now holds "
        f"others ({digest[:12]}): put those back"
    )
