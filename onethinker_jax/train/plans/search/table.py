"""What a search found, in Markdown."""

from collections.abc import Mapping, Sequence

from onethinker_jax.train.cost.hardware import GIB
from onethinker_jax.train.plans.report import Report
from onethinker_jax.train.plans.search.estimates import usable
from onethinker_jax.train.plans.search.search import Found, Trial, step_seconds
from onethinker_jax.train.plans.search.space import CHANGES
from onethinker_jax.train.plans.targets import Target


def describe_search(found: Found, target: Target, topology: str | None, *, lengths: str | None = None) -> str:
    """The settings that were compiled, fastest first, the flags of the best, and what these keep the same."""
    given = lengths is not None
    as_given = [trial for trial in found.trials if not trial.candidate.changes and not trial.failure]
    steps = step_seconds(as_given[0].reports, target, given=given) if as_given else {}
    stages = [stage for stage, count in (("SFT", found.base.sft.steps), ("RL", found.base.rl.steps)) if count]
    where = topology or f"{len(target.devices)} x {target.chip.name}"
    at = f"at the lengths {lengths}" if given else "every length at its limit"
    lines = [
        f"### Search: {found.base.name} on {where}",
        "",
        f"{found.considered:,} settings; {found.too_large:,} need more than a device's "
        f"{usable(target.chip) / GIB:.1f} GiB by their bound, {len(found.trials)} were compiled: {found.ended}. "
        f"Least seconds of a step, {at}; GiB of the largest program of a step.",
        "",
        "| | "
        + " | ".join(f"{stage} step, s | limits" for stage in stages)
        + " | MFU | GiB | estimated, s |",
        "|---" * (2 * len(stages) + 4) + "|",
    ]
    fitting = [trial for trial in found.trials if not trial.failure]
    failed = [trial for trial in found.trials if trial.failure]
    fitting.sort(key=lambda one: one.seconds(target, given=given))
    lines += [_row(trial, stages, target, given=given) for trial in fitting]
    lines += [
        f"| {_name(trial)} |" + " |" * (2 * len(stages)) + f" | | {trial.failure} |" for trial in failed
    ]
    if not any(not trial.candidate.changes for trial in found.trials):
        nothing = " |" * (2 * len(stages))
        lines.append(f"| as given, not compiled |{nothing} | | {_estimated(found.as_given)} |")
    lines += ["", *_best_lines(found, target, steps, given=given)]
    lines += [f"- Meshes left out, {count}: {reason}" for reason, count in found.refused.items()]
    lines += [f"- {note}" for note in found.notes]
    return "\n".join(lines) + "\n"


def _name(trial: Trial) -> str:
    return f"`{trial.candidate.flags}`" if trial.candidate.changes else "as given"


def _row(trial: Trial, stages: Sequence[str], target: Target, *, given: bool) -> str:
    seconds = step_seconds(trial.reports, target, given=given)
    cells = []
    for stage in stages:
        own = [report for report in trial.reports if report.program.name.startswith(stage)]
        cells += [f"**{seconds[stage]:.4g}**", _limits(own, target)]
    largest = max((report.memory.total for report in trial.reports if report.memory), default=0.0) / GIB
    cells += [f"{_mfu(trial, target, given=given):.0%}", f"{largest:.1f}", _estimated(trial.estimate)]
    return f"| {_name(trial)} | " + " | ".join(cells) + " |"


def _estimated(steps: Mapping[str, float]) -> str:
    return ", ".join(f"{seconds:.4g}" for seconds in steps.values())


def _limits(reports: Sequence[Report], target: Target) -> str:
    """What most of a step's time goes into: a program's least seconds and what limits it."""
    parts = []
    for report in reports:
        limits = report.seconds(target.chip)
        worst = max(limits, key=lambda name: limits[name])
        parts.append((limits[worst] * report.program.runs, report.program.name.split(" ", 1)[1], worst))
    return ", ".join(
        f"{name} {seconds:.3g} ({worst})" for seconds, name, worst in sorted(parts, reverse=True)
    )


def _mfu(trial: Trial, target: Target, *, given: bool) -> float:
    useful = 0.0
    for report in trial.reports:
        expected = report.program.expected
        if given and expected is not None:
            useful += report.expected_model_flops * expected.runs
        else:
            useful += report.model_flops * report.program.runs
    return useful / target.chip.flops / sum(step_seconds(trial.reports, target, given=given).values())


def _best_lines(found: Found, target: Target, before: dict[str, float], *, given: bool) -> list[str]:
    best = found.best
    if best is None:
        return ["Nothing that was compiled fits.", ""]
    if not best.candidate.changes:
        return ["Nothing that was compiled is faster than the settings as given.", ""]
    after = step_seconds(best.reports, target, given=given)
    gains = [
        f"{stage} step {before[stage]:.4g} -> {seconds:.4g} s"
        if stage in before
        else f"{stage} step {seconds:.4g} s"
        for stage, seconds in after.items()
    ]
    lines = [
        f"The best, {', '.join(gains)}:",
        "",
        f"    {best.candidate.flags}",
        "",
        "What these flags keep:",
        "",
    ]
    kept: dict[str, list[str]] = {}
    for name in best.candidate.changes:
        kept.setdefault(CHANGES[name], []).append(f"`{name}`")
    return [*lines, *(f"- {', '.join(names)}: {what}" for what, names in kept.items())]
