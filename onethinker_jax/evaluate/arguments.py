"""The flags of an evaluation. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from onethinker_jax.data_pipeline.records.bad_records import OnBadRecord
from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.sampler_settings import PROMPT_SLOTS, PROMPTS_AHEAD


@dataclass(frozen=True, kw_only=True)
class Arguments(ModelArguments):
    """Evaluates a Hugging Face directory on a benchmark file in OneThinker's format."""

    file: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FILE")]]
    """Evaluation records (JSON or JSON lines)."""
    out: Path = Path("evaluation")
    """Folder for predictions.jsonl and metrics.json."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default the file's own."""
    limit: int | None = None
    """Only the first this many records."""
    prompt_slots: int = PROMPT_SLOTS
    """Prompts decoded at once."""
    prompt_tokens: int = 16_384
    """Most tokens of a prompt, its media's included."""
    prompt_patches: int = 65_536
    """Most patches of a prompt's images and frames together; a multiple of 4."""
    prompt_buckets: int = 3
    """Sizes that prompts are padded to: the longest, its half, its quarter …."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    prompts_ahead: int = PROMPTS_AHEAD
    """Prompts that are read and kept beyond those being answered; one of a long video takes up to 75 MB."""
    on_bad_record: OnBadRecord = "raise"
    """A record whose media cannot be decoded, whose prompt is too long or whose answer cannot be scored: "raise" ends
    the evaluation; "skip" leaves it out of the means and lists it in skipped.jsonl."""

    def __post_init__(self) -> None:
        for name in ("limit", "prompts_ahead"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} must be at least 1")
