"""The flags of an evaluation. Imports no JAX: `--help` is instant."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from onethinker_jax.evaluate.answers.endpoint_flags import EndpointFlags
from onethinker_jax.evaluate.benchmarks.types import Protocol
from onethinker_jax.evaluate.compare_arguments import check_results_folder
from onethinker_jax.evaluate.judges.settings import JudgeSettings
from onethinker_jax.host_settings import HostSettings
from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.sampler_settings import PROMPT_SLOTS, PROMPTS_AHEAD

OnBadRecord = Literal["raise", "fail", "skip"]
_URL = re.compile(r"(https?):/+(.+)")  # a path has one slash where an address has two
GROUPS_OF_SLOTS = 16
"""Records that are answered together, for each prompt slot, unless a flag says otherwise."""


@dataclass(frozen=True)
class MeshFlags:
    """How many of this process's devices lie along each axis of the mesh."""

    data: int | None = None
    """Groups of devices that each hold the weights and take a part of the prompts; by default as many as there are."""
    fsdp: int = 1
    """As `data`: decoding keeps the weights whole along it."""
    tensor: int | None = None
    """Devices that share out each layer's heads and columns; by default as few as the weights need."""

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "tensor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"mesh.{name} {value} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Arguments(ModelArguments):
    """Evaluates a model on benchmarks: answers, their rewards and the benchmarks' metrics.

    MODEL is a Hugging Face directory, or the URL of an OpenAI-compatible API (http://host:8000/v1).
    """

    benchmarks: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="BENCHMARK…")]]
    """Names of benchmarks, with --data, or files in OneThinker's format (JSON or JSON lines)."""
    data: Path | None = None
    """Folder that holds the files of the benchmarks that are given by name."""
    out: Path = Path("evaluation")
    """Folder for predictions.jsonl and results; of several benchmarks each has a folder in it."""
    restart: bool = False
    """Drop the answers that are in the folder, instead of going on with them."""
    retry_failed: bool = False
    """Ask again what failed, instead of keeping it as failed."""
    media_root: Path | None = None
    """Folder the media paths are relative to; by default the file's own."""
    limit: int | None = None
    """Only the first this many records of each benchmark."""
    samples: int = 1
    """Answers to each question."""
    prompt_slots: int | None = None
    """Prompts decoded at once; by default 8 for each part of the mesh that takes prompts of its own."""
    prompt_tokens: int = 16_384
    """Most tokens of a prompt, its media's included; a longer one fails."""
    prompt_patches: int = 65_536
    """Most patches of a prompt's images and frames together; a multiple of 4."""
    prompt_buckets: int = 3
    """Sizes that prompts are padded to: the longest that the records need, its half, its quarter …."""
    together: int | None = None
    """Records that are answered together, each group from an empty sampler: one that was not through is asked again
    when an evaluation goes on. By default 16 for each prompt slot."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    prompts_ahead: int = PROMPTS_AHEAD
    """Prompts that are read and kept beyond those being answered; one of a long video takes up to 75 MB."""
    on_bad_record: OnBadRecord = "fail"
    """A record whose media cannot be decoded, whose prompt is too long or whose answer cannot be scored: "fail" writes
    it down as failed, counts it apart, and goes on; "raise" ends the evaluation; "skip" is "fail" that also leaves out
    rows which are malformed or lack their media, and lists them in skipped.jsonl."""
    protocol: Protocol | None = None
    """How questions are put: "own" (greedy, the sizes of the model's directory, as in training), "onethinker"
    (instruction in the user's turn, greedy, 2 frames a second up to 128) or "vlmevalkit" (instruction in the system's
    turn, temperature 0.1 and top-p 0.001, 128 frames of every video), the latter two with 8,192 new tokens at most.
    By default that of the benchmark, of a file of one's own "own"; flags go before it."""
    endpoint: EndpointFlags = field(default_factory=EndpointFlags)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    tries: int = 2
    """How often a sample is tried before it has failed."""
    page: bool = True
    """Write index.html: tables beside the published numbers, charts, and examples with everything drawn."""
    compare: Path | None = None
    """Folder of other results, which these are compared with: compare.json, and a table."""
    mesh: MeshFlags = field(default_factory=MeshFlags)
    hosts: HostSettings = field(default_factory=HostSettings)

    def __post_init__(self) -> None:
        for name in ("limit", "prompts_ahead", "samples", "together", "tries", "prompt_slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} must be at least 1")
        if not self.benchmarks:
            raise ValueError("BENCHMARK: name one, or a file")
        check_results_folder(self.compare)

    @property
    def url(self) -> str | None:
        """The address where the model is one."""
        found = _URL.fullmatch(str(self.model))
        return None if found is None else f"{found[1]}://{found[2]}"

    def slots(self, shards: int) -> int:
        """Prompts decoded at once by a mesh that has this many parts with prompts of their own."""
        return PROMPT_SLOTS * shards if self.prompt_slots is None else self.prompt_slots
