"""One answer to a problem, and what metrics read of it and give for it.

A metric has up to two forms: `released` is what OneThinker's published script means to compute, `standard` what the
benchmark itself defines. What an answer adds to a form is a tuple of numbers, a `Share`, of which the sums over all
answers make the metric's value: (value, 1) of a mean, (overlap, union) of an IoU over all pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.rewards.answers import extract_answer, parse_json, parse_structured, unwrap_answer
from onethinker_jax.rewards.answers import StructuredAnswer as Truth
from onethinker_jax.tasks import TABLE

Share = tuple[float, ...]
"""What an answer adds to the sums of a form."""

Rle = Mapping[str, Any]
"""A COCO run-length encoding, checked."""


class Forms(NamedTuple):
    """What an answer adds to the two forms of a metric; None: nothing, it is left out or the form is not defined."""

    released: Share | None
    standard: Share | None


Measured = dict[str, Forms]
"""Metric -> what one answer adds to it."""

FORMS = Forms._fields


def both(value: float) -> Forms:
    """A value whose mean both forms are."""
    return Forms((value, 1.0), (value, 1.0))


@dataclass(frozen=True, eq=False)
class Answer:
    """A response to a sample's question, with the masks that its boxes and points prompted."""

    sample: Sample
    response: str
    masks: Mapping[str, Rle] | None = None
    """By frame name, `""` for an image's; None: the answer prompted no mask."""

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
