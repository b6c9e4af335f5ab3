"""The result of a benchmark: its totals, what was left out of them and why, and every answer with its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onethinker_jax.evaluate.benchmarks.reading import BenchmarkFile
from onethinker_jax.evaluate.benchmarks.types import Benchmark
from onethinker_jax.evaluate.metrics import table
from onethinker_jax.evaluate.metrics.accuracy import needs_judge
from onethinker_jax.evaluate.metrics.masks import IMAGE
from onethinker_jax.evaluate.metrics.shares import FORMS, Forms, Share
from onethinker_jax.evaluate.results.clusters import QUESTION
from onethinker_jax.evaluate.results.scored import ScoredAnswer, ScoredProblem
from onethinker_jax.evaluate.results.totals import Total, grouped, totals
from onethinker_jax.rewards.answers import unwrap_answer

NO_PREDICTION = "no prediction"


@dataclass(frozen=True, eq=False)
class Result:
    """A benchmark's scores."""

    benchmark: Benchmark
    file: BenchmarkFile
    problems: Sequence[ScoredProblem]
    totals: Mapping[str, Total]
    groups: Mapping[str, Mapping[str, Mapping[str, Total]]]

    def metrics(self) -> dict[str, Any]:
        """The benchmark's part of metrics.json."""
        return {metric: found.to_json() for metric, found in self.totals.items()}

    def to_json(self) -> dict[str, Any]:
        """The benchmark's part of results.json."""
        benchmark = self.benchmark
        return {
            "title": benchmark.title,
            "family": benchmark.family,
            "rows": self.file.rows,
            "files": [self.file.to_json()],
            "split": benchmark.split,
            "rule": benchmark.rule,
            "metrics": self.metrics(),
            "groups": {
                kind: {name: {m: t.to_json() for m, t in found.items()} for name, found in groups.items()}
                for kind, groups in self.groups.items()
            },
            "samples": self.spread(),
            "extraction": self.extraction(),
            "left_out": dict(self.left_out()),
            "published": {metric: list(numbers) for metric, numbers in benchmark.published.items()},
            "published_form": benchmark.published_form,
            "note": benchmark.note,
        }

    def extraction(self) -> dict[str, float]:
        """The share of answers that were read by the rule, by the judge, and not at all."""
        answers = [answer for one in self.problems for answer in one.answers]
        counts = Counter(answer.decided_by for answer in answers)
        return {name: counts[name] / max(len(answers), 1) for name in ("rule", "judge", "unread")}

    def left_out(self) -> Counter[str]:
        """Why answers are missing from the totals, and how many."""
        reasons = Counter[str](self.file.left_out)
        for one in self.problems:
            reasons[NO_PREDICTION] += not one.problem.lines
            for line in one.problem.lines:
                if line.failed is not None:
                    reasons[f"failed: {line.failed}"] += 1
            for answer in one.answers:
                if answer.prompts_nothing:
                    reasons["no prompt: left out of the released form"] += 1
                if needs_judge(answer.answer) and answer.answer.verdict is None:
                    reasons["not judged: left out of the standard form"] += 1
        return Counter({reason: count for reason, count in reasons.items() if count})

    def spread(self) -> dict[str, Any]:
        """With several answers a problem: how many at most, and each metric's mean and deviation over the samples.

        The value of a sample number is that of the problems' answers of that number alone.
        """
        most = max((len(one.problem.lines) for one in self.problems), default=0)
        if most < 2:
            return {}
        found: dict[str, Any] = {"k": most}
        for form in FORMS:
            found[form] = {
                metric: {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}
                for metric in self.benchmark.metrics
                if len(values := self._by_sample(metric, form, most)) > 1
            }
        return found

    def _by_sample(self, metric: str, form: str, most: int) -> list[float]:
        values = []
        for number in range(most):
            shares = [
                share
                for one in self.problems
                if len(one.answers) > number
                and metric in one.answers[number].measured
                and (share := getattr(one.answers[number].measured[metric], form)) is not None
            ]
            if shares:
                values.append(float(table.value_of(metric)(np.sum(shares, axis=0))))
        return values

    def scored_lines(self) -> Iterator[dict[str, Any]]:
        """The benchmark's lines of scored.jsonl: one an answer, one a problem without any."""
        for one in self.problems:
            by_line = {id(answer.line): answer for answer in one.answers}
            if not one.problem.lines:
                yield {**self._head(one), **_failed(NO_PREDICTION)}
            for number, line in enumerate(one.problem.lines):
                head = self._head(one)
                if len(one.problem.lines) > 1:
                    head["sample"] = number if line.sample is None else line.sample
                answer = by_line.get(id(line))
                yield {**head, **(_failed(str(line.failed)) if answer is None else _values(answer))}

    def _head(self, one: ScoredProblem) -> dict[str, Any]:
        record = one.sample.record
        return {
            "benchmark": self.benchmark.name,
            "problem_id": record.problem_id,
            "task": str(one.task),
            "question": record.problem,
            "options": list(record.options),
            "media": [str(file) for file in (*record.videos, *record.images)],
            "answer": unwrap_answer(record.answer),
            "groups": one.groups,
            **({"rotation_of": one.rotation_of} if QUESTION in one.sample.facts else {}),
        }


def result_of(
    benchmark: Benchmark, file: BenchmarkFile, problems: Sequence[ScoredProblem], *, seed: int = 0
) -> Result:
    """The result of a benchmark's scored problems."""
    metrics = benchmark.metrics
    return Result(
        benchmark,
        file,
        problems,
        totals(problems, metrics, rule=benchmark.rule, seed=seed),
        grouped(problems, metrics, rule=benchmark.rule, seed=seed),
    )


def _values(answer: ScoredAnswer) -> dict[str, Any]:
    readings = answer.readings
    extracted = answer.answer.text if readings is None else readings.standard.answer
    found = {
        "response": answer.line.response,
        "extracted": extracted,
        "decided_by": answer.decided_by,
        "values": {metric: _of_forms(metric, forms, _value) for metric, forms in answer.measured.items()},
        "failed": None,
        "tokens": answer.line.tokens,
    }
    pooled = {
        metric: _of_forms(metric, forms, lambda _, share: share)
        for metric, forms in answer.measured.items()
        if any(share is not None and share[1:] != (1.0,) for share in forms)
    }
    if pooled:
        found["shares"] = pooled
    if answer.answer.masks:
        masks = {name: dict(rle) for name, rle in answer.answer.masks.items()}
        found["masks"] = masks[IMAGE] if list(masks) == [IMAGE] else masks
    return found


def _of_forms(metric: str, forms: Forms, say: Callable[[str, Share], Any]) -> dict[str, Any]:
    return {form: None if (share := getattr(forms, form)) is None else say(metric, share) for form in FORMS}


def _value(metric: str, share: Share) -> float:
    return float(table.value_of(metric)(np.array(share)))


def _failed(reason: str) -> dict[str, Any]:
    return {
        "response": "",
        "extracted": None,
        "decided_by": None,
        "values": {},
        "failed": reason,
        "tokens": None,
    }
