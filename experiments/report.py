"""Remakes every table and picture of docs/results.md from the raw results in experiments/results.

    python -m experiments.report                                   after a change of results or of the document
    python -m experiments.report --add trials=OUT/results.jsonl    takes lines in first, with what is shown of them

In the document a made part stands between two comments, of which the first names it and its results, as in

    <!-- made: differences trials -->
    …
    <!-- end -->

for `differences` of experiments/results/trials.jsonl. A part whose file does not stand yet says so.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.analysis import Results
from experiments.plots import GRADIENT_PICTURES, PICTURES
from experiments.result_lines import read_lines
from experiments.tables import GRADIENT_TABLES, TABLES
from experiments.words import say
from onethinker_jax import command_line
from onethinker_jax.command_line import UsageError
from onethinker_jax.errors import UserError
from onethinker_jax.files import write_whole
from onethinker_jax.spelling import hint
from onethinker_jax.text_output import json_text

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "results.md"
PICTURE_FOLDER = "results"
"""Beside the document."""
RESULTS = ROOT / "experiments" / "results"
PART = re.compile(r"(<!-- made: (\w+) ([\w.-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SHOWN_CURVES = ("reward", "entropy", "grad_norm", "prompts_drawn")
"""With σ the curves that are kept of a mixed run; those of other mixtures are not."""


class ReportError(UserError, ValueError):
    """A part of the document that cannot be made. One line naming it."""


@dataclass(frozen=True)
class Arguments:
    """Remakes the tables and pictures of docs/results.md from experiments/results."""

    add: tuple[str, ...] = ()
    """NAME=FILE: first takes the lines of this file into experiments/results/NAME.jsonl."""


@dataclass(frozen=True)
class Report:
    """The document's text, and its pictures by file name."""

    text: str
    pictures: Mapping[str, str]


def make_report(text: str, results: Path) -> Report:
    """The document with every made part anew; `results` is the folder of JSON lines.

    Raises ReportError naming an unknown part, or ResultsError naming a file.
    """
    pictures: dict[str, str] = {}

    def part(found: re.Match[str]) -> str:
        begin, kind, name, _, end = found.groups()
        return f"{begin}{_made(kind, name, results / f'{name}.jsonl', pictures)}\n{end}"

    return Report(PART.sub(part, text), pictures)


def _made(kind: str, name: str, file: Path, pictures: dict[str, str]) -> str:
    """The Markdown of a part; what it shows is put into `pictures`."""
    known = [*TABLES, *GRADIENT_TABLES, *PICTURES, *GRADIENT_PICTURES]
    if kind not in known:
        raise ReportError(
            f"results.md: unknown part {kind!r}; there are: {', '.join(known)}{hint(kind, known)}"
        )
    lines = read_lines(file)
    if not lines:
        return f"_No results in {file.name} yet._"
    if kind in TABLES:
        return TABLES[kind](Results(lines, file.name))
    if kind in GRADIENT_TABLES:
        return GRADIENT_TABLES[kind](lines)
    shown = f"{name}_{kind}.svg"
    if kind in PICTURES:
        draw, words = PICTURES[kind]
        pictures[shown] = draw(Results(lines, file.name))
    else:
        draw_gradients, words = GRADIENT_PICTURES[kind]
        pictures[shown] = draw_gradients(lines)
    return f"![{words}]({PICTURE_FOLDER}/{shown})"


def compact(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows of a line."""
    if "curves" not in line:
        return dict(line)
    curves = {
        name: values
        for name, values in line["curves"].items()
        if line["mixture"] == "mixed" and (name in SHOWN_CURVES or name.startswith("sigma/"))
    }
    return {**line, "curves": {name: [_short(value) for value in values] for name, values in curves.items()}}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def take_in(name: str, file: Path, results: Path) -> int:
    """Adds a file's lines, compact, to the results of that name, in the place of those of the same run; their number.

    Raises FileNotFoundError or ResultsError.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    lines = read_lines(file)
    merged = {
        _identity(line): line for line in [*read_lines(results / f"{name}.jsonl"), *map(compact, lines)]
    }
    results.mkdir(parents=True, exist_ok=True)
    write_whole(results / f"{name}.jsonl", "".join(f"{json_text(line)}\n" for line in merged.values()))
    return len(lines)


def _identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return (line["run"],) if "run" in line else (line["model"], line["arm"], line["seed"])


def run(arguments: Arguments) -> None:
    """Takes lines in, and writes the document and its pictures; pictures that it no longer shows go."""
    for words in arguments.add:
        name, equals, file = words.partition("=")
        if not (name and equals and file):
            raise UsageError(f"--add {words}: name the results and the file, NAME=FILE")
        say(f"{take_in(name, Path(file), RESULTS)} lines of {file} into {name}.jsonl")
    report = make_report(DOCUMENT.read_text(encoding="utf-8"), RESULTS)
    folder = DOCUMENT.parent / PICTURE_FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in report.pictures:
            old.unlink()
    for name, text in report.pictures.items():
        write_whole(folder / name, text)
    write_whole(DOCUMENT, report.text)
    say(f"{DOCUMENT.relative_to(ROOT)}: made anew, {len(report.pictures)} pictures")


main = partial(command_line.main, Arguments, run, prog="python -m experiments.report")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
