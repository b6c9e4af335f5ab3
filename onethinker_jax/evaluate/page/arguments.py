"""The flags of the page of an evaluation. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

EXAMPLES = 4
"""Of each kind, for each task of a benchmark."""
MEGABYTES = 48
"""That the pictures of a page take at most."""


@dataclass(frozen=True, kw_only=True)
class PageArguments:
    """Makes the page of one evaluation, or of two side by side: one HTML file that needs nothing else."""

    folders: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="OUT [OUT2]")]]
    """Folders of results that evaluations or evaluate.score wrote."""
    page: Path | None = None
    """The file; by default index.html in the last folder."""
    data: Path | None = None
    """Folder of the benchmarks' files, where they are no longer where they were read."""
    media_root: Path | None = None
    """Folder that media paths are relative to; by default the one that was used."""
    examples: int = EXAMPLES
    """Best, worst, random and failed answers of each benchmark and task, this many of each."""
    megabytes: int = MEGABYTES
    """Of pictures at most, shared evenly by the benchmarks; examples beyond are shown without theirs."""
    seed: int = 0
    """Of the random examples, and of the intervals between two evaluations."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.folders) <= 2:
            raise ValueError("OUT: name one folder of results, or two")
        for name in ("examples", "megabytes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 0")
