"""The flags of scoring answers that are there. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from onethinker_jax.evaluate.compare_arguments import check_results_folder
from onethinker_jax.evaluate.judges.settings import JudgeSettings
from onethinker_jax.rewards.client.sidecar import SidecarSettings


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """Scores a file of answers to one or more benchmarks, without a model."""

    predictions: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PREDICTIONS.jsonl")]]
    """Lines {"problem_id", "response"}; several a problem are several samples; or the folder of an evaluation."""
    benchmarks: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="BENCHMARK…")]]
    """Names of benchmarks (with --data), or files: OneThinker's JSON, JSON lines, VLMEvalKit's TSV."""
    out: Path = Path("scores")
    """Folder for metrics.json, results.json and scored.jsonl."""
    data: Path | None = None
    """Folder of the benchmarks' files."""
    media_root: Path | None = None
    """Folder that media paths are relative to; media are only needed where masks have to be made."""
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)
    seed: int = 0
    """Of the resamples that intervals are taken from."""
    page: bool = True
    """Write index.html: tables beside the published numbers, charts, and examples with everything drawn."""
    compare: Path | None = None
    """Folder of other results, which these are compared with: compare.json, and a table."""

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise ValueError("benchmarks: name at least one benchmark or file")
        check_results_folder(self.compare)
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must be at least 0")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out {self.out} is a file, and must be a folder")
