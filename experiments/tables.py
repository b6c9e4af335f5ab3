"""The tables and sentences of docs/results.md, as Markdown, from lines of results.

Accuracies and their differences are in percentage points of the task's largest accuracy; rewards as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis import (
    ALL,
    MEAN,
    OURS,
    Answers,
    Estimate,
    Key,
    Measure,
    Results,
    curve,
    estimate,
)
from experiments.arms import (
    ARMS,
    BASELINE,
    FAMILIES,
    METHODS,
    MIXTURES,
    family_of,
    mixture_without,
)
from experiments.gradients import BINS

SFT = "SFT model"
MIXED = ("mixed", "sparse", "dense")
"""The mixtures that are compared: all tasks, those of sparse rewards, those of dense rewards."""


def rows_to_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its first column on the left."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float, measure: Measure) -> str:
    """41.2 of an accuracy or a format rate, 0.873 of a reward."""
    return f"{value:.3f}" if measure == "reward" else f"{100 * value:.1f}"


def level(found: Estimate, measure: Measure) -> str:
    """A mean and half its interval: 41.2 ± 0.8."""
    half = "" if found.half is None else f" ± {number(found.half, measure)}"
    return f"{number(found.mean, measure)}{half}"


def change(found: Estimate | None, measure: Measure) -> str:
    """A difference and half its interval: +1.2 ± 0.8, in bold where that leaves out 0; – where there is none."""
    if found is None:
        return "–"
    said = f"{'+' if found.mean >= 0 else '−'}{number(abs(found.mean), measure)}"
    if found.half is not None:
        said += f" ± {number(found.half, measure)}"
    return f"**{said}**" if found.sure else said


def seeds_of(results: Results, arms: Sequence[str], mixture: str) -> str:
    """The numbers of seeds, as a sentence says them: "5 seeds", or "3 to 5 seeds"."""
    counts = sorted({len(results.runs[Key(arm, mixture)]) for arm in arms})
    return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds" if counts else "no seeds"


def levels(
    results: Results, mixture: str = "mixed", measure: Measure = "accuracy", answers: Answers = "greedy"
) -> str:
    """Held-out means by family: a row the SFT model, then one a method."""
    groups = [*results.families, MEAN, ALL]
    rows = [[SFT, *(number(results.before(group, measure, answers), measure) for group in groups)]]
    for arm in results.arms(mixture, METHODS):
        found = (estimate_of(results, Key(arm, mixture), group, measure, answers) for group in groups)
        rows.append([ARMS[arm].title, *(level(one, measure) for one in found)])
    return rows_to_markdown([f"{answers} answers, {measure}", *groups], rows)


def estimate_of(results: Results, key: Key, group: str, measure: Measure, answers: Answers) -> Estimate:
    """An arm's mean over seeds."""
    return estimate(list(results.values(key, group, measure, answers).values()))


def differences(
    results: Results, mixture: str = "mixed", measure: Measure = "accuracy", answers: Answers = "greedy"
) -> str:
    """EMA-GRPO (paper) minus each other method and the SFT model, by family, paired by seed."""
    groups = [*results.families, MEAN, ALL]
    ours = Key(OURS, mixture)
    rows = []
    for arm in (BASELINE, *(arm for arm in results.arms(mixture, METHODS) if arm != OURS)):
        found = (results.difference(ours, Key(arm, mixture), group, measure, answers) for group in groups)
        rows.append([f"− {title(arm)}", *(change(one, measure) for one in found)])
    return rows_to_markdown([f"{ARMS[OURS].title} …, {measure}, {answers}", *groups], rows)


def record_differences(results: Results, mixture: str = "mixed") -> str:
    """EMA-GRPO (paper) minus each other method and the SFT model, with intervals over held-out records."""
    groups = [*results.families, ALL]
    ours = Key(OURS, mixture)
    rows = []
    for arm in (BASELINE, *(arm for arm in results.arms(mixture, METHODS) if arm != OURS)):
        found = (results.over_records(ours, Key(arm, mixture), group) for group in groups)
        rows.append([f"− {title(arm)}", *(_over_records(one) for one in found)])
    return rows_to_markdown([f"{ARMS[OURS].title} …, accuracy, greedy", *groups], rows)


def _over_records(found: tuple[float, float, float] | None) -> str:
    """+1.2 [+0.3, +2.1], in bold where the interval leaves out 0; – where there is none."""
    if found is None:
        return "–"
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in found)
    said = f"{mean} [{low}, {high}]"
    return f"**{said}**" if found[1] > 0 or found[2] < 0 else said


def title(arm: str) -> str:
    """An arm's name in tables."""
    return SFT if arm == BASELINE else ARMS[arm].title


def by_task(results: Results, mixture: str = "mixed", answers: Answers = "greedy") -> str:
    """Every held-out task: records, the SFT model's accuracy, and every method's change of accuracy."""
    arms = results.arms(mixture, METHODS)
    rows = []
    for task in results.tasks:
        row = results.start["heldout"][answers][task]
        gains = (results.gain(Key(arm, mixture), task, "accuracy", answers) for arm in arms)
        rows.append(
            [task, f"{row[0]}", number(row[1], "accuracy"), *(change(one, "accuracy") for one in gains)]
        )
    return rows_to_markdown(["task", "n", SFT, *(ARMS[arm].title for arm in arms)], rows)


def sentence(results: Results, mixture: str = "mixed") -> str:
    """One sentence with numbers: EMA-GRPO minus each baseline, by family with 95% intervals."""
    ours = Key(OURS, mixture)
    others = [arm for arm in results.arms(mixture, METHODS) if arm not in (OURS, "ema_grpo_released")]
    if OURS not in results.arms(mixture) or not others:
        return "_No runs of EMA-GRPO and a baseline yet._"
    parts = []
    for arm in others:
        found = {
            group: results.difference(ours, Key(arm, mixture), group) for group in (*results.families, MEAN)
        }
        said = ", ".join(f"{group} {_interval(one)}" for group, one in found.items() if one is not None)
        parts.append(f"minus {ARMS[arm].title}: {said}")
    seeds = seeds_of(results, [OURS, *others], mixture)
    return (
        f"Mean held-out accuracy of greedy answers by family, {ARMS[OURS].title} minus each baseline, in percentage "
        f"points with 95% intervals over {seeds}: {'; '.join(parts)}."
    )


def _interval(found: Estimate) -> str:
    said = f"{100 * found.mean:+.1f}"
    if found.half is not None:
        said += f" [{100 * (found.mean - found.half):+.1f}, {100 * (found.mean + found.half):+.1f}]"
    return said.replace("-", "−")


def left_out(
    results: Results, measure: Measure = "accuracy", answers: Answers = "greedy", arm: str = OURS
) -> str:
    """What a family gains from RL on all tasks and from RL without it (zero-shot), and what it does for the others."""
    rows = []
    whole = Key(arm)
    for family in results.families:
        without = Key(arm, mixture_without(family))
        if without not in results.runs or whole not in results.runs:
            continue
        others = [one for one in results.families if one != family]
        found = (
            results.gain(whole, family, measure, answers),
            results.gain(without, family, measure, answers),
            _difference_of_means(results, whole, without, others, measure, answers),
        )
        before = number(results.before(family, measure, answers), measure)
        rows.append([family, before, *(change(one, measure) for one in found)])
    head = [
        f"{answers} answers, {measure}",
        SFT,
        "RL on all tasks",
        "RL without it",
        "what it does for the other families",
    ]
    return rows_to_markdown(head, rows) if rows else "_No runs without a family yet._"


def never_trained(results: Results) -> str:
    """What RL on all other tasks does for a family that SFT too went without."""
    rows = []
    for family in results.families:
        key = Key(OURS, mixture_without(family))
        if key in results.runs:
            cells = []
            wanted: list[tuple[Measure, Answers]] = [
                ("accuracy", "greedy"),
                ("format", "sampled"),
                ("reward", "sampled"),
            ]
            for measure, answers in wanted:
                cells.append(number(results.before(family, measure, answers), measure))
                cells.append(change(results.gain(key, family, measure, answers), measure))
            rows.append([family, *cells])
    head = ["family", "accuracy, greedy", "by RL", "format, sampled", "by RL", "reward, sampled", "by RL"]
    return rows_to_markdown(head, rows) if rows else "_No runs yet._"


def _difference_of_means(
    results: Results, a: Key, b: Key, families: Sequence[str], measure: Measure, answers: Answers
) -> Estimate | None:
    """A minus B of the mean over families, paired by seed."""
    found = []
    for key in (a, b):
        values = [results.values(key, family, measure, answers) for family in families]
        found.append({seed: float(np.mean([one[seed] for one in values])) for seed in values[0]})
    shared = sorted(found[0].keys() & found[1].keys())
    return estimate([found[0][seed] - found[1][seed] for seed in shared]) if shared else None


def sensitivity(results: Results, mixture: str = "mixed") -> str:
    """Each swept setting minus EMA-GRPO (paper) as it is, paired by seed."""
    rows, ours = [], Key(OURS, mixture)
    swept: list[tuple[str, Key]] = [
        (ARMS[arm].title, Key(arm, mixture)) for arm in results.arms(mixture) if arm not in METHODS
    ]
    if not swept or ours not in results.runs:
        return "_No sweeps yet._"
    for name, key in swept:
        rows.append([name, *_changes(results, key, ours)])
    head = ["EMA-GRPO with …", "accuracy, mean of families", "accuracy, all records", "sampled reward"]
    return rows_to_markdown(head, rows)


def _changes(results: Results, a: Key, b: Key) -> list[str]:
    return [
        change(results.difference(a, b, MEAN), "accuracy"),
        change(results.difference(a, b, ALL), "accuracy"),
        change(results.difference(a, b, ALL, "reward", "sampled"), "reward"),
    ]


def learning_rates(results: Results, mixture: str = "mixed") -> str:
    """What each method gains from RL at each learning rate."""
    rates = sorted({key.learning_rate or results.start["learning_rate"] for key in results.runs})
    if len(rates) < 2:
        return "_No sweep of the learning rate yet._"
    rows = []
    for arm in results.arms(mixture, METHODS):
        cells = []
        for rate in rates:
            key = Key(arm, mixture, None if rate == results.start["learning_rate"] else rate)
            cells.append(change(results.gain(key, MEAN), "accuracy") if key in results.runs else "–")
        rows.append([ARMS[arm].title, *cells])
    return rows_to_markdown(["gain of RL, mean of families", *(f"{rate:g}" for rate in rates)], rows)


def mixtures(results: Results) -> str:
    """EMA-GRPO (paper) minus each method and the SFT model, over the tasks that it trains on, for each mixture."""
    rows = []
    for mixture in MIXED:
        ours = Key(OURS, mixture)
        if ours not in results.runs:
            continue
        trained = tasks_of(results, mixture)
        for arm in (BASELINE, *results.arms(mixture, METHODS)):
            if arm != OURS:
                found = _over_tasks(results, ours, Key(arm, mixture), trained)
                rows.append([mixture, f"− {title(arm)}", *found])
    head = ["mixture", f"{ARMS[OURS].title} …", "accuracy, greedy", "reward, sampled"]
    return rows_to_markdown(head, rows) if rows else "_No runs yet._"


def transfer(results: Results) -> str:
    """What RL with EMA-GRPO (paper) on each mixture changes in tasks with sparse and with dense rewards."""
    rows = []
    for mixture in MIXED:
        ours = Key(OURS, mixture)
        if ours in results.runs:
            found = (
                _over_tasks(results, ours, Key(BASELINE), tasks_of(results, kind))
                for kind in ("sparse", "dense")
            )
            rows.append([mixture, *(cell for cells in found for cell in cells)])
    of_kinds = (f"{kind}: {what}" for kind in ("sparse", "dense") for what in ("accuracy", "sampled reward"))
    return rows_to_markdown(["RL on", *of_kinds], rows) if rows else "_No runs yet._"


def tasks_of(results: Results, mixture: str) -> list[str]:
    """The held-out tasks that a mixture trains on."""
    return [task for task in results.tasks if task.rpartition(" (")[0] in MIXTURES[mixture]]


def _over_tasks(results: Results, a: Key, b: Key, tasks: Sequence[str]) -> list[str]:
    """A minus B over the records of these tasks, paired by seed: greedy accuracy, sampled reward."""
    wanted: list[tuple[Measure, Answers]] = [("accuracy", "greedy"), ("reward", "sampled")]
    return [change(results.difference(a, b, tasks, *kinds), kinds[0]) for kinds in wanted]


def budget(results: Results, mixture: str = "mixed") -> str:
    """What RL was like: prompts drawn to fill a step, gradient norm, entropy at the end; means of seeds."""
    rows = []
    for arm in results.arms(mixture, METHODS):
        drawn, norm, entropy = (
            curve(results, Key(arm, mixture), name) for name in ("prompts_drawn", "grad_norm", "entropy")
        )
        last = entropy[:, -max(entropy.shape[1] // 6, 1) :]
        rows.append([ARMS[arm].title, _mean(drawn, ".1f"), _mean(norm, ".3g"), _mean(last, ".3f")])
    head = ["", "prompts drawn a step", "gradient norm before clipping", "entropy in the last sixth, nats"]
    return rows_to_markdown(head, rows) if rows else "_No runs yet._"


def _mean(values: np.ndarray, form: str) -> str:
    return format(float(np.nanmean(values)), form) if values.size else "–"


def gradient_table(lines: Sequence[Mapping[str, Any]], cut: str) -> str:
    """What the parts of the gradient weigh, by `cut` ("bins" or "tasks"), a column a method.

    First a part's norm as a share of the sum of the parts' norms, then, in brackets, the part's length along the whole
    gradient as a share of the whole's (norm x cosine / norm of the whole). Means over the lines of a method.
    """
    arms = [arm for arm in METHODS if any(line["arm"] == arm for line in lines)]
    if not arms:
        return "_Not measured yet._"
    names = shown_parts(lines, cut)
    rows = []
    for name in names:
        groups = np.mean([_part(line, cut, name)["groups"] / line["groups"] for line in lines])
        cells = []
        for arm in arms:
            found = [_part(line, cut, name) for line in lines if line["arm"] == arm]
            share, along = (float(np.mean([one[key] for one in found])) for key in ("share", "along"))
            cells.append(f"{100 * share:.0f}% ({100 * along:.0f}%)")
        rows.append([name, f"{100 * groups:.0f}%", *cells])
    return rows_to_markdown([cut_name(cut), "groups", *(ARMS[arm].title for arm in arms)], rows)


def cut_name(cut: str) -> str:
    """What a cut of the gradient is by."""
    return "mean accuracy of the group" if cut == "bins" else "task"


def shown_parts(lines: Sequence[Mapping[str, Any]], cut: str) -> list[str]:
    """The parts of a cut that any line has, in order."""
    found = {name for line in lines for name in line[cut]}
    if cut == "bins":
        return [name for name in BINS if name in found]
    return sorted(found, key=lambda task: (FAMILIES.index(family_of(task)), task))


def _part(line: Mapping[str, Any], cut: str, name: str) -> Mapping[str, float]:
    part = line[cut].get(name, {"groups": 0, "share": 0.0, "cosine": 0.0, "norm": 0.0})
    return {**part, "along": part["norm"] * part["cosine"] / line["norm"] if line["norm"] else 0.0}


TABLES: Mapping[str, Callable[[Results], str]] = {
    "sentence": sentence,
    "accuracy": levels,
    "differences": differences,
    "record_differences": record_differences,
    "sampled_reward": lambda results: levels(results, measure="reward", answers="sampled"),
    "reward_differences": lambda results: differences(results, measure="reward", answers="sampled"),
    "tasks": by_task,
    "budget": budget,
    "mixtures": mixtures,
    "transfer": transfer,
    "left_out": left_out,
    "left_out_reward": lambda results: left_out(results, "reward", "sampled"),
    "never_trained": never_trained,
    "sensitivity": sensitivity,
    "learning_rates": learning_rates,
}
"""The tables of a study, by the names that docs/results.md asks for them."""

GRADIENT_TABLES: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    "gradient_tasks": lambda lines: gradient_table(lines, "tasks"),
    "gradient_bins": lambda lines: gradient_table(lines, "bins"),
}
"""The tables of a file of `experiments.gradient_shares`."""
