"""The page of a run: what it learned on held-out records, its curves, and a gallery of answers.

One HTML file that needs nothing else: styles, script, curves (SVG) and pictures (base64) are inside, so that
it can be mailed, archived or opened from disk. Readable in light and dark, and without the script.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from onethinker_jax.train.charts import PANELS, panel_html, panels
from onethinker_jax.train.gallery import GalleryItem, card_html

MAX_GALLERY_BYTES = 5_000_000


@dataclass(frozen=True)
class TaskSummary:
    """One task on the held-out records, one number for every stage of `Summary.stages` (None: not known)."""

    task: str
    records: int
    reward: Sequence[float | None]  # mean overall reward
    format_rate: Sequence[float | None] = ()  # share of responses in the right format, 0-1
    mask_iou: Sequence[float | None] = ()  # segmentation: mean IoU of the masks, 0-1


@dataclass(frozen=True)
class Summary:
    """The table at the top of the page."""

    tasks: Sequence[TaskSummary]
    stages: Sequence[str] = ("fresh", "SFT", "RL")
    facts: Mapping[str, str] = field(
        default_factory=dict
    )  # "Model" -> "3.1M parameters" ..., shown as they are
    lead: str = ""  # a sentence or two under the title


def write_page(
    path: str | Path,
    *,
    title: str,
    summary: Summary,
    curves: Iterable[Mapping[str, Any]],
    gallery: Sequence[GalleryItem],
    links: Mapping[str, str] | None = None,
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file; its directory must exist.
        title: of the page and the window.
        summary: the table; a last row with the mean over all records is added.
        curves: rows of the run's metrics file (`log.read_metrics`).
        gallery: cards, grouped by task on the page, tasks with boxes, points or spans first. Past about 5 MB
            of them the rest is left out, evenly over the tasks, and the page says so.
        links: text -> address of further pages beside this one.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if summary.lead:
        body.append(f'<p class="lead">{escape(summary.lead)}</p>')
    if summary.facts:
        body.append(facts_html(summary.facts))
    if links:
        listed = " · ".join(f'<a href="{escape(to)}">{escape(text)}</a>' for text, to in links.items())
        body.append(f'<p class="links">{listed}</p>')
    if summary.tasks:
        body.append(_summary_html(summary))
    body.append(_curves_html(curves))
    if gallery:
        body.append(_gallery_html(gallery))
    write_document(path, title, body, styles=["page"], script="page")


def write_document(
    path: str | Path, title: str, body: Sequence[str], *, styles: Sequence[str], script: str | None = None
) -> None:
    """Writes an HTML file with our style sheets and script of these names inside, whole or not at all."""
    files = resources.files("onethinker_jax.train")
    style = "".join(files.joinpath(f"{name}.css").read_text("utf-8") for name in styles)
    code = files.joinpath(f"{script}.js").read_text("utf-8") if script else ""
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body>{''.join(body)}"
        "<footer>Written by onethinker_jax. Everything on this page is inside this file.</footer>"
        f"<script>{code}</script></body></html>\n"
    )
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def facts_html(facts: Mapping[str, str]) -> str:
    """Name and value pairs in boxes beside each other."""
    boxes = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{boxes}</dl>'


def overall(tasks: Sequence[TaskSummary], stages: int) -> TaskSummary:
    """The mean over all records; of the masks, over the records that have one."""

    def mean(name: str, stage: int) -> float | None:
        found = [
            (task.records, getattr(task, name)[stage])
            for task in tasks
            if stage < len(getattr(task, name)) and getattr(task, name)[stage] is not None
        ]
        total = sum(records for records, _ in found)
        return sum(records * value for records, value in found) / total if total else None

    columns = {name: [mean(name, i) for i in range(stages)] for name in ("reward", "format_rate", "mask_iou")}
    return TaskSummary("all tasks", sum(task.records for task in tasks), **columns)


def _summary_html(summary: Summary) -> str:
    stages = summary.stages
    rows = [*summary.tasks, overall(summary.tasks, len(stages))]
    formats = any(value is not None for row in rows for value in row.format_rate)
    masks = any(value is not None for row in rows for value in row.mask_iou)
    groups = [
        ("Reward", True),
        *([("Right format", formats)] if formats else []),
        *([("Mask IoU", masks)] if masks else []),
    ]
    top = "".join(
        f'<th colspan="{len(stages) + (2 if name == "Reward" else 0)}">{name}</th>' for name, _ in groups
    )
    names = "".join(
        f'<th><i class="key stage{i % 3}"></i>{escape(stage)}</th>' for i, stage in enumerate(stages)
    )
    plain = "".join(f"<th>{escape(stage)}</th>" for stage in stages)
    head = (
        f"<tr><th></th><th></th>{top}</tr><tr><th>Task</th><th>Records</th>{names}<th></th><th>Gain</th>"
        f"{plain * (len(groups) - 1)}</tr>"
    )
    scale = max([1.0, *(value for row in rows for value in row.reward if value is not None)])
    body = "".join(_summary_row(row, len(stages), scale, formats, masks) for row in rows)
    gain = f"Gain is {escape(stages[-1])} over {escape(stages[-2])}." if len(stages) > 1 else ""
    return (
        "<h2>Held-out records</h2><p class=lead>Mean reward of greedy answers to records that no stage was "
        f"trained on. {gain}</p>"
        f'<div class="sheet"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    )


def _summary_row(row: TaskSummary, stages: int, scale: float, formats: bool, masks: bool) -> str:
    cells = [f"<td>{escape(row.task)}</td><td>{row.records:,}</td>"]
    cells += [f"<td>{_number(value)}</td>" for value in _filled(row.reward, stages)]
    bars = "".join(
        f'<i class="stage{i % 3}" style="width:{100 * max(value, 0) / scale:.1f}%" title="{value:.3f}"></i>'
        for i, value in enumerate(row.reward)
        if value is not None
    )
    cells.append(f'<td class="bars">{bars}</td>')
    last = [value for value in row.reward[-2:] if value is not None]
    if len(last) == 2:
        gain = last[1] - last[0]
        share, down = min(abs(gain) / 0.2, 1.0), " down" if gain < 0 else ""
        cells.append(f'<td class="gain{down}" style="--share:{share:.2f}">{gain:+.3f}</td>')
    else:
        cells.append("<td>–</td>")
    if formats:
        cells += [
            f"<td>{'–' if value is None else f'{100 * value:.0f}%'}</td>"
            for value in _filled(row.format_rate, stages)
        ]
    if masks:
        cells += [f"<td>{_number(value)}</td>" for value in _filled(row.mask_iou, stages)]
    return f"<tr>{''.join(cells)}</tr>"


def _filled(values: Sequence[float | None], length: int) -> list[float | None]:
    return [*values, *([None] * (length - len(values)))]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _curves_html(curves: Iterable[Mapping[str, Any]]) -> str:
    """The panels a reader looks for; the others folded away behind them."""
    made = [(metric in PANELS, panel_html(stage, metric, series)) for stage, metric, series in panels(curves)]
    first = "".join(html for known, html in made if known)
    others = "".join(html for known, html in made if not known)
    if not made:
        return ""
    if others:
        others = (
            '<details class="more"><summary>More curves</summary>'
            f'<div class="panels">{others}</div></details>'
        )
    return f'<h2>Curves</h2><div class="panels">{first}</div>{others}'


def _gallery_html(gallery: Sequence[GalleryItem]) -> str:
    visual = {item.task for item in gallery if item.true_marks}
    tasks = sorted({item.task for item in gallery}, key=lambda task: (task not in visual, task))
    kept = _affordable(gallery, tasks)
    cards = "".join(kept[index] for index in sorted(kept, key=lambda i: (tasks.index(gallery[i].task), i)))
    stages = sorted({item.stage for item in gallery if item.stage})
    left_out = len(gallery) - len(kept)
    note = f" ({left_out} more are left out to keep the page small.)" if left_out else ""
    stage = select_html("stage", "Stage", [("", "all"), *((s, s) for s in stages)]) if len(stages) > 1 else ""
    controls = (
        select_html("task", "Task", [("", "all"), *((task, task) for task in tasks)])
        + stage
        + select_html("order", "Order", [("", "by task"), ("high", "best first"), ("low", "worst first")])
        + f'<span class="soft"><span id="shown">{len(kept)}</span> of {len(kept)}</span>'
        '<span class="swatches"><span><i></i>truth</span><span><i class="dash"></i>prediction</span></span>'
    )
    return (
        "<h2>Answers</h2><p class=lead>Held-out records with the true and the predicted boxes, points, "
        f"tracks, masks and time spans drawn on them.{note}</p>"
        f'<div class="controls">{controls}</div><div id="gallery">{cards}</div>'
    )


def _affordable(gallery: Sequence[GalleryItem], tasks: Sequence[str]) -> dict[int, str]:
    """Index -> card of as many items as the page may hold, taken from each task in turn."""
    queues = {task: [i for i, item in enumerate(gallery) if item.task == task] for task in tasks}
    kept: dict[int, str] = {}
    size = 0
    while any(queues.values()):
        for queue in queues.values():
            if not queue:
                continue
            index = queue.pop(0)
            card = card_html(gallery[index])
            size += len(card.encode())
            if size > MAX_GALLERY_BYTES:
                return kept
            kept[index] = card
    return kept


def select_html(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    """A labelled choice among (value, text) pairs."""
    choices = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    return f'<label>{label} <select id="{name}">{choices}</select></label>'
