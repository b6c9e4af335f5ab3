"""Builds the Photos world: records of all problem types, composed of the pictures of a library.

    python -m onethinker_jax.data_pipeline.photos LIBRARY OUT --fetch

LIBRARY is a folder that `photos.packages` or `photos.own_folder` made; with `--fetch` it is made of packages first,
where it is not there yet.

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import logging
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from onethinker_jax.data_pipeline.photos.library import INDEX, Library
from onethinker_jax.data_pipeline.photos.packages import __main__ as packages
from onethinker_jax.data_pipeline.photos.world import PhotosWorld
from onethinker_jax.data_pipeline.worlds.building import build_world


@dataclass(frozen=True)
class Arguments:
    """Builds the Photos world of a library of real pictures."""

    library: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LIBRARY")]
    """Folder of the library."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder of the records and their media; a Photos world of other settings there is replaced."""
    train_sft: int = 8000
    """SFT records."""
    train_rl: int = 3000
    """RL records."""
    heldout: int = 640
    """Held-out records: half of new scenes of train items, half of items that no training scene has."""
    captions: int = 0
    """Further SFT records that only list what is pasted."""
    seed: int = 0
    """Of all scenes."""
    processes: int = 2
    """Worker processes; the result does not depend on them."""
    image_side: int = 448
    """Longer side of the largest pictures, pixels."""
    video_side: int = 320
    """Longer side of the largest videos, pixels."""
    crf: int = 23
    """H.264's constant rate factor: a lower one keeps more of the picture."""
    fetch: bool = False
    """Make the library of packages first, fetched with this machine's clients, where it is not there yet."""


def run(arguments: Arguments) -> int:
    """Fetches if asked to, builds, and says where the records are."""
    command_line.show_log(logging.StreamHandler(sys.stderr), level=logging.INFO)
    if arguments.fetch and not (arguments.library / INDEX).is_file():
        packages.run(packages.Arguments(arguments.library))
    world = PhotosWorld(
        arguments.seed,
        arguments.train_rl,
        arguments.train_sft,
        arguments.heldout,
        arguments.captions,
        library=Library.read(arguments.library),
        image_side=arguments.image_side,
        video_side=arguments.video_side,
        crf=arguments.crf,
    )
    paths = build_world(world, arguments.out, processes=arguments.processes, progress=_say_progress)
    sys.stdout.writelines(f"{file}\n" for file in paths.files.values())
    return 0


def _say_progress(done: int, scenes: int) -> None:
    if done == scenes or done % 500 == 0:
        sys.stderr.write(f"{done:,} of {scenes:,} scenes\n")


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.data_pipeline.photos")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
