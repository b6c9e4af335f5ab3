"""Held-out records as cards of the run's page: the media with both answers on them, and the text beside.

`gallery_item` makes an item from a record, a response and its score; the trainer needs nothing else. Masks
are optional: an image's, or a video's at given times, as the reward service makes them from box and points.
"""

import math
from dataclasses import dataclass, field
from html import escape

import numpy as np

from onethinker_jax.data_pipeline.drawing import data_uri, draw, marks_at
from onethinker_jax.data_pipeline.records import Record, task_of
from onethinker_jax.data_pipeline.views import Masks, timeline_html, view_record
from onethinker_jax.rewards.answers import (
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
    unwrap_answer,
)
from onethinker_jax.rewards.score import (
    DEFAULT_SETTINGS,
    RewardSettings,
    Score,
    Variant,
    max_accuracy,
    max_overall,
)

IMAGE_WIDTH, FRAME_WIDTH = 384, 288  # pixels that a picture and a film's frame are drawn at


@dataclass(frozen=True)
class GalleryItem:
    """One record with a response to it."""

    task: str
    problem_id: int | str
    question: str
    options: tuple[str, ...]
    frames: list[np.ndarray]  # uint8 [H, W, 3] each: the images, or frames of the video
    times: tuple[float, ...] | None  # seconds of each frame; None: images
    duration: float  # seconds; 0: images
    response: str
    reasoning: str | None  # None: the response has no <think>…</think>
    answer: str | None  # None: no <answer>…</answer>
    truth: str
    predicted_marks: StructuredAnswer | None
    true_marks: StructuredAnswer | None
    score: Score
    best: tuple[float, float] = (1.0, 1.0)  # the largest overall reward and accuracy there are for the task
    stage: str = ""  # of training that the response comes from: "SFT", "RL"
    predicted_masks: Masks | None = None
    true_masks: Masks | None = None
    extra: dict[str, float] = field(default_factory=dict)  # further numbers to show: {"mask IoU": 0.81}


def gallery_item(
    record: Record,
    response: str,
    score: Score,
    *,
    variant: Variant = "paper",
    settings: RewardSettings = DEFAULT_SETTINGS,
    stage: str = "",
    masks: Masks | None = None,
    extra: dict[str, float] | None = None,
    fps: float = 2.0,
) -> GalleryItem:
    """An item with its media loaded, at most `views.MAX_FRAMES` frames of a video sampled at `fps`.

    `variant` and `settings` are those that `score` was computed with.

    Raises MediaError when an image or video cannot be read.
    """
    kind = record.problem_type, record.data_type
    answer = extract_answer(response)
    predicted_marks = parse_structured(answer, *kind)
    view = view_record(record, predicted_marks, fps=fps)
    return GalleryItem(
        task=task_of(record),
        problem_id=record.problem_id,
        question=view.question,
        options=record.options,
        frames=view.frames,
        times=view.times,
        duration=view.duration,
        response=response,
        reasoning=extract_thinking(response),
        answer=answer,
        truth=unwrap_answer(record.answer),
        predicted_marks=predicted_marks,
        true_marks=view.marks,
        score=score,
        best=(max_overall(*kind, variant, settings), max_accuracy(*kind, variant, settings)),
        stage=stage,
        predicted_masks=masks,
        true_masks=view.masks,
        extra=extra or {},
    )


def card_html(item: GalleryItem) -> str:
    """The card of an item."""
    score = item.score
    stage = f'<span class="tag">{escape(item.stage)}</span>' if item.stage else ""
    media = _film(item) if item.times is not None else _pictures(item)
    options = "".join(f"<li>{escape(option)}</li>" for option in item.options)
    meters = _meter("accuracy", score.accuracy, item.best[1]) + "".join(
        _meter(name, value)
        for name, value in {"format": score.format, "structure": score.structure, **item.extra}.items()
    )
    if item.answer is None:
        answer = f'<span class="none">no answer tags</span> {escape(short_text(item.response, 400))}'
    else:
        answer = escape(short_text(item.answer, 700))
    reasoning = (
        escape(short_text(item.reasoning, 1200)) if item.reasoning else '<span class="none">none</span>'
    )
    return (
        f'<article class="card" data-task="{escape(item.task)}" data-stage="{escape(item.stage)}" '
        f'data-reward="{score.overall:.4f}"><div class="media">{media}</div><div class="text">'
        f'<header><span class="task">{escape(item.task)}</span>{stage}'
        f'<span class="number">#{escape(str(item.problem_id))}</span>'
        f'<span class="reward" style="--good:{_share(score.overall, item.best[0]):.3f}">'
        f"{score.overall:.2f}</span></header>"
        f'<p class="question">{escape(item.question)}</p>'
        + (f'<ul class="options">{options}</ul>' if options else "")
        + f"<dl><dt>Reasoning</dt><dd class=think>{reasoning}</dd>"
        f'<dt class="predicted">Answer</dt><dd class="mono">{answer}</dd>'
        f'<dt class="true">Truth</dt><dd class="mono">{escape(short_text(item.truth, 700))}</dd></dl>'
        f'<div class="meters">{meters}</div></div></article>'
    )


def _share(value: float, best: float) -> float:
    return min(max(value / best, 0.0), 1.0)


def _meter(name: str, value: float, best: float = 1.0) -> str:
    if not math.isfinite(value):
        return f"<div><span>{escape(name)}</span><b>–</b></div>"
    return (
        f"<div><span>{escape(name)}</span><b>{value:.2f}</b>"
        f'<i class="bar"><i style="width:{100 * _share(value, best):.0f}%"></i></i></div>'
    )


def short_text(text: str, length: int) -> str:
    """The text, cut with an ellipsis where it is longer than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _picture(item: GalleryItem, frame: np.ndarray, time: float | None, width: int) -> str:
    """The frame with both answers on it, as a URI."""
    true_mask = item.true_masks.near(time) if item.true_masks else None
    predicted_mask = item.predicted_masks.near(time) if item.predicted_masks else None
    truth = marks_at(item.true_marks, time, item.times or (), true_mask)
    predicted = marks_at(item.predicted_marks, time, item.times or (), predicted_mask)
    return data_uri(draw(frame, truth, predicted, width))


def _pictures(item: GalleryItem) -> str:
    return "".join(
        f'<img alt="image {number} of record {escape(str(item.problem_id))}" '
        f'src="{_picture(item, frame, None, IMAGE_WIDTH)}">'
        for number, frame in enumerate(item.frames, 1)
    )


def _film(item: GalleryItem) -> str:
    cells = "".join(
        f'<figure><img alt="frame at {time:.1f} s" src="{_picture(item, frame, time, FRAME_WIDTH)}">'
        f"<figcaption>{time:.1f} s</figcaption></figure>"
        for frame, time in zip(item.frames, item.times or (), strict=True)
    )
    length = max(item.duration, *(item.times or (0.0,)))
    timeline = timeline_html(length, {"true": item.true_marks, "predicted": item.predicted_marks})
    return f'<div class="film">{cells}</div>{timeline}'
