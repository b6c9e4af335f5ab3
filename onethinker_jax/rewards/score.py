"""A response and its ground truth in, a `Score` out: the reward that reinforcement learning optimises.

Two variants. `"paper"` follows the formulas of OneThinker (arXiv 2512.03043), with three decisions of ours
where it is silent or can be gamed: the weights are settings; the mean box overlap of spatio-temporal
grounding runs over the *true* seconds, a missing one counting 0, so that answering few seconds does not pay;
and a structured answer outside its schema has accuracy 0. `"released"` (`released.py`) reproduces the
published code's numbers, its errors included where they change a reward. docs/rewards.md has every formula.

A malformed answer scores low and never raises; a malformed ground truth is a broken record and raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal, get_args

from onethinker_jax.rewards import metrics
from onethinker_jax.rewards.answers import (
    MAX_RESPONSE_CHARS,
    GroundTruthError,
    StructuredAnswer,
    extract_answer,
    has_strict_format,
    parse_structured,
    tighten_tags,
    unwrap_answer,
)
from onethinker_jax.rewards.equivalence.equivalence import math_equivalent
from onethinker_jax.rewards.equivalence.quantities import as_float, number_error, read_number, readings
from onethinker_jax.rewards.normalisation import Normalisation
from onethinker_jax.rewards.option_answers import options_equivalent
from onethinker_jax.rewards.released import (
    ACCURACY_WEIGHT,
    FORMAT_WEIGHT,
    MAX_STRUCTURE,
    answer_text,
    released_score,
)
from onethinker_jax.tasks import TABLE, Task, complete, is_structured, of_answer

Variant = Literal["paper", "released"]
SegmentationReward = Literal["points", "mask"]


@dataclass(frozen=True)
class Score:
    """What a response earned. `overall` is the reward; the other three are its parts.

    `accuracy` is in [0, max_accuracy(…)], `format` 0 or 1. `structure` is, in the paper variant, 1 when the
    answer fits its task's schema (any answer, for the text tasks) and 0 else; in the released variant the
    extra term in [0, 0.5].
    """

    overall: float
    accuracy: float
    format: float
    structure: float


@dataclass(frozen=True)
class RewardSettings:
    """Whose formulas, and the paper variant's free choices: `overall = accuracy + format_weight · format`.

    The paper adds its terms and gives no weights: with 1 everywhere its equations are as they stand. The two
    widths are the paper's own. `segmentation_reward` is the one setting that both variants heed: with "mask"
    the accuracy of segmentation is the overlap of the mask that box and points prompt, `mask_score`.
    """

    variant: Variant = "released"
    """Whose formulas a run or an evaluation scores by: the paper's, or those of its released code."""
    format_weight: float = 1.0
    """The weight of the format in the paper variant's reward."""
    time_weight: float = 1.0
    """The weight of tIoU in spatial-temporal grounding."""
    box_weight: float = 1.0
    """The weight of sIoU in spatial-temporal grounding and segmentation."""
    point_weight: float = 1.0
    """The weight of the positive points, and of the negative points, in segmentation."""
    key_time_weight: float = 1.0
    """The weight of the key frame's time in segmentation of a video."""
    point_sigma: float = 50.0
    """Width of the points' Gaussian, in 0–1000 units."""
    key_time_sigma: float = 1.0
    """Width of the key time's Gaussian, in seconds."""
    segmentation_reward: SegmentationReward = "points"
    """`points` compares box and points with the record's; `mask` compares the mask that they prompt."""
    module: str | None = None
    """A reward of one's own in place of the formulas: MODULE:FUNCTION or FILE.py:FUNCTION (docs/rewards.md)."""
    text_normalisation: Normalisation = "raw"
    """What becomes of the service's scores of open-ended answers; `raw` suits ROUGE, which is in [0, 1]."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_weight")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
        for name in ("point_sigma", "key_time_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, not {value}")
        if self.segmentation_reward not in ("points", "mask"):
            raise ValueError(
                f'segmentation_reward must be "points" or "mask", not {self.segmentation_reward!r}'
            )
        if self.module is not None and not all(self.module.rpartition(":")[::2]):
            raise ValueError(f"module {self.module!r} is not MODULE:FUNCTION or FILE.py:FUNCTION")
        if self.text_normalisation not in get_args(Normalisation):
            raise ValueError(
                f"text_normalisation must be one of {', '.join(get_args(Normalisation))}, "
                f"not {self.text_normalisation!r}"
            )


DEFAULT_SETTINGS = RewardSettings()


def max_accuracy(
    problem_type: str,
    data_type: str,
    variant: Variant = "paper",
    settings: RewardSettings = DEFAULT_SETTINGS,
) -> float:
    """The largest accuracy of a task.

    It is 1, but in the paper variant the sum of the terms' weights for spatial-temporal grounding (2 by default) and
    segmentation (3 of an image, 4 of a video). A reward of one's own
    keeps to [0, 1].
    """
    _check_variant(variant)
    weights = TABLE[problem_type].weights_of(data_type)
    if settings.module is not None:
        return 1.0
    if variant == "released" or not weights or by_mask(problem_type, settings):
        return 1.0
    total = 0.0
    for name, times in weights.items():
        total += times * getattr(settings, name)
    return total


def by_mask(problem_type: str, settings: RewardSettings) -> bool:
    """Whether the accuracy of such a problem is the overlap of a mask that the service makes."""
    return TABLE[problem_type].judged_by == "mask" and settings.segmentation_reward == "mask"


def max_overall(
    problem_type: str,
    data_type: str,
    variant: Variant = "paper",
    settings: RewardSettings = DEFAULT_SETTINGS,
) -> float:
    """The largest reward of a task; divide by it to compare tasks in one table."""
    accuracy = max_accuracy(problem_type, data_type, variant, settings)
    if settings.module is not None:
        return 1.0
    if variant == "paper":
        return accuracy + settings.format_weight
    return ACCURACY_WEIGHT * accuracy + FORMAT_WEIGHT + MAX_STRUCTURE


def reward_weights(settings: RewardSettings) -> tuple[float, float, float]:
    """What a variant's reward multiplies accuracy, format and structure with; the paper's format includes structure."""
    if settings.variant == "paper":
        return 1.0, settings.format_weight, 0.0
    return ACCURACY_WEIGHT, FORMAT_WEIGHT, 1.0


def score_response(
    response: str,
    ground_truth: str,
    *,
    problem_type: str,
    data_type: str,
    variant: Variant = "paper",
    text_score: float | None = None,
    mask_score: float | None = None,
    settings: RewardSettings = DEFAULT_SETTINGS,
    options: Sequence[str] = (),
) -> Score:
    """Scores one response.

    `ground_truth` may be wrapped in `<answer>…</answer>`. `text_score` in [0, 1], where a reward service
    computed one, replaces the local ROUGE of an open-ended answer and is ignored for every other task.
    `options` are a multiple-choice question's, with or without their letters: with them the paper variant also
    knows an option by its own text. `mask_score` in [0, 1] is the accuracy of segmentation where
    `settings.segmentation_reward` is "mask", and must then be given for each answer that `mask_prompt` reads;
    the ground truth may then be empty. `variant` says whose formulas; `settings.variant` is not read here.
    Raises ValueError for an unknown task or variant and for scores that are missing or NaN, GroundTruthError for
    a truth its task cannot read; never for a response.
    """
    _check_variant(variant)
    if settings.module is not None:
        raise ValueError(f"module {settings.module}: a reward of one's own is asked by `scoring.Scorer`")
    truth = unwrap_answer(ground_truth)
    text_score = None if text_score is None else _unit(text_score, "text_score")
    if len(response) > MAX_RESPONSE_CHARS:
        response = ""
    masked = by_mask(problem_type, settings)
    if masked and not truth:
        truth = "{}"  # a record with masks needs no answer
    if variant == "released":
        accuracy, tags, structure = released_score(response, truth, problem_type, data_type, text_score)
        if masked:
            prompt = mask_prompt(response, problem_type, data_type, variant)
            accuracy = _mask_accuracy(prompt, mask_score)
        return Score(ACCURACY_WEIGHT * accuracy + FORMAT_WEIGHT * tags + structure, accuracy, tags, structure)
    answer = extract_answer(response)
    structured = parse_structured(answer, problem_type, data_type)
    if is_structured(problem_type):
        wanted = parse_structured(truth, problem_type, data_type)
        if wanted is None and not masked:
            raise GroundTruthError(
                f"{Task.of(problem_type, data_type)}: unreadable ground truth {truth[:200]!r}"
            )
        structure = float(structured is not None)
        if masked:
            accuracy = _mask_accuracy(structured, mask_score)
        else:
            assert wanted is not None
            accuracy = _OF_JSON[problem_type](structured, wanted, settings) if structured else 0.0
    else:
        structure = float(bool(answer))
        accuracy = _text_accuracy(answer, truth, problem_type, text_score, options)
    tags = float(has_strict_format(response) and structure == 1.0)
    return Score(accuracy + settings.format_weight * tags, accuracy, tags, structure)


def judged_text(response: str, variant: Variant) -> str | None:
    """The text of an open-ended response that a judge is shown; None where no judge can raise the score."""
    if len(response) > MAX_RESPONSE_CHARS:
        return None
    return (answer_text(response) if variant == "released" else extract_answer(response)) or None


def mask_prompt(
    response: str, problem_type: str, data_type: str, variant: Variant
) -> StructuredAnswer | None:
    """The box, points and key time of a segmentation response that prompt a mask; None if it has no schema."""
    if len(response) > MAX_RESPONSE_CHARS:
        return None
    response = tighten_tags(response) if variant == "released" else response
    return parse_structured(extract_answer(response), problem_type, data_type)


def _mask_accuracy(prompt: StructuredAnswer | None, mask_score: float | None) -> float:
    if prompt is None:
        return 0.0
    if mask_score is None:
        raise ValueError(
            'segmentation_reward is "mask": a mask_score is needed for each answer that can prompt one'
        )
    return _unit(mask_score, "mask_score")


def _check_variant(variant: str) -> None:
    if variant not in ("paper", "released"):
        raise ValueError(f'unknown reward variant {variant!r}: "paper" or "released"')


def _text_accuracy(
    answer: str | None, truth: str, problem_type: str, text_score: float | None, options: Sequence[str]
) -> float:
    """The paper variant's accuracy of the text tasks; 0 without an answer."""
    numbers = problem_type in of_answer("number", "estimate")
    if numbers and number_error(truth, problem_type):
        raise GroundTruthError(f"{problem_type}: the ground truth {truth[:200]!r} is not a number")
    if not answer:
        return 0.0
    if text_score is not None and TABLE[problem_type].judged_by == "text":
        return text_score
    return _OF_TEXT[problem_type](answer, truth, options)


def _unit(value: float, name: str) -> float:
    """`value` clipped to [0, 1]; raises ValueError for NaN, which only a broken service can send."""
    if math.isnan(value):
        raise ValueError(f"{name} is NaN")
    return min(max(float(value), 0.0), 1.0)


def _numbers_equivalent(answer: str, truth: str) -> bool:
    """Equal to the decimals the truth shows, two at least, and to 0.5%; by mathematics if not numbers."""
    given, wanted = read_number(answer), read_number(truth)
    if given is None or wanted is None:
        return math_equivalent(answer, truth)
    rounding = Fraction(1, 2 * 10 ** max(2, wanted.places or 0))
    return any(abs(a - b) <= min(rounding, abs(b) / 200) for a, b in readings(given, wanted))


def _regression(answer: str, truth: str) -> float:
    given, wanted = read_number(answer), read_number(truth)
    if given is None or wanted is None:
        return 0.0
    pairs = [(as_float(a), as_float(b)) for a, b in readings(given, wanted)]
    return max((metrics.mean_relative_accuracy(a, b) for a, b in pairs), default=0.0)


def _span_iou(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    assert answer.span is not None
    assert truth.span is not None
    return metrics.span_iou(answer.span, truth.span)


def _box_iou(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    assert answer.box is not None
    assert truth.box is not None
    return metrics.box_iou(answer.box, truth.box)


def _tube(answer: StructuredAnswer, truth: StructuredAnswer, settings: RewardSettings) -> float:
    """The sum of tIoU and of the mean sIoU over the true seconds, each times its weight."""
    mean_box_iou = metrics.mean_box_iou(answer.boxes, truth.boxes)
    return settings.time_weight * _span_iou(answer, truth) + settings.box_weight * mean_box_iou


def _segmentation(answer: StructuredAnswer, truth: StructuredAnswer, settings: RewardSettings) -> float:
    """Gives sIoU + G(d⁺; 50) + G(d⁻; 50), and + G(|t̂ − t|; 1) in a video, each times its weight."""
    total = settings.box_weight * _box_iou(answer, truth)
    for given, wanted in (
        (answer.positive_points, truth.positive_points),
        (answer.negative_points, truth.negative_points),
    ):
        distance = metrics.matched_distance(given, wanted)
        total += settings.point_weight * metrics.gaussian(distance, settings.point_sigma)
    if answer.key_time is not None and truth.key_time is not None:
        apart = answer.key_time - truth.key_time
        total += settings.key_time_weight * metrics.gaussian(apart, settings.key_time_sigma)
    return total


_OF_TEXT: Mapping[str, Callable[[str, str, Sequence[str]], float]] = complete(
    "rewards/score.py",
    {
        "multiple choice": lambda answer, truth, options: float(options_equivalent(answer, truth, options)),
        "numerical": lambda answer, truth, _: float(_numbers_equivalent(answer, truth)),
        "regression": lambda answer, truth, _: _regression(answer, truth),
        "OCR": lambda answer, truth, _: metrics.word_accuracy(answer, truth),
        "math": lambda answer, truth, _: float(math_equivalent(answer, truth)),
        "open-ended": lambda answer, truth, _: metrics.mean_rouge(answer, truth),
    },
    (name for name in TABLE if not is_structured(name)),
)
"""Answer, truth and options -> the paper variant's accuracy, where no service gave it."""

_OF_JSON: Mapping[str, Callable[[StructuredAnswer, StructuredAnswer, RewardSettings], float]] = complete(
    "rewards/score.py",
    {
        "temporal grounding": lambda answer, truth, _: _span_iou(answer, truth),
        "spatial grounding": lambda answer, truth, _: _box_iou(answer, truth),
        "spatial-temporal grounding": _tube,
        "tracking": lambda answer, truth, _: metrics.mean_box_iou(answer.boxes, truth.boxes),
        "segmentation": _segmentation,
    },
    of_answer("JSON"),
)
"""The paper variant's accuracy of two answers that fit their schema."""
