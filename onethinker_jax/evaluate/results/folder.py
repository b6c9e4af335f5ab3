"""The folder of a scoring: metrics.json, results.json and scored.jsonl, each whole or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onethinker_jax.evaluate.results.provenance import versions
from onethinker_jax.evaluate.results.result import Result
from onethinker_jax.files import whole_file, write_whole
from onethinker_jax.text_output import json_text


def write(out: Path, results: Sequence[Result], settings: Mapping[str, Any]) -> None:
    """Writes the results of benchmarks; `settings` are what `provenance` gives. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    metrics = {result.benchmark.name: result.metrics() for result in results}
    whole = {
        "benchmarks": {result.benchmark.name: result.to_json() for result in results},
        "settings": dict(settings),
        "versions": versions(),
    }
    with whole_file(out / "scored.jsonl") as aside, aside.open("w", encoding="utf-8") as file:
        for result in results:
            for line in result.scored_lines():
                file.write(json_text(line) + "\n")
    write_whole(out / "results.json", json_text(whole, indent=2) + "\n")
    write_whole(out / "metrics.json", json_text(metrics, indent=2) + "\n")
