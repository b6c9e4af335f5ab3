"""How often a model solves each problem, out of a file of its scored answers: `scored.jsonl` of an evaluation.

A problem's pass rate is the mean over its samples of the one value by which its task is judged: accuracy where it has
one, else the first of `VALUES` that its lines have. Answers that failed are not counted.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from onethinker_jax.answer_forms import finite_number
from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows
from onethinker_jax.data_pipeline.sources.sample import SourceError

VALUES = ("accuracy", "mIoU", "AO", "tIoU", "gIoU", "J&F")
FORMS = ("standard", "released")


def read_pass_rates(path: Path) -> dict[str, float]:
    """Problem id, as text -> pass rate in 0 to 1.

    Raises RecordError: the file cannot be read. SourceError: a line has no problem_id or no value, or none has.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for number, row in JsonRows(path):
        where = f"{path}: line {number}"
        if isinstance(row, BrokenRow):
            raise SourceError(f"{where}: {row.reason}")
        if not isinstance(row, dict) or not isinstance(row.get("problem_id"), (int, str)):
            raise SourceError(f"{where}: must be an object with a problem_id")
        if row.get("failed"):
            continue
        value = _value(row)
        if value is None or not 0 <= value <= 1:
            names = ", ".join(VALUES)
            raise SourceError(
                f"{where}: problem_id {row['problem_id']}: values: has none of {names} in 0 to 1"
            )
        values[str(row["problem_id"])].append(value)
    if not values:
        raise SourceError(f"{path}: holds no scored answer")
    return {name: sum(found) / len(found) for name, found in values.items()}


def _value(row: dict[str, Any]) -> float | None:
    """Of `values` ({metric: {"released", "standard"}}), or of a field `accuracy` of the line itself."""
    scored = row.get("values")
    if not isinstance(scored, dict):
        return finite_number(row.get("accuracy"))
    for metric in VALUES:
        forms = scored.get(metric)
        if not isinstance(forms, dict):
            continue
        for form in FORMS:
            if (value := finite_number(forms.get(form))) is not None:
                return value
    return None
