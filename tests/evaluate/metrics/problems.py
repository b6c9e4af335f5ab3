"""Samples and answers for tests of metrics."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.records.record import parse_record
from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.shares import Share, Value, ratio

DATA_TYPES = {"spatial grounding": "image", "OCR": "image", "math": "image", "multiple choice": "image"}


def row(problem_type: str, solution: str, **fields: Any) -> dict[str, Any]:
    """A row of OneThinker's evaluation files, whose media are not there."""
    data_type = fields.pop("data_type", DATA_TYPES.get(problem_type, "video"))
    path = "gone.png" if data_type == "image" else "gone.mp4"
    base = {"problem_id": 1, "problem": "What?", "options": [], "path": path, "solution": solution}
    return {**base, "problem_type": problem_type, "data_type": data_type, **fields}


def sample(problem_type: str, solution: str, facts: dict[str, Any] | None = None, **fields: Any) -> Sample:
    given = row(problem_type, solution, **fields)
    record = parse_record(given, Path("data"), file=Path("test.json"), number=1, check_media=False)
    return Sample(record, facts=facts or {})


def value_of(shares: Iterable[Share | None], value: Value = ratio) -> float:
    """The value that shares make; those left out add nothing."""
    return float(value(np.sum([share for share in shares if share is not None], axis=0)))


def answered(text: str) -> str:
    return f"<think>so</think><answer>{text}</answer>"


def answer(problem_type: str, solution: str, text: str, **given: Any) -> Answer:
    masks = given.pop("masks", None)
    return Answer(sample(problem_type, solution, **given), answered(text), masks)
