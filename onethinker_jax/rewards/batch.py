"""Scores for many responses at once: open-ended ones judged by the reward service, the rest right here."""

from collections.abc import Sequence
from dataclasses import dataclass

from onethinker_jax.rewards.answers import extract_answer, unwrap_answer
from onethinker_jax.rewards.client import RewardClient, TextItem
from onethinker_jax.rewards.score import Score, Variant, score_response


@dataclass(frozen=True)
class ScoreRequest:
    """A response and what it is scored against; ``question`` is what an open-ended judge is shown."""

    response: str
    ground_truth: str
    question: str
    problem_type: str
    data_type: str


def score_batch(requests: Sequence[ScoreRequest], client: RewardClient, *, variant: Variant) -> list[Score]:
    """One Score a request, in order.

    Raises RewardUnavailable when the service cannot be reached: a score is never made up in its place.
    """
    judged = [number for number, request in enumerate(requests) if request.problem_type == "open-ended"]
    items = []
    for number in judged:
        request = requests[number]
        answer = extract_answer(request.response)
        items.append(
            TextItem(
                question=request.question,
                reference=unwrap_answer(request.ground_truth),
                answer=request.response if answer is None else answer,
            )
        )
    text_scores = dict(zip(judged, client.score_text(items) if items else [], strict=True))
    return [
        score_response(
            request.response,
            request.ground_truth,
            problem_type=request.problem_type,
            data_type=request.data_type,
            variant=variant,
            text_score=text_scores.get(number),
        )
        for number, request in enumerate(requests)
    ]
