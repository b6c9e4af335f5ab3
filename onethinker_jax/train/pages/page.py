"""The page of a run: what it learned on held-out records, the answers themselves, and its curves.

One HTML file that needs nothing else: styles, script, curves (SVG) and pictures (base64) are inside, so that
it can be mailed, archived or opened from disk. Readable in light and dark, on a phone, and without the script.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.drawing.html_file import facts_html, write_html
from onethinker_jax.text_output import visible
from onethinker_jax.train.pages.charts import PANELS, panel_html, panels
from onethinker_jax.train.pages.gallery import GalleryItem, card_html
from onethinker_jax.train.pages.intervals import METHOD, Change, signed

MAX_GALLERY_BYTES = 8_000_000


@dataclass(frozen=True)
class TaskSummary:
    """One task on the held-out records, one number for every stage of `Summary.stages` (None: not known)."""

    task: str
    records: int
    reward: Sequence[float | None]  # mean overall reward
    accuracy: Sequence[float | None] = ()  # mean accuracy
    format_rate: Sequence[float | None] = ()  # share of responses in the right format, 0-1
    mask_iou: Sequence[float | None] = ()  # segmentation: mean IoU of the masks, 0-1
    reward_change: Change | None = None  # from the last stage but one to the last
    accuracy_change: Change | None = None
    best: tuple[float, float] = (1.0, 1.0)  # the largest reward and accuracy there are for the task


@dataclass(frozen=True)
class Summary:
    """The table at the top of the page: a row a task, a row a source of the records, and one over all records."""

    tasks: Sequence[TaskSummary]
    total: TaskSummary | None = None
    sources: Sequence[TaskSummary] = ()
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
        summary: the table.
        curves: rows of the run's metrics file (`log.read_metrics`).
        gallery: cards, grouped by task on the page, tasks with boxes, points or spans first. Past about 8 MB
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
    if gallery:
        body.append(_gallery_html(gallery))
    body.append(_curves_html(curves))
    write_document(path, title, body, styles=["page"], script="page")


def write_document(
    path: str | Path, title: str, body: Sequence[str], *, styles: Sequence[str], script: str | None = None
) -> None:
    """Writes an HTML file with our style sheets and script of these names inside, whole or not at all."""
    files = resources.files("onethinker_jax.train.pages")
    style = "".join(files.joinpath(f"{name}.css").read_text("utf-8") for name in styles)
    code = files.joinpath(f"{script}.js").read_text("utf-8") if script else ""
    write_html(Path(path), title, style, "".join(body), script=code)


def _summary_html(summary: Summary) -> str:
    stages = summary.stages
    rows = [*summary.tasks, *summary.sources, *([summary.total] if summary.total else [])]
    differ = len({row.best for row in summary.tasks}) > 1
    if differ:
        most = "The largest reward and accuracy differ by task and stand in the table."
    else:
        reward, accuracy = summary.tasks[0].best
        most = f"The largest accuracy is {accuracy:g}, the largest reward {reward:g}."
    change = (
        f"Change is {escape(stages[-1])} over {escape(stages[-2])}, record by record; grey: within the noise. {METHOD}."
        if len(stages) > 1
        else ""
    )
    keys = "".join(
        f'<th{" class=first" if i == 0 else ""}><i class="key stage{i % 3}"></i>{escape(stage)}</th>'
        for i, stage in enumerate(stages)
    )
    at_most = "<th>at most</th>" if differ else ""
    wide = len(stages) + differ
    top = f'<th class="first" colspan="{wide + 2}">Accuracy</th><th class="first" colspan="{wide + 1}">Reward</th>'
    head = (
        f"<tr><th></th><th></th>{top}</tr><tr><th>Task</th><th>Records</th>{keys}<th></th><th>change</th>{at_most}"
        f"{keys}<th>change</th>{at_most}</tr>"
    )
    body = "".join(_summary_row(row, stages, differ, last=row is summary.total) for row in rows)
    return (
        "<h2>Held-out records</h2><p class=lead>Greedy answers to records that no stage was trained on. "
        f"{most} {change}</p>"
        f'<div class="sheet stack" style="--across:{len(stages) + 1}"><table><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div>{_parts_html(summary, rows)}"
    )


def _summary_row(row: TaskSummary, stages: Sequence[str], differ: bool, *, last: bool) -> str:
    cells = [
        f'<td data-note="{row.records:,} records">{escape(row.task)}</td><td class="wide-only">{row.records:,}</td>'
    ]
    columns = (
        ("accuracy", row.accuracy, row.accuracy_change, row.best[1]),
        ("reward", row.reward, row.reward_change, row.best[0]),
    )
    for name, values, change, best in columns:
        filled = _filled(values, len(stages))
        cells += [
            _value(value, f"{'' if number else name}\n{stage}", first=number == 0)
            for number, (stage, value) in enumerate(zip(stages, filled, strict=True))
        ]
        if name == "accuracy":
            cells.append(f'<td class="bars wide-only">{_bars(filled, best)}</td>')
        cells.append(_change(change))
        if differ:
            cells.append(f'<td class="soft wide-only">{best:.3g}</td>')
    return f"<tr{' class=all' if last else ''}>{''.join(cells)}</tr>"


def _bars(values: Sequence[float | None], best: float) -> str:
    return "".join(
        f'<i class="stage{i % 3}" style="width:{100 * min(max(value, 0) / (best or 1), 1):.1f}%" '
        f'title="{value:.3f}"></i>'
        for i, value in enumerate(values)
        if value is not None
    )


def _change(change: Change | None) -> str:
    """The change and its interval; coloured only where the interval leaves out 0."""
    if change is None:
        return '<td class="gain same" data-label="\nchange">–</td>'
    mean, _, _ = change.text().partition(" ")
    if change.interval is None:
        sure = "too few to tell"
    elif change.interval == (0.0, 0.0):
        sure = "none changed"
    else:
        sure = f"{signed(change.interval[0])} to {signed(change.interval[1])}"
    return f'<td class="gain {change.direction}" data-label="\nchange">{mean}<small>{sure}</small></td>'


def _value(value: float | None, label: str, *, first: bool = False, share: bool = False) -> str:
    text = "–" if value is None else f"{100 * value:.0f}%" if share else f"{value:.3f}"
    return f'<td{" class=first" if first else ""} data-label="{escape(label)}">{text}</td>'


def _parts_html(summary: Summary, rows: Sequence[TaskSummary]) -> str:
    """The table of formats and masks, folded away; nothing where neither is known."""
    groups = [
        (title, name, share)
        for title, name, share in (("Right format", "format_rate", True), ("mask IoU", "mask_iou", False))
        if any(value is not None for row in rows for value in getattr(row, name))
    ]
    if not groups:
        return ""
    count = len(summary.stages)
    head = "".join(f'<th class="first" colspan="{count}">{title}</th>' for title, _, _ in groups)
    names = "".join(
        f"<th{' class=first' if i == 0 else ''}>{escape(stage)}</th>"
        for i, stage in enumerate(summary.stages)
    )
    body = "".join(
        f"<tr{' class=all' if row is summary.total else ''}><td>{escape(row.task)}</td>"
        + "".join(
            _value(value, f"{'' if i else title}\n{stage}", first=i == 0, share=share)
            for title, name, share in groups
            for i, (stage, value) in enumerate(
                zip(summary.stages, _filled(getattr(row, name), count), strict=True)
            )
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<details class="more"><summary>{" and ".join(title for title, _, _ in groups)} by task</summary>'
        f'<div class="sheet stack" style="--across:{count}"><table><thead><tr><th></th>{head}</tr>'
        f"<tr><th>Task</th>{names * len(groups)}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _filled(values: Sequence[float | None], length: int) -> list[float | None]:
    return [*values, *([None] * (length - len(values)))]


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
    visual = {item.task for item in gallery if item.true_annotations}
    tasks = sorted({item.task for item in gallery}, key=lambda task: (task not in visual, task))
    kept = _affordable(gallery, tasks)
    cards = "".join(kept[index] for index in sorted(kept, key=lambda i: (tasks.index(gallery[i].task), i)))
    left_out = len(gallery) - len(kept)
    note = f" ({left_out} more are left out to keep the page small.)" if left_out else ""
    stages = " and ".join(dict.fromkeys(one.stage for item in gallery for one in item.answers))
    orders = [
        ("", "by task"),
        ("-change", "most improved first"),
        ("change", "most worsened first"),
        ("-accuracy", "best first"),
        ("accuracy", "worst first"),
    ]
    controls = (
        select_html("task", "Task", [("", "all"), *((task, task) for task in tasks)])
        + select_html("order", "Order", orders)
        + f'<span class="soft"><span id="shown">{len(kept)}</span> of {len(kept)}</span>'
        '<span class="swatches"><span><i></i>truth</span><span><i class="dash"></i>answer</span></span>'
    )
    return (
        f"<h2>Answers</h2><p class=lead>The same held-out records {escape(stages)}, with the true and the answered "
        f"boxes, points, tracks, masks and time spans drawn on them.{note}</p>"
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
            card = visible(card_html(gallery[index]))
            size += len(card.encode())
            if size > MAX_GALLERY_BYTES:
                return kept
            kept[index] = card
    return kept


def select_html(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    """A labelled choice among (value, text) pairs."""
    choices = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    return f'<label>{label} <select id="{name}">{choices}</select></label>'
