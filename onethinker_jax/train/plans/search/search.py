"""Looks for settings that make a step fast: estimates all, compiles the most promising, best first.

What a compilation says corrects the estimates of the same program under other settings, so the order changes as the
search goes on. It ends when no setting is expected to be faster than the best that compiled, or with the budget: no
compilation begins after that, and the one at work is finished.
"""

import contextlib
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from onethinker_jax.model.generation.generate import decode_options
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.plans.compiling import report_of
from onethinker_jax.train.plans.lengths import expected_seconds
from onethinker_jax.train.plans.planned_program import Program
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.report import Report
from onethinker_jax.train.plans.search.estimates import Estimate, Estimator, usable
from onethinker_jax.train.plans.search.results import Outcome, Results, digest, digest_of_sources
from onethinker_jax.train.plans.search.space import Candidate, candidates, changed
from onethinker_jax.train.plans.search.worker import TOO_LARGE, question
from onethinker_jax.train.plans.targets import Target
from onethinker_jax.train.policy import planned_sizes
from onethinker_jax.train.simulation.given_lengths import GivenLengths
from onethinker_jax.worker_process import WorkerProcess

PACKAGE = Path(__file__).parents[3]
COMPILE_LIMIT_S = 2 * 3600.0
CLOSE = 1.02
"""Settings that are expected within this factor of the best that compiled are compiled as well."""
SURE = 0.85
"""Share of the memory within which a program is expected to fit before any of its kind has compiled."""

Compile = Callable[[TrainConfig, str], Outcome]
"""Compiles the program of this name, of these settings."""


@dataclass(frozen=True)
class Trial:
    """Settings that were compiled, and what came of it: reports of all programs, or of those up to a failure."""

    candidate: Candidate
    estimate: dict[str, float]  # stage -> seconds of a step, before anything was compiled
    reports: list[Report]
    failure: str = ""  # "" where all programs compiled and fit

    def seconds(self, target: Target, *, given: bool) -> float:
        """Of the run's steps, of all stages."""
        return run_seconds(self.candidate.config, step_seconds(self.reports, target, given=given))


@dataclass
class Found:
    """What a search leaves: its trials, in order, and what became of all other settings."""

    base: TrainConfig
    considered: int
    refused: Mapping[str, int]  # meshes, by reason
    too_large: int  # settings whose bound of memory is beyond a device's
    as_given: dict[str, float]  # stage -> estimated seconds of a step of `base`
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    ended: str = ""
    notes: list[str] = field(default_factory=list)


def run_seconds(config: TrainConfig, steps: Mapping[str, float]) -> float:
    """Of all steps of a run, of seconds a step by stage."""
    counts = {"SFT": config.sft.steps, "RL": config.rl.steps}
    return sum(seconds * counts[stage] for stage, seconds in steps.items())


def estimated_steps(
    estimates: Sequence[Estimate], correction: Callable[[str], float] = lambda program: 1.0
) -> dict[str, float]:
    """Stage -> seconds of a step; `correction` is a program's factor."""
    found: dict[str, float] = {}
    for one in estimates:
        stage = one.name.split()[0]
        found[stage] = found.get(stage, 0.0) + one.step * correction(one.name)
    return found


def least_seconds(report: Report, target: Target, *, given: bool) -> float:
    """Least seconds of a program's runs of a step, at full or at the given lengths."""
    if given:
        assert report.program.expected is not None
        return expected_seconds(report, target.chip) * report.program.expected.runs
    return max(report.seconds(target.chip).values()) * report.program.runs


def step_seconds(reports: Sequence[Report], target: Target, *, given: bool) -> dict[str, float]:
    """Stage -> least seconds of a step, all of its programs' runs one after another."""
    found: dict[str, float] = {}
    for report in reports:
        stage = report.program.name.split()[0]
        found[stage] = found.get(stage, 0.0) + least_seconds(report, target, given=given)
    return found


class Search:
    """A search around `base`, whose outcomes are kept in `results`."""

    def __init__(
        self,
        base: TrainConfig,
        target: Target,
        results: Results,
        compile_program: Compile,
        *,
        topology: str | None = None,
        given: GivenLengths | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ):
        self.base, self.target, self._results, self._compile = base, target, results, compile_program
        self._topology, self._given, self._tell = topology, given, tell
        self._sizes = planned_sizes(base.model)
        self.estimator = Estimator(base, self._sizes, target, given)
        self._place = digest(topology, *_versions())
        self._counting = digest_of_sources(PACKAGE / "train" / "cost")
        self._sources = digest_of_sources(PACKAGE)
        self._over: dict[
            str, list[tuple[float, float]]
        ] = {}  # program -> compiled over estimated: seconds, bytes

    def __call__(self, budget_s: float) -> Found:
        """Compiles for about `budget_s` seconds."""
        end = time.monotonic() + budget_s
        some = self._given is not None
        all_of_them, refused = candidates(self.base, self._sizes, self.target, self.estimator, buckets=some)
        estimates = {id(one): self.estimator.estimates(one.config) for one in all_of_them}
        most = usable(self.target.chip)
        small = [one for one in all_of_them if max(e.memory for e in estimates[id(one)]) <= most]
        too_large = len(all_of_them) - len(small)
        as_given = estimated_steps(estimates[id(all_of_them[0])])
        found = Found(self.base, len(all_of_them), refused, too_large, as_given)
        waiting = [one for one in small if one is not all_of_them[0]]
        self._tell(
            f"{len(all_of_them):,} settings, {found.too_large:,} too large; compiling those that promise most"
        )
        first = [all_of_them[0]]  # after the most promising, which is worth more where time is short
        while waiting or first:
            waiting.sort(key=lambda one: self._order(one, estimates[id(one)]))
            if first and (found.trials or not waiting):
                candidate = first.pop()
            elif found.best is not None and not self._promises(estimates[id(waiting[0])], found.best):
                found.ended = "no other setting is expected to be faster"
                break
            else:
                candidate = waiting.pop(0)
            trial = self._try(candidate, estimates[id(candidate)], end)
            if trial is None:
                found.ended = "the budget is used up"
                break
            found.trials.append(trial)
            better = found.best is None or self._seconds(trial) < self._seconds(found.best)
            if not trial.failure and better:
                found.best = trial
        else:
            found.ended = "every setting was compiled"
        self._check_whole(found, end)
        return found

    def _seconds(self, trial: Trial) -> float:
        return trial.seconds(self.target, given=self._given is not None)

    def _order(self, one: Candidate, estimates: Sequence[Estimate]) -> tuple[bool, float, float, int]:
        """Settings that fit first, then fast ones; of equals those that need little memory, and change little."""
        memory = {e.name: e.likely + self._correction(e.name)[1] for e in estimates}
        most = usable(self.target.chip)
        tight = any(needed > most * (1 if name in self._over else SURE) for name, needed in memory.items())
        seconds = float(f"{self._expected(estimates):.3g}")
        return tight, seconds, max(memory.values()), len(one.changes)

    def _expected(self, estimates: Sequence[Estimate]) -> float:
        """Seconds of the run's steps by the estimates, corrected by what compiled."""
        return run_seconds(self.base, self._expected_steps(estimates))

    def _expected_steps(self, estimates: Sequence[Estimate]) -> dict[str, float]:
        return estimated_steps(estimates, lambda program: self._correction(program)[0])

    def _promises(self, estimates: Sequence[Estimate], best: Trial) -> bool:
        return self._expected(estimates) < self._seconds(best) * CLOSE

    def _correction(self, program: str) -> tuple[float, float]:
        """Of what compiled: seconds over the estimated ones, the mean; and bytes beyond the likely ones, the mean."""
        over = self._over.get(program)
        if not over:
            return 1.0, 0.0
        return statistics.mean(seconds for seconds, _ in over), statistics.mean(memory for _, memory in over)

    def _try(self, candidate: Candidate, estimates: Sequence[Estimate], end: float) -> Trial | None:
        """Compiles what is not known of the settings' programs; None where the budget ends before."""
        uncorrected = estimated_steps(estimates)
        by_name = {estimate.name: estimate for estimate in estimates}
        self._tell(f"{candidate.flags or 'as given'}: {_said(self._expected_steps(estimates))} expected")
        reports: dict[str, Report] = {}
        mesh = self.target.mesh(candidate.config.mesh)
        with jax.set_mesh(mesh):
            programs = plan_programs(candidate.config, self._sizes, mesh, lengths=self._given)
            # A sampler compiles fast: where it does not fit, gradients need not be compiled.
            for program in sorted(programs, key=lambda one: "gradients" in one.name):
                outcome = self._outcome(candidate, program, end)
                if outcome is None:
                    return None
                failure = outcome.error
                if outcome.compiled is not None:
                    report = report_of(program, outcome.compiled, mesh)
                    reports[program.name] = report
                    self._learn(report, by_name.get(program.name))
                    failure = _misfit(report, self.target)
                if failure:
                    self._tell(f"  {program.name}: {failure}")
                    return Trial(candidate, uncorrected, list(reports.values()), f"{program.name}: {failure}")
        ordered = [reports[program.name] for program in programs]
        trial = Trial(candidate, uncorrected, ordered)
        self._tell(f"  {_said(step_seconds(ordered, self.target, given=self._given is not None))}")
        return trial

    def _learn(self, report: Report, estimate: Estimate | None) -> None:
        if estimate is None or report.memory is None:
            return
        steps = least_seconds(report, self.target, given=self._given is not None)
        over = self._over.setdefault(report.program.name, [])
        over.append((steps / max(estimate.step, 1e-12), report.memory.total - estimate.likely))

    def _outcome(self, candidate: Candidate, program: Program, end: float) -> Outcome | None:
        """What is known of the program, or what its compilation says; None where no time is left for one."""
        settings = changed(TrainConfig(), candidate.config)
        key = digest(self._place, self._sources, sorted(settings.items()), program.name)
        if (known := self._results.of(key)) is not None:
            return known
        lowered = program.function.trace(*program.arguments.values()).lower()
        dtype = candidate.config.rl.rollout.weights_dtype
        options = decode_options(dtype) if "decoding" in program.name else {}
        text = digest(self._place, self._counting, program.name, program.trips, options, lowered.as_text())
        outcome = self._results.of_text(text)
        if outcome is None:
            if time.monotonic() >= end:
                return None
            began = time.monotonic()
            outcome = self._compile(candidate.config, program.name)
            self._tell(f"  {program.name}: compiled in {time.monotonic() - began:.0f} s")
        about = {
            "settings": self.base.name,
            "flags": candidate.flags,
            "topology": self._topology,
            "program": program.name,
        }
        self._results.add(key, text, outcome, about)
        return outcome

    def _check_whole(self, found: Found, end: float) -> None:
        """Compiles what else the best settings run: what moves caches, the held-out sampler; else the next best."""
        fitting = sorted((trial for trial in found.trials if not trial.failure), key=self._seconds)
        for trial in fitting:
            config = trial.candidate.config
            mesh = self.target.mesh(config.mesh)
            failure, known = "", {report.program.name for report in trial.reports}
            with jax.set_mesh(mesh):
                for program in plan_programs(config, self._sizes, mesh, everything=True):
                    # Decoding has prompts that wait beside it now: what was compiled stands, its memory is more.
                    outcome = self._outcome(trial.candidate, program, end)
                    if outcome is None:
                        found.notes.append(
                            f"not compiled for the best settings, as the budget is used up: {program.name}"
                        )
                        continue
                    failure = outcome.error
                    if outcome.compiled is not None:
                        failure = _misfit(report_of(program, outcome.compiled, mesh), self.target)
                    if failure:
                        failure = (
                            f"{program.name}{'' if program.name in known else ', compiled last'}: {failure}"
                        )
                        break
            found.best = trial if not failure else None
            if not failure:
                return
            found.notes.append(f"{trial.candidate.flags or 'as given'}: {failure}")


def _said(steps: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} step {seconds:.4g} s" for stage, seconds in steps.items())


def _versions() -> list[str]:
    """Of the libraries that trace and compile."""
    found = []
    for name in ("jax", "jaxlib", "flax", "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def _misfit(report: Report, target: Target) -> str:
    """Why a compiled program does not fit, or nothing."""
    if report.fits(target.chip):
        return ""
    if report.memory is None:
        return report.refusal
    return f"needs {report.memory.total / 2**30:.1f} GiB of {usable(target.chip) / 2**30:.1f}"


def compile_in_process(topology: str | None, most_bytes: float | None) -> Compile:
    """Compilations in a process of their own, one after the other; of at most `most_bytes` of this machine's memory."""

    def compiled(config: TrainConfig, program: str) -> Outcome:
        process = WorkerProcess("onethinker_jax.train.plans.search.worker")
        try:
            answer: Any = process.ask(question(config, topology, program, most_bytes), COMPILE_LIMIT_S)
        finally:
            process.stop()
        if answer is not None:
            return Outcome.from_json(answer)
        return Outcome(error=_death(process.ended_by, most_bytes))

    return compiled


def _death(ended_by: int | None, most_bytes: float | None) -> str:
    if ended_by is None:
        return (
            f"the compilation did not end within {COMPILE_LIMIT_S / 3600:.0f} hours, or ended without a word"
        )
    if ended_by == TOO_LARGE and most_bytes is not None:
        return f"the compilation took more than {most_bytes / 2**30:.1f} GiB of this machine's memory"
    if ended_by == signal.SIGKILL:
        return "the compilation was killed, as for want of this machine's memory"
    return f"the compiler crashed ({signal.Signals(ended_by).name})"
