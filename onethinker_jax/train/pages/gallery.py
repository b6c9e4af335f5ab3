"""Held-out records as cards of the run's page: what every stage answered to the same record, side by side.

`stage_answer` reads a stage's response, `gallery_item` puts a record together with the answers of its stages; the
trainer needs nothing else. Masks are optional: an image's, or a video's at given times, as the reward service makes
them from box and points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from onethinker_jax.data_pipeline.drawing.media_html import media_html
from onethinker_jax.data_pipeline.drawing.views import Masks, View, view_record
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.rewards.answers import (
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
    unwrap_answer,
)
from onethinker_jax.rewards.score import RewardSettings, Score, max_accuracy, max_overall

IMAGE_WIDTH, FRAME_WIDTH = 384, 288  # pixels that a picture and a film's frame are drawn at


@dataclass(frozen=True)
class StageAnswer:
    """What one stage of training answered to a record."""

    stage: str  # "after SFT", "after RL"
    response: str
    reasoning: str | None  # None: the response has no <think>…</think>
    answer: str | None  # None: no <answer>…</answer>
    annotations: StructuredAnswer | None
    score: Score
    masks: Masks | None = None
    extra: dict[str, float] = field(default_factory=dict)  # further numbers to show: {"mask IoU": 0.81}


@dataclass(frozen=True)
class GalleryItem:
    """One record with its stages' answers, in the order of training."""

    task: str
    problem_id: int | str
    question: str
    options: tuple[str, ...]
    frames: list[np.ndarray]  # uint8 [H, W, 3] each: the images, or frames of the video
    times: tuple[float, ...] | None  # seconds of each frame; None: images
    duration: float  # seconds; 0: images
    truth: str
    true_annotations: StructuredAnswer | None
    true_masks: Masks | None
    answers: tuple[StageAnswer, ...]
    best: tuple[float, float] = (1.0, 1.0)  # the largest overall reward and accuracy there are for the task

    @property
    def has_annotations(self) -> bool:
        """Whether there is anything to be drawn on the media."""
        parts = (self.true_annotations, self.true_masks, *(one.annotations for one in self.answers))
        return any(part is not None for part in parts)


def stage_answer(
    record: Record,
    response: str,
    score: Score,
    *,
    stage: str,
    masks: Masks | None = None,
    extra: dict[str, float] | None = None,
) -> StageAnswer:
    """A stage's response to `record`, read; any text at all is."""
    answer = extract_answer(response)
    return StageAnswer(
        stage,
        response,
        extract_thinking(response),
        answer,
        parse_structured(answer, record.problem_type, record.data_type),
        score,
        masks,
        extra or {},
    )


def gallery_item(
    record: Record,
    answers: Sequence[StageAnswer],
    *,
    settings: RewardSettings,
    fps: float = 2.0,
) -> GalleryItem:
    """An item with its media loaded, at most `views.MAX_FRAMES` frames of a video sampled at `fps`.

    `settings` are those that the answers' scores were computed with.

    Raises MediaError when an image or video cannot be read.
    """
    kind = record.problem_type, record.data_type
    view = view_record(record, *(one.annotations for one in answers), fps=fps)
    return GalleryItem(
        task=str(task_of(record)),
        problem_id=record.problem_id,
        question=view.question,
        options=record.options,
        frames=view.frames,
        times=view.times,
        duration=view.duration,
        truth=unwrap_answer(record.answer),
        true_annotations=view.annotations,
        true_masks=view.masks,
        answers=tuple(answers),
        best=(
            max_overall(*kind, settings.variant, settings),
            max_accuracy(*kind, settings.variant, settings),
        ),
    )


def card_html(item: GalleryItem) -> str:
    """The card of an item: media once where answers are texts, else with each stage's answer drawn on them."""
    shares = [_share(one.score.accuracy, item.best[1]) for one in item.answers]
    options = "".join(f"<li>{escape(option)}</li>" for option in item.options)
    about = (
        f'<header><span class="task">{escape(item.task)}</span>'
        f'<span class="number">#{escape(str(item.problem_id))}</span></header>'
        f'<p class="question">{escape(item.question)}</p>'
        + (f'<ul class="options">{options}</ul>' if options else "")
        + f'<dl><dt class="true">Truth</dt><dd class="mono">{escape(short_text(item.truth, 700))}</dd></dl>'
    )
    last = len(item.answers) - 1
    stages = "".join(
        _stage_html(item, one, shares[number], after=number == last)
        for number, one in enumerate(item.answers)
    )
    body = f'{about}<div class="stages">{stages}</div>'
    if not item.has_annotations:
        body = f'<div class="media">{_media(item, None)}</div><div class="text">{body}</div>'
    return (
        f'<article class="card{"" if item.has_annotations else " beside"}" data-task="{escape(item.task)}" '
        f'data-accuracy="{shares[-1]:.4f}" data-change="{shares[-1] - shares[0]:.4f}">{body}</article>'
    )


def _stage_html(item: GalleryItem, one: StageAnswer, share: float, *, after: bool) -> str:
    """A stage's answer: how right it is, the media with it, the text, the parts of its reward."""
    if one.answer is None:
        answer = f'<span class="none">no answer tags</span> {escape(short_text(one.response, 400))}'
    else:
        answer = escape(short_text(one.answer, 700)) or '<span class="none">empty</span>'
    reasoning = escape(short_text(one.reasoning, 1200)) if one.reasoning else '<span class="none">none</span>'
    meters = [("reward", one.score.overall, item.best[0]), ("format", one.score.format, 1.0)]
    meters += [
        ("structure", one.score.structure, 1.0),
        *((name, value, 1.0) for name, value in one.extra.items()),
    ]
    media = f'<div class="media">{_media(item, one)}</div>' if item.has_annotations else ""
    return (
        f'<section class="stage{" after" if after else ""}"><header><b>{escape(one.stage)}</b>'
        f"{badge_html(one.score.accuracy, share, item.best[1])}</header>{media}"
        f'<dl><dt class="predicted">Answer</dt><dd class="mono">{answer}</dd>'
        f'<dt>Reasoning</dt><dd class="think">{reasoning}</dd></dl>'
        f'<div class="meters">{"".join(_meter(*meter) for meter in meters)}</div></section>'
    )


def badge_html(accuracy: float, share: float, most: float = 1.0) -> str:
    """How right an answer is, from red (`share` 0 of what its task gives) to green (1)."""
    of_most = "" if most == 1 else f" of {most:g}"
    return f'<span class="badge" style="--good:{share:.3f}"><small>accuracy</small> {accuracy:.2f}{of_most}</span>'


def _share(value: float, best: float) -> float:
    return min(max(value / best, 0.0), 1.0) if best > 0 and math.isfinite(value) else 0.0


def _meter(name: str, value: float, best: float = 1.0) -> str:
    if not math.isfinite(value):
        return f"<div><span>{escape(name)}</span><b>–</b></div>"
    of_best = "" if best == 1 else f" / {best:g}"
    return (
        f"<div><span>{escape(name)}</span><b>{value:.2f}{of_best}</b>"
        f'<i class="bar"><i style="width:{100 * _share(value, best):.0f}%"></i></i></div>'
    )


def short_text(text: str, length: int) -> str:
    """The text, cut with an ellipsis where it is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _media(item: GalleryItem, one: StageAnswer | None) -> str:
    """The item's pictures or film with the truth and an answer on them; None: as they are."""
    view = View(item.question, item.frames, item.times, item.duration, item.true_annotations, item.true_masks)
    return media_html(
        view,
        None if one is None else one.annotations,
        None if one is None else one.masks,
        image_width=IMAGE_WIDTH,
        frame_width=FRAME_WIDTH,
        drawn=one is not None,
    )
