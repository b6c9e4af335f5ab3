"""The report page of an annotation run: what was kept, what was dropped and why, with examples to look at.

One HTML file that needs nothing else. Examples show the true answer in green and the teacher's in dashed orange.
"""

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path

from onethinker_jax.data_pipeline.annotate.filters import KEPT, REASONS, Judged
from onethinker_jax.data_pipeline.annotate.report import (
    BINS,
    AnnotationReport,
    Histogram,
    dropped_text,
    good_ones,
)
from onethinker_jax.data_pipeline.drawing.html_file import facts_html, write_html
from onethinker_jax.data_pipeline.drawing.media_html import media_html
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.rewards.answers import (
    extract_answer,
    extract_thinking,
    parse_structured,
    unwrap_answer,
)

_FRAME_WIDTH = 216  # pixels
_SHOWN_CHARACTERS = 1500
_DROPPED_EXAMPLES = 2  # of a task
_STYLE = """
:root { --dropped: #9aa3b2; --capped: #6b8afd; }
td { vertical-align: top; } td.name { white-space: nowrap; }
.bar { display: flex; height: 9px; margin-top: 6px; border-radius: 5px; overflow: hidden; min-width: 130px;
  background: var(--line); }
.bar i { height: 100%; } .kept { background: var(--good-mark); } .capped { background: var(--capped); }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 14px; }
.panels figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 10px 12px 4px; }
.panels figcaption { font-size: 13px; }
.panels svg { width: 100%; height: auto; display: block; }
.panels text { fill: var(--soft); font: 9px system-ui, "DejaVu Sans", sans-serif; }
rect.good { fill: var(--good-mark); } rect.drop { fill: var(--dropped); }
line.threshold { stroke: var(--bad); stroke-width: 1.2; stroke-dasharray: 3 2; }
.verdict { margin: 0 0 8px; overflow-wrap: anywhere; }
.verdict .tag { color: #fff; background: #b42318; } .verdict .tag.kept { background: #15803d; }
"""


def write_annotation_page(path: Path, title: str, facts: Mapping[str, str], report: AnnotationReport) -> None:
    """Writes the page, whole or not at all. `facts` are shown under the title."""
    body = [
        f"<h1>{escape(title)}</h1>{facts_html(facts)}",
        "<h2>Records by task</h2><p class=lead>Green: kept. Blue: good, but beyond the task's cap, so in the "
        f"unsampled files only. Grey: dropped.</p>{_tasks_table(report)}",
        f"<h2>Why</h2>{_reasons_table(report)}",
        "<h2>Accuracy of the answers</h2><p class=lead>Candidates by their share of the most that their task "
        "gives. Green: no check found an error; grey: one did. The dashed line is the threshold. Answers whose "
        "text alone has an error are not scored.</p>",
        f'<div class="panels">{"".join(_panel(report, task) for task in sorted(report.histograms))}</div>',
        "<h2>Examples</h2><p class=lead>The true answer is drawn in green, the teacher's in dashed orange. One "
        f"kept record a task, and one for each of the {_DROPPED_EXAMPLES} most frequent reasons to drop.</p>",
    ]
    for task in sorted(report.outcomes):
        cards = "".join(_card(example) for example in report.examples(task, _DROPPED_EXAMPLES))
        body.append(f"<h3>{escape(task)}</h3>{cards}")
    write_html(path, title, _STYLE, "".join(body))


def _tasks_table(report: AnnotationReport) -> str:
    rows = [*sorted(report.outcomes.items()), ("all tasks", report.totals(report.outcomes))]
    body = "".join(
        f'<tr{" class=all" if task == "all tasks" else ""}><td class="text name">{escape(task)}</td>'
        f'<td data-label="records">{counts.total():,}</td><td data-label="good">{good_ones(counts):,}</td>'
        f'<td data-label="kept">{counts[KEPT]:,}</td><td class="whole">{_bar(counts)}</td>'
        f'<td class="text whole" data-label="dropped">{escape(dropped_text(counts))}</td></tr>'
        for task, counts in rows
    )
    return (
        '<div class="sheet stack"><table><thead><tr><th class=text>task</th><th>records</th><th>good</th><th>kept</th>'
        f"<th></th><th class=text>dropped</th></tr></thead><tbody>{body}</tbody></table></div>"
    )


def _bar(counts: Counter[str]) -> str:
    total = max(counts.total(), 1)
    parts = (("kept", counts[KEPT]), ("capped", counts["balance"]))
    inner = "".join(
        f'<i class="{kind}" style="width:{100 * count / total:.2f}%" title="{kind} {count:,}"></i>'
        for kind, count in parts
    )
    return f'<div class="bar">{inner}</div>'


def _reasons_table(report: AnnotationReport) -> str:
    records, candidates = report.totals(report.outcomes), report.totals(report.candidates)
    meanings = {KEPT: "no check found an error; of a record's candidates the best is taken", **REASONS}
    body = "".join(
        f'<tr><td class="text name">{escape(reason or "kept")}</td>'
        f'<td data-label="records">{records[reason]:,}</td><td data-label="candidates">{candidates[reason]:,}</td>'
        f'<td class="text whole">{escape(meaning)}</td></tr>'
        for reason, meaning in meanings.items()
        if records[reason] or candidates[reason]
    )
    return (
        '<div class="sheet stack"><table><thead><tr><th class=text>reason</th><th>records</th><th>candidates</th>'
        f"<th class=text>what it means</th></tr></thead><tbody>{body}</tbody></table></div>"
    )


def _panel(report: AnnotationReport, task: str) -> str:
    histogram, threshold = report.histograms[task], report.thresholds[task]
    scored = sum(histogram.kept) + sum(histogram.dropped)
    return (
        f"<figure><figcaption>{escape(task)} <small>{scored:,} scored, from {threshold:g} on</small></figcaption>"
        f"{_histogram_svg(histogram, threshold)}</figure>"
    )


def _histogram_svg(histogram: Histogram, threshold: float) -> str:
    width, height, left = 240.0, 70.0, 22.0
    step = width / BINS
    most = max((k + d for k, d in zip(histogram.kept, histogram.dropped, strict=True)), default=0) or 1
    bars = []
    for index, (kept, dropped) in enumerate(zip(histogram.kept, histogram.dropped, strict=True)):
        x, top = left + index * step + 0.5, 6 + height
        title = (
            f"<title>{index / BINS:.2f} to {(index + 1) / BINS:.2f}: {kept} kept, {dropped} dropped</title>"
        )
        for count, kind in ((dropped, "drop"), (kept, "good")):
            tall = height * count / most
            top -= tall
            bars.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" width="{step - 1:.1f}" height="{tall:.1f}">'
                f"{title}</rect>"
            )
    at = left + width * threshold
    labels = "".join(
        f'<text x="{left + width * share:.0f}" y="{height + 17:.0f}" text-anchor="middle">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg viewBox="0 0 {left + width + 8:.0f} {height + 20:.0f}" role="img">'
        f'<text x="{left - 4:.0f}" y="13" text-anchor="end">{most}</text>{"".join(bars)}{labels}'
        f'<line x1="{left:.0f}" x2="{left + width:.0f}" y1="{height + 6:.0f}" y2="{height + 6:.0f}" stroke="#8886"/>'
        f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{height + 6:.0f}"/></svg>'
    )


def _card(example: Judged) -> str:
    record, verdict = example.record, example.best
    text = verdict.candidate.text if verdict else ""
    answer = extract_answer(text)
    predicted = parse_structured(answer, record.problem_type, record.data_type)
    try:
        view = view_record(record, predicted)
        media, question = media_html(view, predicted, frame_width=_FRAME_WIDTH), view.question
    except MediaError as error:
        media, question = f'<p class="none">{escape(str(error))}</p>', record.problem
    tag = f'<span class="tag{"" if example.reason else " kept"}">{escape(example.reason or "kept")}</span>'
    detail = f" {escape(verdict.detail)}" if verdict and verdict.detail else ""
    if verdict and verdict.accuracy is not None:
        detail += f" · accuracy {verdict.accuracy:.2f} · candidate {verdict.candidate.candidate}"
    parts = {
        "Reasoning": ("", extract_thinking(text) or (text if answer is None else "")),
        "Teacher": ("predicted", answer or ""),
        "Truth": ("true", unwrap_answer(record.answer)),
    }
    options = "".join(f"<li>{escape(option)}</li>" for option in record.options)
    return (
        f'<article class="card beside"><div class="media">{media}</div><div><p class="verdict">{tag}{detail}</p>'
        f'<p class="question">{escape(question)}</p>'
        + (f'<ul class="options">{options}</ul>' if options else "")
        + "<dl>"
        + "".join(
            f'<dt class="{kind}">{name}</dt><dd{" class=mono" if kind else ""}>{escape(_short(said))}</dd>'
            for name, (kind, said) in parts.items()
            if said
        )
        + f"</dl><small>{escape(str(record))}</small></div></article>"
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1].rstrip() + "…"
