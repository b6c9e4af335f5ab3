"""A public data set as a training file in OneThinker's layout.

    python -m onethinker_jax.data_pipeline.sources refcoco "refcoco/refs(unc).p" --split train --out rl.json

Reads the data set in its publisher's layout from where it lies (nothing is downloaded), and writes rows that
`train` takes for RL. What is left out is counted by its reason; counts, settings and licence go to `OUT.about.json`.

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import dataclasses
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from onethinker_jax.data_pipeline.records.bad_records import BadRecords, OnBadRecord
from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.data_pipeline.sources.training_set.licences import licence_of
from onethinker_jax.data_pipeline.sources.training_set.making import Filters, Made, make
from onethinker_jax.data_pipeline.sources.training_set.near_duplicates import BITS
from onethinker_jax.data_pipeline.sources.training_set.pass_rates import read_pass_rates
from onethinker_jax.files import write_whole
from onethinker_jax.spelling import hint
from onethinker_jax.text_output import json_text

logger = logging.getLogger("onethinker_jax.data_pipeline.sources")  # also as __main__


@dataclass(frozen=True)
class SourceSettings:
    """Makes a training file in OneThinker's layout of a public data set."""

    layout: tyro.conf.Positional[str]
    """The data set's layout, as docs/sources.md lists them: "refcoco", "charades-sta", "onethinker" ..."""
    path: tyro.conf.Positional[Path]
    """Its file or folder."""
    out: Path = Path("rl.json")
    """The training file; pictures that are in no file of their own go to `OUT_media` beside it."""
    split: str = ""
    """The part to be read; by default all of it, or the only one."""
    media_root: Path | None = None
    """Folder the media paths are relative to, where it is not what the layout says."""
    absolute_paths: bool = False
    """Write media paths from the root; by default relative to the folder of `out`."""
    on_bad_record: OnBadRecord = "raise"
    """"raise" stops at the first malformed row; "skip" leaves it out and counts it."""
    cap: int | None = None
    """Records a source at most, drawn by the seed; by default all."""
    pass_rates: Path | None = None
    """scored.jsonl of an evaluation of a model on this data, best with several samples a problem: only problems
    that it solves neither never nor always are kept."""
    pass_rate_low: float = 0.01
    """The least share of samples that are right, with `pass_rates`."""
    pass_rate_high: float = 0.99
    """The largest."""
    hash_distance: int | None = None
    """Drop a record that asks the same as one before it, if their first pictures' hashes differ in no more than this
    number of their 64 bits: 0 finds copies, 4 resized ones too. By default none is dropped."""
    seed: int = 0
    """Which records stay under the cap."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            known = hint(self.layout, LAYOUTS) or f" (known: {', '.join(LAYOUTS)})"
            raise ValueError(f"layout {self.layout!r} is not known{known}")
        if not 0 <= self.pass_rate_low <= self.pass_rate_high <= 1:
            low, high = self.pass_rate_low, self.pass_rate_high
            raise ValueError(
                f"pass_rate_low {low:g} and pass_rate_high {high:g} must be 0 <= low <= high <= 1"
            )
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"cap {self.cap} must be at least 1")
        if self.hash_distance is not None and not 0 <= self.hash_distance < BITS // 2:
            raise ValueError(f"hash_distance {self.hash_distance} must be from 0 to {BITS // 2 - 1}")

    def filters(self) -> Filters:
        """Raises RecordError: the file of pass rates cannot be read."""
        return Filters(
            rates=None if self.pass_rates is None else read_pass_rates(self.pass_rates),
            low=self.pass_rate_low,
            high=self.pass_rate_high,
            distance=self.hash_distance,
            cap=self.cap,
            seed=self.seed,
        )


def run(settings: SourceSettings) -> None:
    """Reads, filters, writes, and says what became of the data set."""
    command_line.show_log(logging.StreamHandler(sys.stderr), level=logging.INFO)
    logger.info("reading %s", settings.path)
    bad = BadRecords(settings.on_bad_record)
    samples = LAYOUTS[settings.layout](
        Source(settings.path, split=settings.split, media_root=settings.media_root, bad=bad)
    )
    made = make(samples, settings.out, settings.filters(), bad, absolute=settings.absolute_paths)
    about = settings.out.with_suffix(".about.json")
    write_whole(about, json_text(_about(settings, made), indent=2) + "\n")
    sys.stdout.writelines(f"{line}\n" for line in _said(settings, made, about))


def _about(settings: SourceSettings, made: Made) -> dict[str, Any]:
    return {
        "settings": {name: _plain(value) for name, value in dataclasses.asdict(settings).items()},
        "licence": licence_of(settings.layout),
        "records": made.tasks.total(),
        "tasks": dict(made.tasks.most_common()),
        "sources": dict(made.sources.most_common()),
        "left_out": dict(made.dropped.most_common()),
    }


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _said(settings: SourceSettings, made: Made, about: Path) -> Iterator[str]:
    yield f"{settings.out}: {made.tasks.total():,} records"
    yield from _counts(made.tasks)
    yield f"left out: {made.dropped.total():,}"
    yield from _counts(made.dropped)
    yield f"licence of the data: {licence_of(settings.layout)}"
    yield f"counts and settings: {about}"


def _counts(counts: Counter[str]) -> Iterator[str]:
    yield from (f"  {count:>9,}  {name}" for name, count in counts.most_common())


main = partial(command_line.main, SourceSettings, run, prog="python -m onethinker_jax.data_pipeline.sources")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
