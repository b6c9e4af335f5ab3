"""The rules by which benchmarks aggregate, by hand: rotations, means of means, means of videos, groups, failures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.results.lines import Line, Problem
from onethinker_jax.evaluate.results.scored import ScoredProblem, score
from onethinker_jax.evaluate.results.totals import Total, grouped, totals
from tests.evaluate.metrics.problems import answered, sample

OPTIONS = ["A. red", "B. blue"]


def no_masks(wanted):
    raise AssertionError("nothing is to be segmented")


def scored(*pairs: tuple[Sample, str | None]) -> list[ScoredProblem]:
    """Samples with the answers to them, a letter each; None: there is none; "": it failed."""
    problems = []
    for number, (one, letters) in enumerate(pairs):
        lines = tuple(
            Line(Path("p.jsonl"), number, "1", answered(letter), failed="lost" if letter == "-" else None)
            for letter in letters or ""
        )
        problems.append(Problem(one, lines))
    return score(problems, no_masks)


def choice(number: int = 1, **more) -> Sample:
    one = sample("multiple choice", "A", problem_id=number, options=OPTIONS, facts=more.pop("facts", None))
    return replace(one, groups=more)


def test_circular_needs_every_rotation() -> None:
    """Right in both rotations; in one of two; one rotation lost; a question without rotations."""
    rows = scored(
        *((choice(1, facts={"g_index": 1}), "A"), (choice(10, facts={"g_index": 1}), "A")),
        *((choice(2, facts={"g_index": 2}), "A"), (choice(20, facts={"g_index": 2}), "B")),
        *((choice(3, facts={"g_index": 3}), "A"), (choice(30, facts={"g_index": 3}), None)),
        (choice(4), "A"),
    )
    found = totals(rows, ["accuracy"], rule="circular")["accuracy"]
    assert (found.standard, found.n, found.failed) == (pytest.approx(2 / 3), 3, 1)
    assert found.released == pytest.approx(5 / 6)
    assert totals(rows, ["accuracy"])["accuracy"].standard == pytest.approx(5 / 6)


def test_circular_of_several_samples() -> None:
    """The first sample is right in both rotations, the second in one."""
    rows = scored((choice(1, facts={"g_index": 1}), "AA"), (choice(10, facts={"g_index": 1}), "AB"))
    assert totals(rows, ["accuracy"], rule="circular")["accuracy"].standard == 0.5


def test_mean_of_means() -> None:
    """Meta-task x has subtasks of 1/1 and 0/2, y one of 1/4: ((1 + 0) / 2 + 1 / 4) / 2."""
    x = [(choice(1, **{"l2-category": "x", "category": "a"}), "A")]
    x += [(choice(n, **{"l2-category": "x", "category": "b"}), "B") for n in (2, 3)]
    y = [(choice(n, **{"l2-category": "y", "category": "c"}), "A" if n == 4 else "B") for n in range(4, 8)]
    rows = scored(*x, *y)
    found = totals(rows, ["accuracy"], rule="mean of means")["accuracy"]
    assert found.standard == pytest.approx((0.5 + 0.25) / 2) and found.released == pytest.approx(2 / 7)
    assert found.low is not None and found.high is not None and found.low < 0.375 < found.high
    groups = grouped(rows, ["accuracy"], rule="mean of means")
    assert groups["l2-category"]["x"]["accuracy"].standard == 0.5
    assert groups["category"]["b"]["accuracy"].standard == 0.0
    assert groups["task"]["multiple choice (image)"]["accuracy"].released == pytest.approx(2 / 7)


def test_mean_of_videos() -> None:
    """Two questions of one video, IoU 1 and 0.5, one of another, 0."""
    spans = [
        (sample("temporal grounding", '{"time": [0, 10]}', problem_id=n, path=path), text)
        for n, path, text in ((1, "a.mp4", "[0, 10]"), (2, "a.mp4", "[0, 5]"), (3, "b.mp4", "[20, 30]"))
    ]
    lines = [
        Problem(one, (Line(Path("p"), n, str(n), answered(f'{{"time": {text}}}')),))
        for n, (one, text) in enumerate(spans)
    ]
    found = totals(score(lines, no_masks), ["mIoU", "R@0.5"], rule="mean of videos")
    assert found["mIoU"].standard == pytest.approx((0.75 + 0.0) / 2) and found["mIoU"].released == 0.5
    assert found["R@0.5"].standard == 0.5 and found["R@0.5"].released == pytest.approx(2 / 3)


def test_failures_and_groups() -> None:
    rows = scored((choice(1, split="dev"), "A"), (choice(2, split="validation"), "-"), (choice(3), None))
    found = totals(rows, ["accuracy"])["accuracy"]
    assert found == Total(1.0, 1.0, 1.0, 1.0, 1, 2)
    groups = grouped(rows, ["accuracy"])["split"]
    assert groups["validation"]["accuracy"] == Total(None, None, None, None, 0, 1)
    assert groups["dev"]["accuracy"].n == 1


def test_samples_of_a_problem_are_one_cluster() -> None:
    """A problem's answers are averaged first: three right ones of one problem are no three problems."""
    rows = scored((choice(1), "AAA"), (choice(2), "B"), (choice(3), "B"))
    found = totals(rows, ["accuracy"])
    assert found["accuracy"].standard == pytest.approx(1 / 3) and found["accuracy"].n == 3
    assert found["pass@k"].n == 1 and found["pass@k"].failed == 2
    assert found["majority"].standard == pytest.approx(1 / 3)
    many = totals(scored(*((choice(n), "A" if n % 2 else "B") for n in range(200))), ["accuracy"])["accuracy"]
    assert many.low == pytest.approx(0.5 - 1.96 * np.sqrt(0.25 / 200), abs=0.01)
    assert set(totals(scored((choice(1), "A")), ["accuracy"])) == {"accuracy"}
