"""One answer to a problem: a response with the masks that it prompted, and what metrics read of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.benchmarks.types import OptionRule
from onethinker_jax.evaluate.metrics.shares import Share
from onethinker_jax.rewards.answers import StructuredAnswer as Truth
from onethinker_jax.rewards.answers import extract_answer, parse_json, parse_structured, unwrap_answer
from onethinker_jax.tasks import TABLE

Rle = Mapping[str, Any]
"""A COCO run-length encoding, checked."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an answer: what it is read as, and what it adds to the accuracy's forms."""

    answer: str
    standard: Share
    released: Share | None = None
    """None: the released form asks no judge."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A response to a sample's question, with the masks that its boxes and points prompted."""

    sample: Sample
    response: str
    masks: Mapping[str, Rle] | None = None
    """By frame name, `""` for an image's; None: the answer prompted no mask."""
    verdict: Verdict | None = None
    """A judge's, where it was asked."""
    relevance: int | None = None
    """How relevant a judge finds it to the reference caption, 1 to 5."""
    option_rule: OptionRule = "vlmevalkit"
    """How the benchmark reads which option it names."""

    @cached_property
    def text(self) -> str:
        """Between the first pair of answer tags; the whole response where there is none, or nothing in it."""
        return extract_answer(self.response) or self.response.strip()

    @cached_property
    def given(self) -> dict[str, Any]:
        """The JSON object that the text is; empty where it is none."""
        value = parse_json(self.text)
        return value if isinstance(value, dict) else {}

    @property
    def problem_type(self) -> str:
        """The problem type of its record."""
        return self.sample.record.problem_type

    @property
    def truth(self) -> str:
        """The true answer without its tags."""
        return unwrap_answer(self.sample.record.answer)

    @property
    def true_values(self) -> Truth:
        """The true answer of a structured task, which the record's reader has checked."""
        record = self.sample.record
        found = parse_structured(self.truth, record.problem_type, record.data_type)
        assert found is not None, f"{record}: a truth that its reader took cannot be read"
        return found

    @property
    def is_structured(self) -> bool:
        """Whether its answer is JSON."""
        return TABLE[self.problem_type].answer == "JSON"


def numbers(value: object, count: int) -> tuple[float, ...] | None:
    """A JSON list of exactly `count` finite numbers, or texts that are numbers; None for anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    try:
        found = tuple(float(item) for item in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if all(map(math.isfinite, found)) else None
