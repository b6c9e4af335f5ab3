"""python -m onethinker_jax.train [PRESET] [--flags]: a whole run, from data to an exported checkpoint.

Exit status: 0 done, 1 an error that is named in one line, 2 an unknown preset or flag, 124 a step did not end
(health/watchdog.py), 130 stopped by Ctrl-C, 143 (or `--preemption.exit-status`) by SIGTERM (after these three the same
command goes on from there).
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TypeVar

from onethinker_jax.command_line import UsageError
from onethinker_jax.command_line import parse as parse_settings
from onethinker_jax.spelling import hint
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.run import TrainConfig

DEFAULT_PRESET = "shapes"

Settings = TypeVar("Settings", bound=TrainConfig)


@dataclass(frozen=True)
class TrainCommand(TrainConfig):
    """A whole run, or what it would be."""

    dry_run: bool = False
    """Check everything that can be before the first step, compile and train nothing, and say what would run: steps,
    records, tokens, parameters, memory."""

    def config(self) -> TrainConfig:
        """The run's own settings."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})


def parse(
    arguments: Sequence[str],
    settings: type[Settings] = TrainConfig,
    *,
    prog: str = "python -m onethinker_jax.train",
) -> Settings:
    """The settings a command line asks for: of a run, or those with more flags that another command has.

    Raises UsageError naming what is wrong with it.
    """
    arguments = list(arguments)
    name = DEFAULT_PRESET
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}{hint(name, PRESETS)}")
    preset = PRESETS[name]()
    return parse_settings(
        settings,
        arguments,
        prog=f"{prog} [PRESET]",
        description=f"{inspect.getdoc(PRESETS[name])}\n\nPRESET, {DEFAULT_PRESET} by default, stands first and is one "
        f"of {', '.join(PRESETS)}; the defaults below are those of {name}.",
        default=settings(**{field.name: getattr(preset, field.name) for field in fields(preset)}),
    )


def run_command(command: TrainCommand) -> None:
    """The whole run, or what can be said of it before its first step."""
    os.environ.setdefault("USE_TORCH", "0")  # the trainer's process never imports torch
    if command.dry_run:
        from onethinker_jax.train.dry_run import dry_run

        dry_run(command.config())
    else:
        from onethinker_jax.train.run import run

        run(command.config())


main = partial(
    command_line.main,
    partial(parse, settings=TrainCommand),
    run_command,
    stopped="the same command goes on from here",
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
