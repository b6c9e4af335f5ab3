"""Curves of a run as inline SVG: one panel for every metric, and for every group of metrics named "group/…".

The panels a reader looks for first are named in `PANELS` and come first; whatever else a trainer records
gets a panel of its own behind them. A group of few curves is one chart, whose legend shows and hides them; one of
many, such as of all tasks, is the overall curve and a small chart of each. Noisy curves are smoothed, the values
themselves faint behind. Colours and text follow the page's style sheet.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
MINI_WIDTH, MINI_HEIGHT = 160, 56
MAX_POINTS, MINI_POINTS = 240, 60
SMOOTH_FROM = 12  # a curve of that many points gets a smoothed line
MOST_LINES = 8  # curves of one chart; more become small charts
TIMED = ("seconds", "tokens_per_second", "prompts_per_second", "mfu")
"""Metrics that a step's compilation moves far from all others."""
BEYOND = 4.0
"""Times its own median from which on a value of a timed metric is left beyond the chart's edge."""

# metric -> title, unit of its axis, and what it says
PANELS = {
    "reward": ("Reward", "overall reward", "mean over the samples drawn for the step"),
    "format": ("Format rate", "share", "responses that are <think>…</think><answer>…</answer>"),
    "accuracy": ("Accuracy", "mean accuracy", "the accuracy part of the reward"),
    "pass_rate": ("Pass rate", "share", "samples with at least half of the accuracy that their task gives"),
    "sigma": ("Spread of a task's rewards σ", "reward", "what EMA-GRPO divides advantages by"),
    "advantage_abs": ("Size of advantages", "mean |A|", "how much each task pulls"),
    "loss": ("Loss", "a token", "what the stage minimises"),
    "response_length": ("Response length", "tokens", "mean over the samples"),
    "truncated": ("Cut-off responses", "share", "samples that reached the length limit"),
    "groups_kept": ("Groups kept", "share", "prompts whose samples are neither all wrong nor all right"),
    "kl_reference": ("KL to the SFT model", "nats a token", "how far the policy has moved"),
    "mismatch": ("Mismatch", "nats", "of log-probabilities, trainer to sampler"),
    "entropy": ("Entropy", "nats a token", "of the policy over the next token"),
    "grad_norm": ("Gradient norm", "", "before clipping"),
    "tokens_per_second": ("Speed", "tokens a second", "tokens trained on or sampled"),
    "mfu": ("Utilisation", "MFU", "of the update: its FLOPs over what the devices could do"),
    "memory_gib": ("Memory", "GiB", "of the fullest device"),
    "seconds": ("Time of a step", "seconds", "by phase"),
    "health": ("Health", "", "updates skipped so far; 1 while a flag is up"),
    "host": ("Host", "GiB", "memory that is left, memory of this process, free disk"),
}


@dataclass(frozen=True)
class Series:
    """One curve: its name and (step, value) points in the order of the steps."""

    name: str
    points: list[tuple[float, float]]


def panels(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, list[Series]]]:
    """(stage, metric, curves) of every panel, from the rows of a metrics file.

    "reward" and "reward/OCR (image)" are one panel, the plain name first. Values that are null are gaps.
    Within a stage the panels of `PANELS` come first, in its order.
    """
    found: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = {}
    for row in rows:
        stage = found.setdefault(str(row["stage"]), {})
        for key, value in row.items():
            if key in ("stage", "step", "time") or not isinstance(value, int | float):
                continue
            metric, _, name = key.partition("/")
            stage.setdefault(metric, {}).setdefault(name, []).append((float(row["step"]), float(value)))
    order = list(PANELS)
    result = []
    for stage, metrics in found.items():
        for metric in sorted(metrics, key=lambda m: order.index(m) if m in PANELS else len(order)):
            curves = metrics[metric]
            series = [Series(name or "all", curves[name]) for name in sorted(curves)]
            result.append((stage, metric, series))
    return result


def panel_html(stage: str, metric: str, series: Sequence[Series]) -> str:
    """A figure: title, chart, and what tells its curves apart where there are several."""
    title, unit, note = PANELS.get(metric, (metric.replace("_", " "), "", ""))
    top = _top(series) if metric in TIMED else None
    if beyond := [] if top is None else [value for one in series for _, value in one.points if value > top]:
        note += (
            f"{'; ' if note else ''}beyond the chart, by compiling: {len(beyond)}, up to {max(beyond):.3g}"
        )
    many = len(series) > MOST_LINES
    drawn = [one for one in series if one.name == "all"] if many else series
    chart = _svg(drawn, _colours(drawn), unit, top) if drawn else ""
    if many:
        rest = _minis([one for one in series if one.name != "all"])
        chart = f'<div class="whole"><div>{chart}</div>{rest}</div>' if chart else rest
    elif len(series) > 1:
        chart += _legend(drawn, _colours(drawn))
    return (
        f'<figure class="panel{" wide" if many else ""}">'
        f'<figcaption><b>{escape(title)}</b> <span class="tag">{escape(stage)}</span>'
        f"<small>{escape(note)}</small></figcaption>{chart}</figure>"
    )


def _top(series: Sequence[Series]) -> float | None:
    """The largest value that is not far beyond its curve's own median; None where all are within."""
    largest = [value for one in series for _, value in one.points]
    within = [
        value
        for one in series
        for _, value in one.points
        if value <= BEYOND * statistics.median(v for _, v in one.points)
    ]
    return max(within) if within and max(within) < max(largest) / 1.5 else None


def _legend(series: Sequence[Series], colours: Sequence[str]) -> str:
    """The curves' names, each a button that shows or hides its own."""
    items = "".join(
        f'<li><button type="button" aria-pressed="true" data-series="{number}">'
        f'<i style="background:{colour}"></i>{escape(one.name)}</button></li>'
        for number, (one, colour) in enumerate(zip(series, colours, strict=True))
    )
    return f'<ul class="legend">{items}</ul>'


def _minis(series: Sequence[Series]) -> str:
    """A small chart of each curve, all on the same scale, with its last smoothed value."""
    thin = [Series(one.name, _thinned(one.points, MINI_POINTS)) for one in series]
    values = [y for one in thin for _, y in one.points]
    steps = [x for one in thin for x, _ in one.points]
    low, high, first, last = min(values), max(values), min(steps), max(steps)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        x = (point[0] - first) / ((last - first) or 1) * (MINI_WIDTH - 8) + 4
        return x, 4 + (high - point[1]) / ((high - low) or 1) * (MINI_HEIGHT - 8)

    digits = max(2 - math.floor(math.log10(max(abs(low), abs(high)) or 1)), 0)
    cells = []
    for one in thin:
        smooth = _smoothed(one.points)
        if len(one.points) == 1:
            x, y = at(one.points[0])
            lines = f'<circle cx="{x:.0f}" cy="{y:.1f}" r="2.5"/>'
        else:
            lines = "" if smooth is one.points else _polyline(map(at, one.points), "raw")
            lines += _polyline(map(at, smooth), "")
        cells.append(
            f'<figure class="mini"><figcaption><span title="{escape(one.name)}">{escape(one.name)}</span>'
            f"<b>{_number(round(smooth[-1][1], digits))}</b></figcaption>"
            f'<svg viewBox="0 0 {MINI_WIDTH} {MINI_HEIGHT}" role="img">'
            f'<rect width="{MINI_WIDTH}" height="{MINI_HEIGHT}" rx="5"/>{lines}</svg></figure>'
        )
    scale = f"All from {_number(round(low, digits))} to {_number(round(high, digits))}, steps {first:g} to {last:g}"
    return f'<div><div class="minis">{"".join(cells)}</div><small>{scale}; the last smoothed value.</small></div>'


def _polyline(points: Iterable[tuple[float, float]], kind: str, style: str = "") -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    classed = f' class="{kind}"' if kind else ""
    return f'<polyline points="{text}"{classed}{style}/>'


def _colours(series: Sequence[Series]) -> list[str]:
    """The accent for a lone curve; else the ink for the overall one and hues far apart for the others."""
    if len(series) == 1:
        return ["var(--accent)"]
    named = [one.name for one in series if one.name != "all"]
    hues = {
        name: f"hsl({(20 + index * 360 / len(named)) % 360:.0f} 62% 48%)" for index, name in enumerate(named)
    }
    return [hues.get(one.name, "var(--ink)") for one in series]


def _svg(series: Sequence[Series], colours: Sequence[str], unit: str, top: float | None = None) -> str:
    """A chart; values above `top` are held at its upper edge."""
    if top is not None:
        series = [Series(one.name, [(x, min(y, top)) for x, y in one.points]) for one in series]
    series = [Series(one.name, _thinned(one.points, MAX_POINTS)) for one in series]
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    x_ticks, y_ticks = _ticks(min(xs), max(xs), 6, whole=True), _ticks(min(ys), max(ys), 5)
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return (
            LEFT + (point[0] - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            TOP + (y_high - point[1]) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick in y_ticks:
        _, y = at((x_low, tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x, _ = at((tick, y_low))
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_number(tick)}</text>'
            )
    parts.append(f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">step</text>')
    parts.append(f'<text class="unit" x="{LEFT}" y="{HEIGHT - 3}">{escape(unit)}</text>')
    for number, (one, colour) in reversed(
        list(enumerate(zip(series, colours, strict=True)))
    ):  # overall on top
        curve = _curve(one, colour, at, main=one.name == "all" or len(series) == 1)
        parts.append(f'<g data-series="{number}"><title>{escape(one.name)}</title>{curve}</g>')
    data = [
        {"name": one.name, "colour": c, "points": one.points} for one, c in zip(series, colours, strict=True)
    ]
    frame = {"box": [LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM], "x": [x_low, x_high], "series": data}
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f"data-chart='{escape(json.dumps(frame, separators=(',', ':')))}'>{''.join(parts)}</svg>"
    )


def _curve(
    one: Series, colour: str, at: Callable[[tuple[float, float]], tuple[float, float]], *, main: bool
) -> str:
    style = f' style="stroke:{colour}"'
    if len(one.points) == 1:
        x, y = at(one.points[0])
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{colour}"></circle>'
    smooth = _smoothed(one.points)
    raw = "" if smooth is one.points else _polyline(map(at, one.points), "raw", style)
    return raw + _polyline(map(at, smooth), "main" if main else "thin", style)


def _thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of its stretch of the curve, with four digits."""
    stretch = math.ceil(len(points) / most)
    parts = [points[i : i + stretch] for i in range(0, len(points), stretch)]
    return [(part[-1][0], float(f"{sum(y for _, y in part) / len(part):.4g}")) for part in parts]


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A running mean over a sixth of the curve, centred; a curve of few points as it is."""
    if len(points) < SMOOTH_FROM:
        return points
    half = max(len(points) // 12, 1)
    result = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)  # symmetric, so that the ends are not pulled inwards
        window = points[i - reach : i + reach + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def _ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers, the first at or below `low`, the last at or above `high`."""
    span = high - low or abs(high) or 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    if whole:
        step = max(round(step), 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.4g}k"
    return f"{value:,.4g}" if value else "0"
