"""Charts of a benchmark as inline SVG: its metrics beside the published ones, its values, its groups.

Bars are one a run, in the form that the interval is of: the standard one where it is defined, else the released one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from onethinker_jax.evaluate.metrics.table import RATINGS
from onethinker_jax.evaluate.page.examples import GRADED, value_of
from onethinker_jax.evaluate.results.kept import KeptBenchmark

WIDTH, LEFT, RIGHT = 460, 148, 88
BAR, GAP = 13, 11  # heights in pixels
BINS = 20
MOST_GROUPS = 16
LABEL_CHARACTERS = 25
TICKS = (0, 0.25, 0.5, 0.75, 1)

Total = Mapping[str, Any]
_Row = tuple[str, Sequence[Total | None], Sequence[float] | None, str]
"""A name, its total in each run, the published numbers, and what stands behind the values."""


def shown(total: Total) -> float | None:
    """The standard form of a total where it is defined, else the released one."""
    return total["released"] if total["standard"] is None else total["standard"]


def charts_html(runs: Sequence[KeptBenchmark]) -> str:
    """A figure with all charts of a benchmark that one or two runs answered."""
    facts = runs[0].facts
    charts = [_metrics_svg(runs), _values_svg(runs), *_groups_html(runs)]
    note = f"<small>{escape(facts['note'])}</small>" if facts.get("note") else ""
    return (
        f'<figure class="panel" id="chart-{escape(runs[0].name)}" data-benchmark="{escape(runs[0].name)}">'
        f'<figcaption><b>{escape(facts["title"])}</b> <span class="tag">{escape(runs[0].name)}</span>{note}'
        "</figcaption>"
        f"{''.join(charts)}</figure>"
    )


def _metrics_svg(runs: Sequence[KeptBenchmark]) -> str:
    published = runs[0].facts["published"]
    rows = [
        (metric, [run.metrics.get(metric) for run in runs], published.get(metric), "")
        for metric in dict.fromkeys(name for run in runs for name in run.metrics)
    ]
    return _bars_svg(rows, "metrics")


def _bars_svg(rows: Sequence[_Row], name: str) -> str:
    """A row a name: a bar with its interval a run, the published numbers over them.

    The edge is 1, and a rating of 5; what is beyond ends there.
    """
    parts, y = [], 6.0
    for label, totals, published, unit in rows:
        height = BAR * len(totals)
        parts.append(_label(label, y + height / 2 + 4))
        for number, total in enumerate(totals):
            parts.append(_bar(total, y + number * BAR, number, unit, 5 if label in RATINGS else 1))
        for value, kind, whose in zip(
            published or (), ("base", "paper"), ("Qwen3-VL-8B-Instruct", "OneThinker-8B"), strict=False
        ):
            title = f"<title>{whose}, published: {value:.3f}</title>"
            parts.append(
                f'<circle class="{kind}" cx="{_x(value):.1f}" cy="{y + height / 2:.1f}" r="4">{title}</circle>'
            )
        y += height + GAP
    ticks = "".join(
        f'<line class="grid" x1="{_x(at):.1f}" x2="{_x(at):.1f}" y1="2" y2="{y:.0f}"/>'
        f'<text x="{_x(at):.1f}" y="{y + 12:.0f}" text-anchor="middle">{at:g}</text>'
        for at in TICKS
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {y + 16:.0f}" role="img" aria-label="{escape(name)}">'
        f"{ticks}{''.join(parts)}</svg>"
    )


def _x(value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(value, 0.0), 1.0)


def _label(text: str, y: float) -> str:
    short = text if len(text) <= LABEL_CHARACTERS else text[: LABEL_CHARACTERS - 1] + "…"
    return f'<text x="{LEFT - 7}" y="{y:.1f}" text-anchor="end">{escape(short)}<title>{escape(text)}</title></text>'


def _bar(total: Total | None, y: float, run: int, unit: str, most: int) -> str:
    """A run's bar; where its two forms differ a diamond at the other one."""
    if total is None or (value := shown(total)) is None:
        return f'<text x="{LEFT + 4}" y="{y + BAR - 2:.1f}">not defined</text>'
    counts = f"n {total['n']:,}, failed {total['failed']:,}"
    said = f"{value:.4f}"
    if total["low"] is not None:
        said += f" ({total['low']:.4f} to {total['high']:.4f})"
    other = total["released"] if total["standard"] is not None else None
    if other is not None:
        said += f", released {other:.4f}"
    end, middle = _x(value / most), y + (BAR - 1) / 2
    parts = [
        f'<rect class="run{run}" x="{LEFT}" y="{y:.1f}" width="{max(end - LEFT, 1):.1f}" height="{BAR - 1}"/>'
    ]
    if total["low"] is not None:
        low, high = _x(total["low"] / most), _x(total["high"] / most)
        parts.append(
            f'<path class="interval" d="M{low:.1f} {middle - 3:.1f}v6M{low:.1f} {middle:.1f}H{high:.1f}'
            f'M{high:.1f} {middle - 3:.1f}v6"/>'
        )
    if other is not None and abs(other - value) >= 5e-5:
        at = _x(other / most)
        parts.append(f'<path class="other" d="M{at:.1f} {middle - 4:.1f}l4 4l-4 4l-4 -4z"/>')
    parts.append(f'<text x="{WIDTH - RIGHT + 6}" y="{y + BAR - 2:.1f}">{value:.3f}{unit}</text>')
    return f"<g><title>{escape(f'{said}, {counts}')}</title>{''.join(parts)}</g>"


def _values_svg(runs: Sequence[KeptBenchmark]) -> str:
    """How the values of the problems are distributed; "" where all are right or wrong."""
    values = [
        [value for one in run.problems.values() if (value := value_of(run, one)) is not None] for run in runs
    ]
    if all(value in (0.0, 1.0) for of_run in values for value in of_run):
        return ""
    metrics = [name for name in GRADED if name in runs[0].metrics]
    counts = [[0] * BINS for _ in runs]
    for run, of_run in enumerate(values):
        for value in of_run:
            counts[run][min(int(max(value, 0.0) * BINS), BINS - 1)] += 1
    most, height = max(map(max, counts)) or 1, 60
    step = (WIDTH - LEFT - RIGHT) / BINS
    wide = (step - 2) / len(runs)
    bars = "".join(
        f'<rect class="run{run}" x="{LEFT + index * step + 1 + run * wide:.1f}" width="{wide:.1f}" '
        f'y="{6 + height * (1 - count / most):.1f}" height="{height * count / most:.1f}">'
        f"<title>{index / BINS:.2f} to {(index + 1) / BINS:.2f}: {count:,} problems</title></rect>"
        for run, of_run in enumerate(counts)
        for index, count in enumerate(of_run)
        if count
    )
    labels = "".join(
        f'<text x="{_x(at):.1f}" y="{height + 20}" text-anchor="middle">{at:g}</text>' for at in TICKS
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height + 26}" role="img" aria-label="values">'
        f"{_label('problems by', 30)}{_label(' or '.join(metrics), 44)}"
        f'<text x="{WIDTH - RIGHT + 6}" y="14">{most:,}</text>{bars}{labels}</svg>'
    )


def _groups_html(runs: Sequence[KeptBenchmark]) -> list[str]:
    """A chart a kind of group that has several: the largest groups by the benchmark's first metric that they have."""
    charts = []
    groups = runs[0].facts["groups"]
    for kind, names in groups.items():
        if len(names) < 2:
            continue
        if kind != "task" and set(names) == set(groups.get("task", ())):
            continue
        sizes = {
            name: max((total["n"] for total in found.values()), default=0) for name, found in names.items()
        }
        largest = sorted(names, key=lambda name: (-sizes[name], name))[:MOST_GROUPS]
        rows = []
        for name in largest:
            metric = next((one for one in (*GRADED, *names[name]) if one in names[name]), "")
            totals = [run.facts["groups"].get(kind, {}).get(name, {}).get(metric) for run in runs]
            rows.append((name, totals, None, "" if metric == "accuracy" else f" {metric}"))
        more = (
            f" · {len(names) - MOST_GROUPS:,} smaller ones are in results.json"
            if len(names) > MOST_GROUPS
            else ""
        )
        charts.append(f"<h4>By {escape(kind)}<small>{more}</small></h4>{_bars_svg(rows, f'by {kind}')}")
    return charts
