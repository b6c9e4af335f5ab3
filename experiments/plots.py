"""The pictures of docs/results.md, as small SVG files that are the same bytes for the same results.

Colours are those of a palette that people with colour-blindness can tell apart (Okabe and Ito), one an arm everywhere.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import ALL, MEAN, OURS, Estimate, Key, Results, curve, estimate
from experiments.arms import ARMS, BASELINE, METHODS
from experiments.tables import cut_name, shown_parts, title

_COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
COLOUR: Mapping[str, str] = {**dict(zip(METHODS, _COLOURS, strict=True)), BASELINE: "#777777"}

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "onethinker_jax",
    "svg.fonttype": "none",
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def picture(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the one style, and its axes row by row; sizes in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, list(axes.flat)


def svg(figure: Figure) -> str:
    """The picture as SVG, without date or version, its numbers rounded to what can be seen."""
    out = BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue().decode()
    lines = (line.rstrip() for line in _DIGITS.sub(_rounded, text).splitlines())
    return "\n".join(lines) + "\n"


_DIGITS = re.compile(r"-?\d+\.\d{3,}")


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def reward_curves(results: Results) -> str:
    """Reward while RL runs, and the entropy of the policy: the mean over seeds and its 95% interval, by arm."""
    with picture(8.0, 3.0, columns=2) as (figure, axes):
        for at, name, said in zip(
            axes, ("reward", "entropy"), ("mean reward of samples", "entropy, nats"), strict=True
        ):
            for arm in results.arms("mixed", METHODS):
                values = curve(results, Key(arm), name)
                _band(at, running_mean(values), values.shape[1], COLOUR[arm], ARMS[arm].title)
            at.set(xlabel="RL step", title=said)
        figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, ncols=6, loc="outside lower center")
        return svg(figure)


def running_mean(values: np.ndarray, share: int = 6) -> np.ndarray:
    """Means over a sixth of the steps, float64 [seeds, steps - window + 1]; NaN does not count."""
    window = max(values.shape[1] // share, 1)
    parts = np.lib.stride_tricks.sliding_window_view(values, window, axis=1)
    return np.nanmean(parts, axis=2)


def _band(at: Axes, values: np.ndarray, last: int, colour: str, label: str) -> None:
    """A line of the mean over seeds [seeds, steps] and a band of its interval, up to the step `last`."""
    if not values.size:
        return
    found = [estimate(of_step[np.isfinite(of_step)]) for of_step in values.T]
    mean = np.array([one.mean for one in found])
    half = np.array([one.half or 0.0 for one in found])
    steps = np.arange(last - len(mean), last) + 1
    at.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    at.plot(steps, mean, color=colour, label=label, linewidth=1.4)


def difference_bars(results: Results) -> str:
    """EMA-GRPO (paper) minus each other method by family: held-out accuracy with 95% intervals."""
    groups = [*results.families, MEAN, ALL]
    others = [arm for arm in results.arms("mixed", METHODS) if arm != OURS]
    with picture(8.0, 3.4) as (figure, (at,)):
        width = 0.8 / max(len(others), 1)
        for number, arm in enumerate(others):
            found = [results.difference(Key(OURS), Key(arm), group) for group in groups]
            places = np.arange(len(groups)) + (number - (len(others) - 1) / 2) * width
            _bars(at, places, found, width * 0.9, COLOUR[arm], f"− {title(arm)}")
        at.axhline(0, color="#444444", linewidth=0.8)
        at.set_xticks(range(len(groups)), [group.replace(" ", "\n") for group in groups])
        at.set(title=f"{ARMS[OURS].title} minus …: held-out accuracy, percentage points")
        at.grid(axis="x", visible=False)
        figure.legend(fontsize=7, ncols=len(others) or 1, loc="outside lower center")
        return svg(figure)


def _bars(
    at: Axes, places: np.ndarray, found: Sequence[Estimate | None], width: float, colour: str, label: str
) -> None:
    shown = [(place, one) for place, one in zip(places, found, strict=True) if one is not None]
    if not shown:
        return
    at.bar(
        [place for place, _ in shown],
        [100 * one.mean for _, one in shown],
        width,
        yerr=[100 * (one.half or 0.0) for _, one in shown],
        color=colour,
        label=label,
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
    )


def sigma_curves(results: Results) -> str:
    """EMA-GRPO's σ of each task over the steps of RL: the mean over seeds."""
    names = sorted(
        {
            name
            for line in results.runs.get(Key(OURS), {}).values()
            for name in line["curves"]
            if name.startswith("sigma/")
        }
    )
    with picture(8.0, 3.2, columns=2) as (figure, (at, beside)):
        colours = matplotlib.colormaps["tab20"](np.linspace(0, 1, max(len(names), 1)))
        ends = []
        for name, colour in zip(names, colours, strict=True):
            values = curve(results, Key(OURS), name)
            seen = np.flatnonzero(np.isfinite(values).any(axis=0))  # a task may come up late
            mean = np.nanmean(values[:, seen], axis=0)
            at.plot(seen + 1, mean, color=colour, linewidth=1.3)
            ends.append((float(mean[-1]), name.removeprefix("sigma/"), colour))
        at.set(xlabel="RL step", title="σ of each task", ylim=(0, None))
        ends.sort(key=lambda end: end[0])
        beside.barh([name for _, name, _ in ends], [end for end, _, _ in ends], color=[c for _, _, c in ends])
        beside.set(title="σ after the last step")
        beside.grid(axis="y", visible=False)
        beside.tick_params(axis="y", labelsize=7)
        return svg(figure)


def gradient_bars(lines: Sequence[Mapping[str, Any]]) -> str:
    """The share of each task and each difficulty in the sum of the parts' gradient norms, by method."""
    arms = [arm for arm in METHODS if any(line["arm"] == arm for line in lines)]
    with picture(8.0, 5.2, rows=1, columns=2) as (figure, axes):
        for at, cut in zip(axes, ("tasks", "bins"), strict=True):
            names = shown_parts(lines, cut)
            height = 0.8 / max(len(arms), 1)
            for number, arm in enumerate(arms):
                of_arm = [line for line in lines if line["arm"] == arm]
                shares = [
                    100 * float(np.mean([line[cut].get(name, {"share": 0.0})["share"] for line in of_arm]))
                    for name in names
                ]
                places = np.arange(len(names)) + (number - (len(arms) - 1) / 2) * height
                at.barh(places, shares, height * 0.9, color=COLOUR[arm], label=ARMS[arm].title)
            at.set_yticks(range(len(names)), names)
            at.invert_yaxis()
            at.tick_params(axis="y", labelsize=7)
            at.grid(axis="y", visible=False)
            at.set(title=f"% by {cut_name(cut)}")
        figure.legend(
            *axes[0].get_legend_handles_labels(), fontsize=7, ncols=len(arms), loc="outside lower center"
        )
        return svg(figure)


PICTURES: Mapping[str, tuple[Callable[[Results], str], str]] = {
    "reward_curves": (reward_curves, "Reward and entropy while RL runs, by method"),
    "difference_bars": (difference_bars, "EMA-GRPO minus each method, by family"),
    "sigma_curves": (sigma_curves, "The spread of each task's reward while RL runs"),
}
"""The pictures of a study, by the names that docs/results.md asks for them, with what stands for them in words."""

GRADIENT_PICTURES: Mapping[str, tuple[Callable[[Sequence[Mapping[str, Any]]], str], str]] = {
    "gradient_bars": (gradient_bars, "Where each method's gradient comes from"),
}
"""The pictures of a file of `experiments.gradient_shares`."""
