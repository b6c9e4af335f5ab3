"""A file of predictions -> its lines, checked, and matched with the problems of benchmarks.

A line is {"problem_id", "response"}, with "sample" where there are several answers to a problem, "masks" of a
segmentation, "failed" (why there is no response), "benchmark" where several benchmarks share the file, and any more.
All that is wrong with a file is one error: the first line that is wrong, and the numbers of the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows
from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.errors import UserError
from onethinker_jax.text_output import one_line

logger = logging.getLogger("onethinker_jax.evaluate")


class PredictionError(UserError, ValueError):
    """A file of predictions that cannot be scored. One line: the file, the line, the problem, what is wrong."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a file of predictions."""

    file: Path
    number: int
    problem_id: str
    response: str
    sample: int | None = None
    benchmark: str | None = None
    masks: Any = None
    """As it stands there; None: the line has none."""
    failed: str | None = None
    tokens: int | None = None

    def of(self, benchmark: str) -> Line:
        """The same, of this benchmark."""
        return replace(self, benchmark=benchmark)

    def error(self, what: str) -> PredictionError:
        """The error that `what` is wrong with the line."""
        return PredictionError(f"{self.file}: line {self.number}: problem_id {self.problem_id[:100]}: {what}")


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of a benchmark, and the lines of its answers in the order of their sample numbers."""

    sample: Sample
    lines: tuple[Line, ...] = ()

    @property
    def answered(self) -> tuple[Line, ...]:
        """The lines that have a response."""
        return tuple(line for line in self.lines if line.failed is None)


def read_lines(path: Path) -> list[Line]:
    """The lines of a JSON lines file, or of a JSON list.

    Raises PredictionError: a line is not JSON or lacks what it needs. RecordError: the file cannot be read.
    """
    lines, errors = list[Line](), list[tuple[int, PredictionError]]()
    for number, row in JsonRows(path):
        try:
            lines.append(_line(path, number, row))
        except PredictionError as error:
            errors.append((number, error))
    _raise_first(errors)
    if not lines:
        raise PredictionError(f"{path}: holds no prediction")
    return lines


def matched(lines: Sequence[Line], benchmarks: Mapping[str, Sequence[Sample]]) -> dict[str, list[Problem]]:
    """The problems of each benchmark with their lines, in the order of the benchmark.

    Lines that name a benchmark which is not scored are left out, and said.

    Raises PredictionError: a line is of no problem, of one problem in several benchmarks, or there twice.
    """
    places: dict[str, dict[str, int]] = {
        name: {str(sample.record.problem_id): index for index, sample in enumerate(samples)}
        for name, samples in benchmarks.items()
    }
    found: dict[str, dict[int, list[Line]]] = {name: {} for name in benchmarks}
    errors, others = list[tuple[int, PredictionError]](), Counter[str]()
    for line in lines:
        try:
            name = _benchmark_of(line, places)
            if name is None:
                others[str(line.benchmark)] += 1
                continue
            found[name].setdefault(places[name][line.problem_id], []).append(line)
        except PredictionError as error:
            errors.append((line.number, error))
    for of_problem in found.values():
        errors += _doubled(of_problem)
    _raise_first(sorted(errors, key=lambda one: one[0]))
    for name, count in others.items():
        logger.warning("%s: %s lines are of %s, which is not scored", lines[0].file, f"{count:,}", name)
    return {
        name: [Problem(sample, _in_order(found[name].get(i, []))) for i, sample in enumerate(samples)]
        for name, samples in benchmarks.items()
    }


def _raise_first(errors: Sequence[tuple[int, PredictionError]]) -> None:
    if not errors:
        return
    (_, first), *more = errors
    if more:
        numbers = ", ".join(str(number) for number, _ in more[:10])
        further = " …" if len(more) > 10 else ""
        raise PredictionError(f"{first}; {len(more):,} more lines are wrong: {numbers}{further}")
    raise first


def _line(path: Path, number: int, row: Any) -> Line:
    def error(what: str) -> PredictionError:
        return PredictionError(f"{path}: line {number}: {what}")

    if isinstance(row, BrokenRow):
        raise error(row.reason)
    if not isinstance(row, dict):
        raise error(f"must be an object, is a {type(row).__name__}")
    identity = row.get("problem_id")
    if identity is None or identity == "":
        raise error("problem_id is missing")
    if isinstance(identity, bool) or not isinstance(identity, (int, str)):
        raise error(f"problem_id must be a text or a whole number, is {identity!r:.60}")
    where = f"problem_id {str(identity)[:100]}: "
    failed, response = row.get("failed"), row.get("response")
    if isinstance(failed, bool):  # says that, not why
        failed = "no reason is given" if failed else None
    if failed is not None and not isinstance(failed, str):
        raise error(f"{where}failed must be a text, is {failed!r:.60}")
    if failed is not None and response is None:
        response = ""
    if response is None:
        raise error(f"{where}response is missing")
    if not isinstance(response, str):
        raise error(f"{where}response must be a text, is a {type(response).__name__}")
    sample, benchmark, tokens = row.get("sample"), row.get("benchmark"), row.get("tokens")
    for name, value in (("sample", sample), ("tokens", tokens)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise error(f"{where}{name} must be a whole number from 0 on, is {value!r:.60}")
    if benchmark is not None and not isinstance(benchmark, str):
        raise error(f"{where}benchmark must be a name, is {benchmark!r:.60}")
    return Line(path, number, str(identity), response, sample, benchmark, row.get("masks"), failed, tokens)


def _benchmark_of(line: Line, places: Mapping[str, Mapping[str, int]]) -> str | None:
    """The benchmark that a line is of; None for one that is not among them."""
    if line.benchmark is not None:
        short = {name.removeprefix("eval_"): name for name in places}
        name = line.benchmark if line.benchmark in places else short.get(line.benchmark)
        if name is not None and line.problem_id not in places[name]:
            raise line.error(f"{name} has no such problem")
        return name
    having = [name for name, problems in places.items() if line.problem_id in problems]
    if not having:
        raise line.error(f"no such problem in {' or '.join(places)}")
    if len(having) > 1:
        raise line.error(f"is in {' and '.join(having)}: the line must name its benchmark")
    return having[0]


def _doubled(of_problem: Mapping[int, Sequence[Line]]) -> list[tuple[int, PredictionError]]:
    """The lines that are there twice: of one sample number, or without numbers more than most problems have."""
    errors = []
    for lines in of_problem.values():
        first: dict[int, Line] = {}
        for line in lines:
            if line.sample is None:
                continue
            other = first.setdefault(line.sample, line)
            if other is not line:
                what = f"sample {line.sample} is there already, in line {other.number}"
                errors.append((line.number, line.error(what)))
    counts = Counter(len(lines) for lines in of_problem.values())
    usual = max(counts, key=lambda count: (counts[count], count), default=0)
    for lines in of_problem.values():
        if len(lines) > usual and any(line.sample is None for line in lines):
            extra = lines[usual]
            numbers = ", ".join(str(line.number) for line in lines)
            what = (
                f"has {len(lines)} lines ({numbers}), most problems {usual}: "
                "where answers differ in number, each line needs its sample number"
            )
            errors.append((extra.number, extra.error(what)))
    return errors


def _in_order(lines: Sequence[Line]) -> tuple[Line, ...]:
    """By sample number, those without one in the order of the file."""
    return tuple(sorted(lines, key=lambda line: -1 if line.sample is None else line.sample))
