"""Which answers a judge is shown, and what its verdicts change; the judge is scripted."""

from collections.abc import Sequence
from typing import Any

import pytest

from onethinker_jax.evaluate.judges.types import (
    NO_OPTION,
    CaptionItem,
    CaptionQuestionItem,
    ChoiceItem,
    ComparisonItem,
    Judgement,
    Match,
    ValueItem,
)
from onethinker_jax.evaluate.metrics.accuracy import measure, read
from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.judged import judge_answers
from onethinker_jax.evaluate.metrics.shares import Forms
from onethinker_jax.evaluate.metrics.texts import measure_written
from tests.evaluate.metrics.problems import answer


class Scripted:
    """Says what it was told to say of a text, None of any other; keeps what it was asked."""

    error: str | None = None

    def __init__(self, said: dict[str, Any]):
        self.said, self.asked = said, list[Any]()

    def _of(self, items: Sequence[Any], texts: Sequence[str]) -> list[Judgement[Any]]:
        self.asked += items
        return [Judgement(self.said.get(text), "" if text in self.said else "silent") for text in texts]

    def choices(self, items: Sequence[ChoiceItem]) -> list[Judgement[str]]:
        return self._of(items, [item.response for item in items])

    def values(self, items: Sequence[ValueItem]) -> list[Judgement[str]]:
        return self._of(items, [item.response for item in items])

    def equals(self, items: Sequence[ComparisonItem]) -> list[Judgement[bool]]:
        return self._of(items, [f"{item.answer} = {item.truth}" for item in items])

    def caption_answers(self, items: Sequence[CaptionQuestionItem]) -> list[Judgement[str]]:
        return self._of(items, [f"{item.caption}: {item.question}" for item in items])

    def matches(self, items: Sequence[ComparisonItem]) -> list[Judgement[Match]]:
        found = self._of(items, [f"{item.answer} = {item.truth}" for item in items])
        return [Judgement(None if one.value is None else Match(one.value, 3)) for one in found]

    def relevances(self, items: Sequence[CaptionItem]) -> list[Judgement[int]]:
        return self._of(items, [f"{item.caption} / {item.reference}" for item in items])

    def settings(self) -> dict[str, Any]:
        return {}


def choice(text: str, **more: Any) -> Answer:
    return answer("multiple choice", "B", text, options=["A. red", "B. blue", "C. green"], **more)


def test_options_that_no_rule_reads() -> None:
    """Read by rule; judged right, wrong and as none of the options; not judged."""
    answers = [choice(text) for text in ("B", "as the sky", "as grass", "none of them", "mumble")]
    judge = Scripted({"as the sky": "B", "as grass": "C", "none of them": NO_OPTION})
    judged = judge_answers(answers, judge)
    assert [item.response for item in judge.asked] == ["as the sky", "as grass", "none of them", "mumble"]
    assert (
        judge.asked[0].options == {"A": "red", "B": "blue", "C": "green"}
        and judge.asked[0].question == "What?"
    )
    assert [read(one).standard.accuracy for one in judged] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [one.verdict and one.verdict.answer for one in judged] == [None, "B", "C", NO_OPTION, None]
    assert [read(one).standard.answer for one in judged][-1] is None
    assert measure(judged[1])["accuracy"] == Forms((0.0, 1.0), (1.0, 1.0))


def test_values_of_mathvista() -> None:
    """Rule first; what no rule reads is taken out by the judge and compared as the rule compares."""
    whole = {"answer_type": "integer", "question": "How many?"}
    places = {"answer_type": "float", "precision": "1"}
    answers = [
        answer("numerical", "5", "5.0", facts=whole),
        answer("numerical", "5", "five apples", facts=whole),
        answer("numerical", "1.2", "1.24", facts=places),
        answer("numerical", "1.2", "about 1.3", facts=places),
    ]
    judge = Scripted({"five apples": "5", "about 1.3": "1.3"})
    judged = judge_answers(answers, judge)
    assert [(item.question, item.form) for item in judge.asked] == [
        ("How many?", "an integer"),
        ("What?", "a number with 1 decimals"),
    ]
    assert [read(one).standard.accuracy for one in judged] == [1.0, 1.0, 1.0, 0.0]
    assert [read(one).released.accuracy for one in judged] == [1.0, 0.0, 0.0, 0.0]


def test_mathverse_is_the_judges_in_both_stages() -> None:
    facts = {"question_for_eval": "Find x."}
    answers = [
        answer("math", "3", text, facts=facts) for text in ("x = 3", "x is three", "so 4", "mumble", "3")
    ]
    judge = Scripted({"x = 3": "3 ", "x is three": "three", "so 4": "4", "three = 3": True, "4 = 3": False})
    judged = judge_answers(answers, judge)
    shares = [measure(one)["accuracy"].standard for one in judged]
    assert shares == [(1.0, 1.0), (1.0, 1.0), (0.0, 1.0), None, None]
    assert measure(answers[4])["accuracy"] == Forms((1.0, 1.0), None)  # without a judge: mathematics alone


def test_video_mmlu_counts_all_questions_and_the_last_alone() -> None:
    pairs = [{"question": f"q{n}", "answer": f"t{n}"} for n in range(3)]
    one, silent = (
        answer("open-ended", "q0 t0", text, facts={"questions": pairs}) for text in ("film", "hum")
    )
    judge = Scripted(
        {
            "film: q0": "a0",
            "film: q1": "a1",
            "film: q2": "a2",
            "a0 = t0": True,
            "a1 = t1": True,
            "a2 = t2": False,
        }
    )
    judged = judge_answers([one, silent], judge)
    assert measure(judged[0])["accuracy"] == Forms((0.0, 1.0), (2.0, 3.0))
    assert measure(judged[1])["accuracy"] == measure(one)["accuracy"] == Forms(None, None)
    del judge.said["film: q2"], judge.said["a1 = t1"]
    (judged, _) = judge_answers([one, silent], judge)
    assert measure(judged)["accuracy"] == Forms(None, (1.0, 1.0))  # what was not judged counts in neither


@pytest.mark.parametrize("problem_type", ["temporal grounding", "OCR"])
def test_what_is_never_shown_to_a_judge(problem_type: str) -> None:
    truth = '{"time": [0, 1]}' if problem_type == "temporal grounding" else "a"
    judge = Scripted({})
    given = answer(problem_type, truth, "mumble")
    assert judge_answers([given], judge) == [given] and not judge.asked


def test_captions_are_rated() -> None:
    """Those of a table of captions alone; one without a rating adds nothing to G-Eval, and keeps its other metrics."""
    facts = {"references": ["A red cell"]}
    captions = [answer("open-ended", "A red cell", text, facts=facts) for text in ("A cell.", "Noise")]
    captions.append(answer("open-ended", "A red cell", "A cell."))
    judge = Scripted({"A cell. / A red cell": 4})
    judged = judge_answers(captions, judge)
    assert judge.asked == [CaptionItem("A red cell", "A cell."), CaptionItem("A red cell", "Noise")]
    assert [one.relevance for one in judged] == [4, None, None] and not any(one.verdict for one in judged)
    measured = [measure_written(one) for one in judged]
    assert measured[0]["G-Eval"] == Forms(None, (4.0, 1.0)) and "ROUGE-L" in measured[1]
    assert measured[1]["G-Eval"] == Forms(None, None) and "G-Eval" not in measured[2]
