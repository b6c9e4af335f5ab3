"""The folder of a scoring, read again: results.json and the answers of scored.jsonl, for comparing and for the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.benchmarks.types import Rule
from onethinker_jax.evaluate.metrics.shares import Share, mean_share
from onethinker_jax.text_output import one_line

Row = Mapping[str, Any]
"""A line of scored.jsonl."""

_FIELDS = {"task": str, "question": str, "response": str, "answer": str, "values": dict, "groups": dict}
_LISTS = ("options", "media")


class ResultsError(UserError, ValueError):
    """A folder of results that cannot be read, or compared. One line."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


@dataclass(frozen=True, eq=False)
class KeptProblem:
    """A problem with its lines of scored.jsonl."""

    rows: tuple[Row, ...]
    """At least one; masks are left out."""

    @property
    def answers(self) -> list[Row]:
        """The lines that are no failure."""
        return [row for row in self.rows if row["failed"] is None]

    @property
    def groups(self) -> dict[str, str]:
        """What results are also given by."""
        return self.rows[0]["groups"]

    @property
    def rotation_of(self) -> Any:
        """The question that it is a rotation of; itself where it is none."""
        return self.rows[0].get("rotation_of", self.rows[0]["problem_id"])

    @property
    def video(self) -> str:
        """The first medium: videos stand before images."""
        return next(iter(self.rows[0]["media"]), "")

    def shares(self, metric: str, form: str) -> list[Share]:
        """What each answer adds to a form of a metric, those left out of the form aside."""
        found = []
        for row in self.answers:
            pooled = row.get("shares", {}).get(metric)
            value = row["values"].get(metric, {}).get(form) if pooled is None else pooled.get(form)
            if value is not None:
                found.append((float(value), 1.0) if pooled is None else tuple(value))
        return found

    def share(self, metric: str, form: str) -> Share | None:
        """The mean of the answers' shares; None where no answer has one."""
        return mean_share(self.shares(metric, form), len(self.answers))


@dataclass(frozen=True, eq=False)
class KeptBenchmark:
    """A benchmark's part of results.json, with its problems by id, in the order of the benchmark."""

    name: str
    facts: Mapping[str, Any]
    problems: dict[str, KeptProblem] = field(default_factory=dict)

    @property
    def rule(self) -> Rule:
        """How the standard form is aggregated."""
        return self.facts["rule"]

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Metric -> its two forms, interval and counts."""
        return self.facts["metrics"]

    @property
    def md5s(self) -> list[str]:
        """Of its files; "" of a folder."""
        return [file["md5"] for file in self.facts["files"]]


@dataclass(frozen=True, eq=False)
class KeptResults:
    """All that a folder of results says."""

    folder: Path
    benchmarks: dict[str, KeptBenchmark]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]


def read_results(folder: Path) -> KeptResults:
    """Reads a folder that an evaluation or a scoring wrote, whole.

    Raises ResultsError: a file is not there or malformed, or a line of a benchmark that results.json does not name.
    RecordError: scored.jsonl cannot be read.
    """
    path = folder / "results.json"
    try:
        whole = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ResultsError(
            f"{folder}: has no results.json; an evaluation or evaluate.score writes it"
        ) from None
    except ValueError as error:
        raise ResultsError(f"{path}: is not JSON ({error})") from None
    found = whole.get("benchmarks") if isinstance(whole, dict) else None
    if not isinstance(found, dict):
        raise ResultsError(f"{path}: benchmarks is missing")
    for name, facts in found.items():
        for key in ("title", "rule", "files", "metrics", "groups", "published", "published_form", "left_out"):
            if key not in facts:
                raise ResultsError(
                    f"{path}: {name}: {key} is missing: another version of onethinker_jax wrote it"
                )
    benchmarks = {name: KeptBenchmark(name, facts) for name, facts in found.items()}
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in scored_rows(folder, benchmarks):
        kept = {key: value for key, value in row.items() if key != "masks"}
        rows.setdefault((row["benchmark"], str(row["problem_id"])), []).append(kept)
    for (name, identity), of_problem in rows.items():
        benchmarks[name].problems[identity] = KeptProblem(tuple(of_problem))
    return KeptResults(folder, benchmarks, whole.get("settings", {}), whole.get("versions", {}))


def scored_rows(folder: Path, benchmarks: Iterable[str]) -> Iterable[Row]:
    """The lines of scored.jsonl, checked. Raises ResultsError, RecordError as `read_results`."""
    path, known = folder / "scored.jsonl", set(benchmarks)
    if not known:
        return
    for number, row in JsonRows(path):
        if error := _row_error(row, known):
            raise ResultsError(f"{path}: line {number}: {error}")
        yield row


def kept_masks(
    folder: Path, benchmarks: Sequence[str], wanted: set[tuple[str, str, int | None]]
) -> dict[Any, Any]:
    """The masks of answers named by benchmark, problem and sample number, where they have any."""
    found = {}
    for row in scored_rows(folder, benchmarks):
        key = key_of(row)
        if key in wanted and "masks" in row:
            found[key] = row["masks"]
    return found


def key_of(row: Row) -> tuple[str, str, int | None]:
    """What names an answer in its folder."""
    return row["benchmark"], str(row["problem_id"]), row.get("sample")


def _row_error(row: Any, benchmarks: set[str]) -> str:
    """What is wrong with a line; "" where nothing is."""
    if isinstance(row, BrokenRow):
        return row.reason
    if not isinstance(row, dict) or "problem_id" not in row or "failed" not in row:
        return "must be an object with problem_id and failed"
    if row.get("benchmark") not in benchmarks:
        return f"benchmark {row.get('benchmark')!r:.60} is not in results.json"
    for name, kind in {**_FIELDS, **dict.fromkeys(_LISTS, list)}.items():
        if not isinstance(row.get(name), kind):
            return f"problem_id {row['problem_id']!s:.100}: {name} is missing or malformed"
    return ""
