"""What the commands of the experiments have in common: their words, and what they say."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from onethinker_jax.train.config.run import TrainConfig

A = TypeVar("A")


@dataclass(frozen=True)
class Command(Generic[A]):
    """A command's own arguments, and the settings that the trainer's own command line asks for."""

    arguments: A
    base: TrainConfig


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and those after the first `--`, which are a command line of the trainer."""
    words = list(words)
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]


def name_of_model(directory: Path) -> str:
    """What results call a model: its run's name where it is a run's `model`, else the directory's; no path."""
    directory = directory.resolve()
    return directory.parent.name if directory.name == "model" else directory.name


def say(line: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
