"""Curves of a run as inline SVG: one panel for every metric, and for every group of metrics named "group/…".

The panels a reader looks for first are named in `PANELS` and come first; whatever else a trainer records
gets a panel of its own behind them. Colours and text follow the page's style sheet.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

SIZE, WIDE_SIZE = (460, 240), (900, 360)
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
MAX_POINTS = 240
SMOOTH_FROM = 24  # a lone curve of that many points also gets a smoothed line

# metric -> title, unit of its axis, and what it says
PANELS = {
    "reward": ("Reward", "overall reward", "mean over the batch; thin lines are tasks"),
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
    """A figure: title, chart, and a legend where there are several curves."""
    title, unit, note = PANELS.get(metric, (metric.replace("_", " "), "", ""))
    colours = _colours(series)
    legend = ""
    if len(series) > 1:
        items = "".join(
            f'<li><i style="background:{colour}"></i>{escape(one.name)}</li>'
            for one, colour in zip(series, colours, strict=True)
        )
        legend = f'<ul class="legend">{items}</ul>'
    chart = _svg(series, colours, unit, WIDE_SIZE if legend else SIZE)
    return (
        f'<figure class="panel{" wide" if legend else ""}">'
        f'<figcaption><b>{escape(title)}</b> <span class="tag">{escape(stage)}</span>'
        f"<small>{escape(note)}</small></figcaption>{chart}{legend}</figure>"
    )


def _colours(series: Sequence[Series]) -> list[str]:
    """The accent for a lone curve; else the ink for the overall one and hues far apart for the others."""
    if len(series) == 1:
        return ["var(--accent)"]
    named = [one.name for one in series if one.name != "all"]
    hues = {
        name: f"hsl({(20 + index * 360 / len(named)) % 360:.0f} 62% 52%)" for index, name in enumerate(named)
    }
    return [hues.get(one.name, "var(--ink)") for one in series]


def _svg(series: Sequence[Series], colours: Sequence[str], unit: str, size: tuple[int, int]) -> str:
    width, height = size
    series = [Series(one.name, _thinned(one.points)) for one in series]
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    x_ticks, y_ticks = _ticks(min(xs), max(xs), 6, whole=True), _ticks(min(ys), max(ys), 5)
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (width - LEFT - RIGHT),
            TOP + (y_high - y) / (y_high - y_low) * (height - TOP - BOTTOM),
        )

    parts = []
    for tick in y_ticks:
        _, y = at(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x, _ = at(tick, y_low)
            parts.append(
                f'<text x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{_number(tick)}</text>'
            )
    parts.append(f'<text class="unit" x="{width - RIGHT}" y="{height - 3}" text-anchor="end">step</text>')
    parts.append(f'<text class="unit" x="{LEFT}" y="{height - 3}">{escape(unit)}</text>')
    for one, colour in reversed(list(zip(series, colours, strict=True))):  # the overall curve on top
        parts += _curve(one, colour, at, lone=len(series) == 1, main=one.name == "all")
    data = [
        {"name": one.name, "colour": c, "points": one.points} for one, c in zip(series, colours, strict=True)
    ]
    frame = {"box": [LEFT, TOP, width - RIGHT, height - BOTTOM], "x": [x_low, x_high], "series": data}
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f"data-chart='{escape(json.dumps(frame, separators=(',', ':')))}'>{''.join(parts)}</svg>"
    )


def _curve(one: Series, colour: str, at: Any, *, lone: bool, main: bool) -> list[str]:
    def path(points: Sequence[tuple[float, float]], style: str) -> str:
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        return f'<polyline points="{text}" class="{style}" style="stroke:{colour}"/>'

    name = f"<title>{escape(one.name)}</title>"
    if len(one.points) == 1:
        x, y = at(*one.points[0])
        return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{colour}">{name}</circle>']
    if lone and len(one.points) >= SMOOTH_FROM:
        return [path(one.points, "raw"), path(_smoothed(one.points), "main")]
    return [path(one.points, "main" if main or lone else "thin")]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points, each the mean of its stretch of the curve, with four digits."""
    stretch = math.ceil(len(points) / MAX_POINTS)
    parts = [points[i : i + stretch] for i in range(0, len(points), stretch)]
    return [(part[-1][0], float(f"{sum(y for _, y in part) / len(part):.4g}")) for part in parts]


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A running mean over a tenth of the curve, centred."""
    half = max(len(points) // 20, 1)
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
