"""The checkpoints of a run: which there are and why, whether they are good, and the end of those not kept.

python -m onethinker_jax.train.checkpoints RUN [--verify] [--keep.last 2 --keep.every 100 --keep.best 1]
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.train.checkpoints.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.train.checkpoints")

import sys
from collections.abc import Iterator, Sequence
from functools import partial

from onethinker_jax.train.checkpoints.checkpoints import DAMAGED, CheckpointError, Checkpoints
from onethinker_jax.train.checkpoints.checksums import damage, has_checksums, size_of
from onethinker_jax.train.checkpoints.keeping import HELDOUT, reasons
from onethinker_jax.train.checkpoints.standing import checkpoints_of
from onethinker_jax.train.config.checkpoints import KeepSettings


def run(arguments: Arguments) -> int:
    """Prints the table, and what is deleted; 1 where a checkpoint is damaged."""
    checkpoints, settings = checkpoints_of(arguments.run)
    numbers = checkpoints.numbers()
    others = [
        entry.name
        for entry in sorted(checkpoints.directory.iterdir())
        if entry.is_dir() and not (entry.name.isdecimal() and int(entry.name) in numbers)
    ]
    if not numbers and not others:
        raise CheckpointError(f"{checkpoints.directory}: holds no checkpoint yet")
    found = {number: _state(checkpoints, number) for number in numbers} if arguments.verify else {}
    header = ["number", "stage", "size", HELDOUT, "kept as", *(["verified"] if arguments.verify else [])]
    _print([header, *_rows(checkpoints, settings.keep, found)])
    for name in others:
        what = "damaged, set aside" if name.endswith(DAMAGED) else "not whole, or still being written"
        sys.stdout.write(f"{name}: {what}\n")
    if (keep := arguments.keep.settings) is not None:
        _prune(checkpoints, keep)
    checkpoints.close()
    return int(any(text.startswith("damaged") for text in found.values()))


def _rows(checkpoints: Checkpoints, keep: KeepSettings, verified: dict[int, str]) -> Iterator[list[str]]:
    described = checkpoints.described()
    why = reasons(keep, described)
    for one in described:
        number = one.step
        try:
            stage = checkpoints.host(number)["stage"]
        except CheckpointError:
            stage = "?"
        score = "" if one.metrics is None else f"{one.metrics[HELDOUT]:.4f}"
        size = _size(size_of(checkpoints.directory / str(number)))
        row = [str(number), stage, size, score, ", ".join(why[number]) or "nothing keeps it"]
        yield [*row, verified[number]] if verified else row


def _state(checkpoints: Checkpoints, number: int) -> str:
    """What the checksums say of a checkpoint."""
    where = checkpoints.directory / str(number)
    if not has_checksums(where):
        return "has no checksums"
    found = damage(where)
    return "good" if found is None else f"damaged: {found}"


def _prune(checkpoints: Checkpoints, keep: KeepSettings) -> None:
    """Deletes what `keep` does not name, and says so."""
    for number, why in reasons(keep, checkpoints.described()).items():
        if not why:
            size = _size(size_of(checkpoints.directory / str(number)))
            checkpoints.delete(number)
            sys.stdout.write(f"deleted {checkpoints.directory / str(number)} ({size})\n")


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.train.checkpoints")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
