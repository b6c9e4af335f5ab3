"""The tables of a page: every metric beside the published numbers, what failed and was left out, two runs compared."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from onethinker_jax.evaluate.metrics.shares import FORMS
from onethinker_jax.evaluate.metrics.table import LESS_IS_BETTER, RATINGS
from onethinker_jax.evaluate.results.comparison import Compared, ComparedBenchmark
from onethinker_jax.evaluate.results.kept import KeptBenchmark, KeptResults

LETTERS = "AB"
OPEN_ROWS = 12
"""A longer table of tasks is folded."""


def results_html(runs: Sequence[KeptResults], compared: Sequence[ComparedBenchmark]) -> str:
    """A row a metric, by benchmark and family; of two runs with how they differ."""
    differences = {one.name: one for one in compared}
    columns = 7 + 3 * (len(runs) - 1) + bool(compared)
    body, family = [], None
    for name, of_runs in by_benchmark(runs).items():
        facts = next(one for one in of_runs if one is not None).facts
        if facts.get("family") != family:
            family = facts.get("family")
            body.append(f'<tr class="family"><th colspan="{columns}">{escape(str(family))}</th></tr>')
        metrics = dict.fromkeys(metric for one in of_runs if one is not None for metric in one.metrics)
        for number, metric in enumerate(metrics):
            found = differences[name].metrics.get(metric) if name in differences else None
            body.append(_row(name, metric, of_runs, found, first=number == 0, compares=bool(compared)))
    marks = [f" {LETTERS[number]}" if len(runs) > 1 else "" for number in range(len(runs))]
    head = "".join(
        f"<th>standard{mark}</th><th>released{mark}</th><th>n, failed{mark}</th>" for mark in marks
    )
    difference = "<th>B − A</th>" if compared else ""
    return (
        '<div class="sheet stack"><table class="results"><thead><tr><th class="text">Benchmark</th>'
        f'<th class="text">metric</th>{head}{difference}<th>Qwen3-VL-8B<br>published</th>'
        f"<th>OneThinker-8B<br>published</th></tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def by_benchmark(runs: Sequence[KeptResults]) -> dict[str, list[KeptBenchmark | None]]:
    """The benchmarks of all runs, in their order."""
    names = dict.fromkeys(name for run in runs for name in run.benchmarks)
    return {name: [run.benchmarks.get(name) for run in runs] for name in names}


def _row(
    name: str,
    metric: str,
    of_runs: Sequence[KeptBenchmark | None],
    compared: dict[str, Compared] | None,
    *,
    first: bool,
    compares: bool,
) -> str:
    facts = next(one for one in of_runs if one is not None).facts
    published = facts["published"].get(metric)
    form = facts["published_form"] if published else None
    title = f'<a href="#chart-{escape(name)}">{escape(facts["title"])}</a> <small>{escape(facts["split"])}</small>'
    lower = " <small>less is better</small>" if metric in LESS_IS_BETTER else ""
    cells = [
        f'<td class="text{"" if first else " again"}">{title}</td>',
        f'<td class="text" data-label="metric">{escape(metric)}{lower}</td>',
    ]
    for number, one in enumerate(of_runs):
        mark = f" {LETTERS[number]}" if len(of_runs) > 1 else ""
        total = None if one is None else one.metrics.get(metric)
        for which in FORMS[::-1]:
            inside = _number(total, which, metric)
            if total and total["low"] is not None and which == _form_of_interval(total):
                inside += f"<small>{shown_value(total['low'], metric)} to {shown_value(total['high'], metric)}</small>"
            against = ' class="against"' if which == form else ""
            cells.append(f'<td{against} data-label="{which}{mark}">{inside}</td>')
        counts = "" if total is None else f"{total['n']:,}{_failed(total['failed'])}"
        cells.append(f'<td data-label="n, failed{mark}">{counts}</td>')
    if compares:
        cells.append(_difference(compared, metric))
    for value, whose in zip(published or (None, None), ("Qwen3-VL-8B", "OneThinker-8B"), strict=True):
        inside = "" if value is None else f"{100 * value:.1f}<small>{form}</small>"
        cells.append(f'<td class="published" data-label="{whose}, published">{inside}</td>')
    return f"<tr{' class=first' if first else ''}>{''.join(cells)}</tr>"


def _form_of_interval(total: Any) -> str:
    return "released" if total["standard"] is None else "standard"


def shown_value(value: float, metric: str, sign: str = "") -> str:
    """A fraction in percent; a rating as it is."""
    return f"{value:{sign}.2f}" if metric in RATINGS else f"{100 * value:{sign}.1f}"


def _number(total: Any, form: str, metric: str) -> str:
    if total is None:
        return ""
    return "–" if total[form] is None else f"<b>{shown_value(total[form], metric)}</b>"


def _failed(count: int) -> str:
    return f'<small class="failed">{count:,} failed</small>' if count else ""


def _difference(forms: dict[str, Compared] | None, metric: str) -> str:
    if not forms:
        return '<td data-label="B − A">–</td>'
    found = forms.get("standard") or forms["released"]
    sure = found.low > 0 or found.high < 0
    kind = "" if not sure else " up" if found.difference > 0 else " down"
    gain, low, high = (shown_value(one, metric, "+") for one in (found.difference, found.low, found.high))
    return (
        f'<td class="gain{kind}" data-label="B − A"><b>{gain}</b>'
        f"<small>{low} to {high}, p {found.p_value:.2g}, n {found.n:,}</small></td>"
    )


def tasks_html(compared: Sequence[ComparedBenchmark]) -> str:
    """Two runs by task, of the benchmarks that have several; "" where none has."""
    rows = [
        f'<tr><td class="text">{escape(one.name)}</td><td class="text" data-label="task">{escape(task)}</td>'
        f'<td class="text" data-label="metric">{escape(metric)}</td>'
        f'<td data-label="A">{shown_value(found.a, metric)}</td><td data-label="B">{shown_value(found.b, metric)}</td>'
        f"{_difference(of_metric, metric)}</tr>"
        for one in compared
        if len(one.tasks) > 1
        for task, forms in one.tasks.items()
        for metric, of_metric in forms.items()
        if (found := of_metric.get("standard") or of_metric["released"])
    ]
    if not rows:
        return ""
    opened = " open" if len(rows) <= OPEN_ROWS else ""
    return (
        f"<details{opened}><summary>By task ({len(rows):,})</summary>"
        '<div class="sheet stack"><table><thead><tr><th class="text">Benchmark</th>'
        '<th class="text">task</th><th class="text">metric</th><th>A</th><th>B</th><th>B − A</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def left_out_html(runs: Sequence[KeptResults], compared: Sequence[ComparedBenchmark]) -> str:
    """What failed or was left out of a mean, and why; and what only one of two runs answered."""
    lines = []
    for number, run in enumerate(runs):
        mark = f"{LETTERS[number]}: " if len(runs) > 1 else ""
        for name, one in run.benchmarks.items():
            for reason, count in one.facts["left_out"].items():
                lines.append(f"{mark}{name}: {count:,} × {reason}")
            unread = one.facts.get("extraction", {}).get("unread", 0.0)
            judged = one.facts.get("extraction", {}).get("judge", 0.0)
            if unread or judged:
                lines.append(
                    f"{mark}{name}: {unread:.1%} of the answers are read by nobody, {judged:.1%} by the judge"
                )
    for one in compared:
        apart = {
            "only in A": one.only_a,
            "only in B": one.only_b,
            "answered by A alone": one.answered_only_a,
            "answered by B alone": one.answered_only_b,
        }
        lines += [f"{one.name}: {count:,} problems {what}" for what, count in apart.items() if count]
        if one.not_compared:
            lines.append(f"{one.name}: not compared: {', '.join(one.not_compared)}")
    if not lines:
        return '<p class="soft">No sample failed, and none is left out of a mean.</p>'
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details open><summary>Failed, left out, unread ({len(lines):,})</summary><ul>{listed}</ul></details>"
