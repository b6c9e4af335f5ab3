"""How often records are drawn, by task and by source, and that each comes equally often within its weight."""

import math
from collections import Counter
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.data_pipeline.records.record import Record


def record(number: int, kind: str, source: str) -> Record:
    return Record(number, f"question {number}", "image", kind, (), "", (Path("a.png"),), (), source)


# 20 OCR of "a", 10 math of "a", 30 math of "b".
RECORDS = [
    record(number, "OCR" if number < 20 else "math", "a" if number < 30 else "b") for number in range(60)
]


def drawn(mixture: Mixture, count: int) -> list[Record]:
    stream = RecordStream(RECORDS, seed=0, mixture=mixture)
    return [stream.next() for _ in range(count)]


def shares(records: list[Record]) -> dict[tuple[str, str], int]:
    return dict(Counter((r.problem_type, r.data_source) for r in records))


def test_weights_multiply_the_natural_shares():
    """20 x 3, 10 and 30 records of weight: of 100 drawn, 60 + 10 + 30."""
    records = drawn(Mixture(tasks={"OCR (image)": 3.0}), 200)
    assert shares(records) == pytest.approx({("OCR", "a"): 120, ("math", "a"): 20, ("math", "b"): 60}, abs=4)
    ocr = [r.problem_id for r in records if r.problem_type == "OCR"]
    assert len(ocr) == 120
    for epoch in range(6):  # a group of one weight has epochs of its own
        assert sorted(ocr[20 * epoch : 20 * epoch + 20]) == list(range(20))


def test_a_task_and_a_source_multiply():
    """OCR of a: 20 x 3 x 2 = 120; math of a: 10 x 2 = 20; math of b: 30."""
    records = drawn(Mixture(tasks={"OCR (image)": 3.0}, sources={"a": 2.0}), 340)
    assert shares(records) == pytest.approx({("OCR", "a"): 240, ("math", "a"): 40, ("math", "b"): 60}, abs=3)


def test_nothing_given_or_all_alike_is_one_epoch_of_all():
    plain = drawn(Mixture(), 120)
    assert plain == drawn(Mixture(tasks={"OCR (image)": 2.0, "math (image)": 2.0}), 120)
    assert sorted(r.problem_id for r in plain[:60]) == list(range(60))
    assert plain[:60] != plain[60:]


def test_zero_leaves_out():
    records = drawn(Mixture(sources={"a": 0.0}), 60)
    assert sorted(r.problem_id for r in records[:30]) == list(range(30, 60))
    stream = RecordStream(RECORDS, seed=0, mixture=Mixture(sources={"a": 0.0}))
    assert stream.size == 30


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            Mixture(tasks={"ocr (image)": 1.0}),
            r"task 'ocr \(image\)', which no record has \(did you mean 'OCR",
        ),
        (Mixture(sources={"zz": 1.0}), r"source 'zz', which no record has \(they have: a, b\)"),
        (Mixture(sources={"a": 0.0, "b": 0.0}), "leave out every record"),
    ],
)
def test_names_that_no_record_has(mixture, message):
    with pytest.raises(ValueError, match=message):
        RecordStream(RECORDS, seed=0, mixture=mixture)


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_weights_that_are_none(weight):
    with pytest.raises(ValueError, match="the weight of source 'a' must be 0 or more"):
        Mixture(sources={"a": weight})
