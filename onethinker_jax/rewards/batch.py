"""Scores for many responses at once: open-ended ones and masks judged by the reward service, the rest here."""

from collections.abc import Callable, Sequence

from onethinker_jax.rewards.answers import StructuredAnswer, unwrap_answer
from onethinker_jax.rewards.client.client import RewardClient, TextItem
from onethinker_jax.rewards.normalisation import normalise_scores
from onethinker_jax.rewards.score import RewardSettings, Score, judged_text, mask_prompt
from onethinker_jax.rewards.score_pool import UNJUDGED, Judged, ScorePool, ScoreRequest, score_request
from onethinker_jax.tasks import TABLE

__all__ = ["MaskJudge", "ScoreRequest", "score_batch"]

MaskJudge = Callable[[Sequence[tuple[int, StructuredAnswer]]], Sequence[float]]
"""(number of a request, its box, points and key time) pairs -> the IoU in [0, 1] of each prompted mask with the
record's (`metrics.mean_mask_iou`), in order. The caller knows which record and media a request belongs to."""


def score_batch(
    requests: Sequence[ScoreRequest],
    client: RewardClient,
    *,
    settings: RewardSettings,
    pool: ScorePool | None = None,
    judge_masks: MaskJudge | None = None,
) -> list[Score]:
    """One Score a request, in order.

    Scored in `pool`'s processes, or in this one without it. `judge_masks` is needed where
    `settings.segmentation_reward` is "mask". Raises RewardUnavailable when the service cannot be reached: a
    score is never made up in its place.
    """
    judged: dict[int, Judged] = {}
    if settings.module is None:  # a reward of one's own judges by itself
        judged = _judge_texts(requests, client, settings)
        if settings.segmentation_reward == "mask":
            judged |= _judge_masks(requests, judge_masks, settings)
    if pool is not None:
        return pool.score(requests, settings=settings, judged=judged)
    return [
        score_request(request, judged.get(number, UNJUDGED), settings)
        for number, request in enumerate(requests)
    ]


def _judge_texts(
    requests: Sequence[ScoreRequest], client: RewardClient, settings: RewardSettings
) -> dict[int, Judged]:
    items = {
        number: TextItem(
            question=request.question, reference=unwrap_answer(request.ground_truth), answer=text
        )
        for number, request in enumerate(requests)
        if TABLE[request.problem_type].judged_by == "text"
        and (text := judged_text(request.response, settings.variant)) is not None
    }
    scores = client.score_text(list(items.values())) if items else []
    groups = [requests[number].group for number in items]
    scores = normalise_scores(scores, groups, settings.text_normalisation)
    return {number: Judged(text_score=score) for number, score in zip(items, scores, strict=True)}


def _judge_masks(
    requests: Sequence[ScoreRequest], judge_masks: MaskJudge | None, settings: RewardSettings
) -> dict[int, Judged]:
    prompts = [
        (number, prompt)
        for number, request in enumerate(requests)
        if TABLE[request.problem_type].judged_by == "mask"
        and (
            prompt := mask_prompt(request.response, request.problem_type, request.data_type, settings.variant)
        )
        is not None
    ]
    if not prompts:
        return {}
    if judge_masks is None:
        raise ValueError('segmentation_reward is "mask", but nobody judges masks: judge_masks is missing')
    scores = judge_masks(prompts)
    return {number: Judged(mask_score=score) for (number, _), score in zip(prompts, scores, strict=True)}
