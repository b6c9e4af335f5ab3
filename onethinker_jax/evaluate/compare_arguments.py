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
