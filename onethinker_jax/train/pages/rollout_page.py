"""Pages of rollouts: prompts of a step with all of their samples, as the policy update saw them.

One HTML file a page, and an index of them, that need nothing else. The truth is in the pictures; what a sample
says lies over them and is shown while the sample is open.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from onethinker_jax.data_pipeline.drawing.draw import Annotations, annotations_at, data_uri, draw
from onethinker_jax.data_pipeline.drawing.html_file import facts_html
from onethinker_jax.data_pipeline.drawing.views import View, timeline_html, view_record
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.data_pipeline.records.record import task_of
from onethinker_jax.rewards.answers import (
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
    unwrap_answer,
)
from onethinker_jax.tasks import Task, is_structured
from onethinker_jax.text_output import visible
from onethinker_jax.train.config.run import LogSettings
from onethinker_jax.train.log.log import read_metrics
from onethinker_jax.train.pages.gallery import FRAME_WIDTH, IMAGE_WIDTH, short_text
from onethinker_jax.train.pages.page import select_html, write_document
from onethinker_jax.train.rl.rl_metrics import by_task
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.run_folder import RunFolder

MAX_PAGE_BYTES = 5_000_000
_SHOWN = {"reward": "reward", "accuracy": "accuracy", "format": "format", "truncated": "cut off"}


class RolloutPages:
    """Writes the pages of a run into its folder; `media` reads what they show, videos at `fps`."""

    def __init__(self, run: RunFolder, settings: LogSettings, *, media: MediaReader, fps: float):
        self._folder, self._index, self._metrics = run.rollouts, run.rollouts_index, run.metrics
        self._settings, self._media, self._fps = settings, media, fps

    def wanted(self, step: int) -> bool:
        """Whether the settings ask for a page of this step."""
        every = self._settings.rollouts_every
        return every > 0 and step % every == 0

    def write(
        self, step: int, groups: Sequence[Group], advantages: np.ndarray, metrics: Mapping[str, float]
    ) -> None:
        """Writes the page of a step and the index; `advantages` are float [groups, G] of all its groups.

        A prompt whose media cannot be read any more is shown with the reason. Raises OSError.
        """
        self._folder.mkdir(exist_ok=True)
        before = sorted(path for path in self._folder.glob("step_*.html") if path.stem < _stem(step))
        links = [(path.name, _title(path)) for path in before[-1:]] + [(self._index.name, "all pages")]
        scale = float(np.abs(advantages).max()) or 1.0
        chosen = self._affordable(groups, advantages, scale)
        write_document(
            self._folder / f"{_stem(step)}.html",
            f"Rollouts of step {step:,}",
            [
                _head(step, len(groups), metrics, links),
                _controls(chosen),
                f"<main>{''.join(chosen.values())}</main>",
            ],
            styles=["page", "rollout_page"],
            script="rollout_page",
        )
        self._write_index(step, metrics)

    def _affordable(
        self, groups: Sequence[Group], advantages: np.ndarray, scale: float
    ) -> dict[tuple[Task, int], str]:
        """(Task, number) -> card of as many groups as a page may hold, taken from each task in turn.

        Tasks with boxes, points or spans come first.
        """
        numbers = {id(group): number for number, group in enumerate(groups)}
        queues = {task: list(groups_of_task) for task, groups_of_task in by_task(groups).items()}
        queues = dict(sorted(queues.items(), key=lambda item: not is_structured(item[0].problem_type)))
        order = list(queues)
        cards: dict[tuple[Task, int], str] = {}
        size = 0
        while any(queues.values()):
            for task in [task for task, queue in queues.items() if queue]:
                group = queues[task].pop(0)
                number = numbers[id(group)]
                card = visible(self._card(group, advantages[number], number, scale))
                size += len(card.encode())
                if len(cards) == self._settings.rollout_groups or size > MAX_PAGE_BYTES:
                    queues.clear()
                    break
                cards[task, number] = card
        return dict(sorted(cards.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))

    def _card(self, group: Group, advantages: np.ndarray, number: int, scale: float) -> str:
        record, texts = group.record, group.samples.texts
        answers = [extract_answer(text) for text in texts]
        annotations = [parse_structured(answer, record.problem_type, record.data_type) for answer in answers]
        order = sorted(range(len(texts)), key=lambda i: (-group.scores[i].overall, i))
        try:
            view = view_record(record, *annotations, fps=self._fps, media=self._media)
            media = _media(view, annotations, order[0])
        except MediaError as error:
            media = f'<p class="none">{escape(str(error))}</p>'
        question = words_of(record.problem).strip()
        options = "".join(f"<li>{escape(option)}</li>" for option in record.options)
        samples = "".join(
            _sample(group, i, float(advantages[i]), number, scale, opened=i == order[0]) for i in order
        )
        accuracy = np.mean([score.accuracy for score in group.scores])
        reward, spread = np.mean(group.stats.rewards), np.std(group.stats.rewards)
        return (
            f'<article class="card beside" data-task="{escape(str(task_of(record)))}" data-reward="{reward:.4f}" '
            f'data-spread="{spread:.4f}"><div class="media">{media}</div><div class="text">'
            f'<header><span class="task">{escape(str(task_of(record)))}</span>'
            f'<span class="number">#{escape(str(record.problem_id))}</span>'
            f'<span class="soft">mean reward {reward:.2f} ± {spread:.2f}</span>'
            f'<span class="badge" style="--good:{_good(group.stats.accuracy)}">'
            f"<small>mean accuracy</small> {accuracy:.2f}</span></header>"
            f'<p class="question">{escape(question)}</p>'
            + (f'<ul class="options">{options}</ul>' if options else "")
            + f'<dl><dt class="true">Truth</dt><dd class="mono">{escape(short_text(unwrap_answer(record.answer), 700))}'
            f'</dd></dl><div class="samples"><div class="columns"><span>accuracy</span><span>advantage</span>'
            "<span>reward</span><span>format</span><span>structure</span><span>tokens</span><span>end</span></div>"
            f"{samples}</div></div></article>"
        )

    def _write_index(self, step: int, metrics: Mapping[str, float]) -> None:
        rows = {row["step"]: row for row in read_metrics(self._metrics) if row["stage"] == "rl"}
        known: dict[int, Mapping[str, float]] = {**rows, step: metrics}
        lines = []
        for path in sorted(self._folder.glob("step_*.html"), reverse=True):
            of_step = known.get(int(path.stem.removeprefix("step_")), {})
            cells = "".join(
                f'<td data-label="{label}">{_number(of_step.get(name))}</td>'
                for name, label in _SHOWN.items()
            )
            lines.append(f'<tr><td><a href="{path.name}">{_title(path)}</a></td>{cells}</tr>')
        head = "".join(f"<th>{name}</th>" for name in _SHOWN.values())
        table = f"<thead><tr><th>page</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        body = [
            "<h1>Rollouts</h1>",
            '<p class="lead">Samples as the policy update saw them, newest first; means are over all samples drawn '
            f'for the step.</p><div class="sheet stack pages"><table>{table}</table></div>',
        ]
        write_document(self._index, "Rollouts", body, styles=["page"])


def _stem(step: int) -> str:
    return f"step_{step:08}"


def _title(path: Path) -> str:
    return f"step {int(path.stem.removeprefix('step_')):,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _good(accuracy: float) -> str:
    """0 … 1, red … green."""
    return f"{min(max(accuracy, 0.0), 1.0):.3f}"


def _head(step: int, groups: int, metrics: Mapping[str, float], links: Sequence[tuple[str, str]]) -> str:
    facts = {
        "Groups trained on": f"{groups}",
        "Prompts drawn": f"{metrics.get('prompts_drawn', 0):.0f}",
        **{f"Mean {label}": _number(metrics[name]) for name, label in _SHOWN.items() if name in metrics},
        "Mean |A|": _number(metrics.get("advantage_abs")),
        "Policy tokens": f"{metrics.get('trained_tokens', 0):,.0f}",
    }
    listed = " · ".join(f'<a href="{to}">{text}</a>' for to, text in links)
    return f'<h1>Rollouts of step {step:,}</h1><p class="links">{listed}</p>{facts_html(facts)}'


def _controls(cards: Mapping[tuple[Task, int], str]) -> str:
    tasks = dict.fromkeys(str(task) for task, _ in cards)
    orders = [
        ("", "by task"),
        ("-reward", "highest reward first"),
        ("reward", "lowest reward first"),
        ("-spread", "most spread first"),
    ]
    return (
        '<div class="controls">'
        + select_html("task", "Task", [("", "all"), *((task, task) for task in tasks)])
        + select_html("order", "Order", orders)
        + '<label>Mean reward <input id="least" type="number" step="0.1" placeholder="from"> – '
        '<input id="most" type="number" step="0.1" placeholder="to"></label>'
        f'<span class="soft"><span id="shown">{len(cards)}</span> of {len(cards)} prompts</span>'
        '<span class="swatches"><span><i></i>truth</span><span><i class="dash"></i>the open sample</span></span></div>'
    )


def _sample(group: Group, index: int, advantage: float, number: int, scale: float, *, opened: bool) -> str:
    """A line of numbers that opens to the sample's reasoning and answer."""
    score, text = group.scores[index], group.samples.texts[index]
    ended, answer, thinking = group.samples.ended[index], extract_answer(text), extract_thinking(text)
    share = 50 * min(abs(advantage) / scale, 1.0)
    side = f"left:50%;width:{share:.1f}%" if advantage >= 0 else f"right:50%;width:{share:.1f}%"
    accuracy = score.accuracy / group.max_accuracy if group.max_accuracy else 0.0
    if answer is None:
        parts = (
            '<dt class="predicted">Response <span class="none">no answer tags</span></dt>'
            f'<dd class="mono">{escape(short_text(text, 2000))}</dd>'
        )
    else:
        reasoning = escape(short_text(thinking, 4000)) if thinking else '<span class="none">none</span>'
        parts = (
            f'<dt>Reasoning</dt><dd class="think">{reasoning}</dd>'
            f'<dt class="predicted">Answer</dt><dd class="mono">{escape(short_text(answer, 700))}</dd>'
        )
    return (
        f'<details class="sample" name="group{number}" data-sample="{index}"{" open" if opened else ""}><summary>'
        f'<span class="badge" style="--good:{_good(accuracy)}">{score.accuracy:.2f}</span>'
        f'<span class="advantage{"" if advantage >= 0 else " down"}"><i style="{side}"></i>'
        f"<b>{advantage:+.2f}</b></span>"
        f'<span data-label="reward">{score.overall:.2f}</span><span data-label="format">{score.format:.0f}</span>'
        f'<span data-label="structure">{score.structure:.2f}</span>'
        f'<span data-label="tokens">{len(group.samples.tokens[index])}</span>'
        f'<span class="{"" if ended else "none"}">{"end token" if ended else "cut off"}</span></summary>'
        f"<dl>{parts}</dl></details>"
    )


def _media(view: View, annotations: Sequence[StructuredAnswer | None], first: int) -> str:
    """The pictures with the truth in them and every sample's annotations over them, the `first` one's shown."""
    if view.times is None:
        cells = [
            f'<div class="frame">{_frame(view, index, None, annotations, first, IMAGE_WIDTH)}</div>'
            for index in range(len(view.frames))
        ]
        return "".join(cells)
    cells = [
        f'<figure><div class="frame">{_frame(view, index, time, annotations, first, FRAME_WIDTH)}</div>'
        f"<figcaption>{time:.1f} s</figcaption></figure>"
        for index, time in enumerate(view.times)
    ]
    length = max(view.duration, *view.times)
    lines = [
        _of_sample(index, first, timeline_html(length, {"true": view.annotations, "predicted": one}))
        for index, one in enumerate(annotations)
    ]
    return f'<div class="film">{"".join(cells)}</div>{"".join(lines)}'


def _frame(
    view: View,
    index: int,
    time: float | None,
    annotations: Sequence[StructuredAnswer | None],
    first: int,
    width: int,
) -> str:
    times = view.times or ()
    mask = view.masks.near(time) if view.masks else None
    picture = data_uri(
        draw(view.frames[index], annotations_at(view.annotations, time, times, mask), Annotations(), width)
    )
    over = (
        _of_sample(number, first, "".join(_shapes(annotations_at(one, time, times))))
        for number, one in enumerate(annotations)
    )
    return f'<img alt="picture {index + 1}" src="{picture}">{"".join(over)}'


def _of_sample(number: int, first: int, html: str) -> str:
    """Something that is shown while the sample is open."""
    return (
        f'<div class="of-sample" data-sample="{number}"{"" if number == first else " hidden"}>{html}</div>'
        if html
        else ""
    )


def _shapes(annotations: Annotations) -> Iterator[str]:
    """Boxes and points as elements placed by shares of the picture; what lies outside is held at its edge."""

    def at(value: float) -> float:
        return min(max(value, 0.0), 1000.0) / 10

    if annotations.box is not None:
        x1, y1, x2, y2 = map(at, annotations.box)
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        yield f'<i class="box" style="left:{x1:.1f}%;top:{y1:.1f}%;width:{x2 - x1:.1f}%;height:{y2 - y1:.1f}%"></i>'
    track = annotations.track if len(annotations.track) > 1 else ()
    kinds = (("dot", track), ("minus", annotations.negative_points), ("plus", annotations.positive_points))
    for kind, points in kinds:
        for x, y in points:
            yield f'<i class="point {kind}" style="left:{at(x):.1f}%;top:{at(y):.1f}%"></i>'
