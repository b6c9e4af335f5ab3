"""The flags of comparing two evaluations. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Compares two evaluations of the same benchmarks, problem by problem."""

    a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A")]]
    """Folder of results that an evaluation or evaluate.score wrote."""
    b: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="B")]]
    """Another; differences are B - A."""
    out: Path | None = None
    """File for the comparison; by default compare.json in B."""
    seed: int = 0
    """Of the resamples that intervals are taken from."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must be at least 0")


def check_results_folder(folder: Path | None) -> None:
    """Raises ValueError: there are no results in the folder that a command line wants to compare with."""
    if folder is not None and not (folder / "results.json").is_file():
        raise ValueError(f"compare {folder}: has no results.json; an evaluation or evaluate.score writes it")
