"""RL from one SFT model by several methods: the same records, steps, groups and learning rate, several seeds each.

    python -m experiments.ablation OUT --arms ema_grpo_paper grpo dr_grpo --seeds 0 1 2 3 4 --workers 2
    python -m experiments.ablation OUT --start MODEL --data FOLDER --steps 32 --prompts 16 -- shapes --rl.save-every 8

What stands after `--` is a command line of the trainer: a preset and flags that all trials share. A trial is one run of
the trainer in OUT/runs/NAME; its line goes to OUT/results.jsonl, and the folder goes. The same command goes on where it
stopped, in a run that was killed from its checkpoint, and leaves out trials whose lines stand.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from experiments.arms import ARMS, BASELINE, METHODS, MIXTURES, check_names
from experiments.result_lines import append_line, check_lines, result_line
from experiments.trial_process import answer_heldout, train
from experiments.trials import START, Sizes, Study, Trial, digest_of, make_study
from experiments.words import Command, say, split_words
from experiments.workers import Job, core_shares, run_jobs
from onethinker_jax.command_line import UsageError
from onethinker_jax.errors import UserError
from onethinker_jax.train.__main__ import parse as parse_trainer
from onethinker_jax.train.claim import check_claim
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.pages.run_facts import code_version

PROG = "python -m experiments.ablation"


class TrialsFailed(UserError):
    """Trials that ended with an error, each named with its reason in the lines before."""


@dataclass(frozen=True)
class Arguments:
    """RL from one SFT model by several methods, several seeds each; after `--` a command line of the trainer."""

    out: tyro.conf.Positional[Path]
    """Folder of the trials and of results.jsonl."""
    arms: tuple[str, ...] = METHODS
    """Rows of experiments/arms.py: methods, and sweeps of one setting. The SFT model, `none`, is always measured."""
    mixtures: tuple[str, ...] = ("mixed",)
    """Tasks that RL trains on: `mixed` (all), `sparse`, `dense`, or all but a family (`without_qa` …)."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the order of prompts and of the samples; the SFT model and the held-out records are the same for all."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to sweep; by default the preset's alone. A method's advantages are all larger or smaller than
    another's, and a factor on them acts like one on the rate as far as gradient clipping and AdamW let it."""
    start: Path | None = None
    """The SFT model, a Hugging Face directory; by default made in OUT/sft by the preset's SFT."""
    data: Path | None = None
    """Folder with the world's JSON files; needed with `start`."""
    steps: int | None = None
    """RL steps; by default the preset's."""
    prompts: int | None = None
    """Groups of a step at the preset's G; an arm of another G has as many samples."""
    heldout: int | None = None
    """Held-out records to answer, with every task's share; by default all."""
    workers: int = 1
    """Trials side by side, each on its share of the cores."""
    keep: bool = False
    """Keep the folders of the runs."""
    short: bool = False
    """Two arms, one seed, two steps of the preset `smoke`: shows that all of it works."""


def parse(words: Sequence[str]) -> Command[Arguments]:
    """The command that the words ask for; raises UsageError or SettingError naming what is wrong with it."""
    own, trainer = split_words(words)
    arguments = command_line.parse(Arguments, own, prog=PROG, description=Arguments.__doc__)
    if arguments.short:
        arguments = replace(arguments, arms=METHODS[:2], seeds=(0,), steps=2)
        trainer = ["smoke", *trainer]
    check_names("arm", arguments.arms, (BASELINE, *ARMS))
    check_names("mixture", arguments.mixtures, tuple(MIXTURES))
    if (arguments.start is None) != (arguments.data is None):
        raise UsageError(
            "--start and --data go together: the SFT model, and the folder of its world's records"
        )
    return Command(arguments, parse_trainer(trainer, prog=f"{PROG} … --"))


def trials_of(arguments: Arguments) -> list[Trial]:
    """The SFT model, and the trials, those of a seed side by side: comparisons are whole as early as can be."""
    arms = [arm for arm in arguments.arms if arm != BASELINE]
    found = [
        Trial(arm, mixture, seed, rate)
        for mixture in arguments.mixtures
        for seed in arguments.seeds
        for rate in arguments.learning_rates or (None,)
        for arm in arms
    ]
    return list(dict.fromkeys([Trial(BASELINE), *found]))


def run(command: Command[Arguments]) -> None:
    """Runs the trials that have no line yet.

    Raises ResultsError naming a line of other settings, and TrialsFailed after all others when some failed.
    """
    arguments = command.arguments
    shares = core_shares(arguments.workers)
    whole = sorted(core for share in shares for core in share)
    out = arguments.out.resolve()
    start, data = arguments.start, arguments.data
    if start is None or data is None:
        start, data = _make_start(command.base, out, whole)
    sizes = Sizes(arguments.steps, arguments.prompts, arguments.heldout)
    study = make_study(command.base, out, start.resolve(), data.resolve(), sizes)
    trials = trials_of(arguments)
    digests = {trial: digest_of(study.config(trial)) for trial in trials}
    done = check_lines(study.results, {trial.name: digest for trial, digest in digests.items()})
    pending = [trial for trial in trials if trial.name not in done]
    say(f"{len(trials)} trials, {len(done)} of them done")
    first = Trial(BASELINE)
    config = study.config(first)
    if first in pending or (pending and not config.folder.heldout.is_dir()):
        check_claim(config)
        say("the SFT model's held-out answers …")
        _succeed(Job(START, answer_heldout, config, study.log(first)), whole)
    if first in pending:
        pending.remove(first)
        _write_line(study, first, digests[first])
    _run_trials(study, {trial: digests[trial] for trial in pending}, shares, keep=arguments.keep)


def _make_start(base: TrainConfig, out: Path, cores: Sequence[int]) -> tuple[Path, Path]:
    """The SFT model and its world, made by the trainer in OUT/sft, where they do not stand."""
    config = replace(base, out=out, name="sft", rl=replace(base.rl, steps=0))
    check_claim(config)
    if not config.folder.finished:
        say("SFT, which all trials start from …")
        _succeed(Job("sft", train, config, out / "sft.log"), cores)
    return config.folder.model, config.folder.world


def _succeed(job: Job, cores: Sequence[int]) -> None:
    """Runs one job to its end; raises TrialsFailed with its reason when it fails."""
    with closing(run_jobs([job], [cores])) as ends:
        for ended in ends:
            if ended.status:
                raise TrialsFailed(f"{job.name}: {ended.reason}")


def _run_trials(
    study: Study, digests: Mapping[Trial, str], shares: Sequence[Sequence[int]], *, keep: bool
) -> None:
    """Runs the trials and writes their lines; raises TrialsFailed at the end when some failed."""
    trials = {trial.name: trial for trial in digests}
    jobs = []
    for name, trial in trials.items():
        config = study.config(trial)
        check_claim(config)
        jobs.append(Job(name, train, config, study.log(trial), study.take_start))
    failed = []
    with closing(run_jobs(jobs, shares)) as ends:
        for number, ended in enumerate(ends, 1):
            job = ended.job
            if ended.status:
                failed.append(job.name)
                say(f"{number}/{len(jobs)} {job.name} FAILED: {ended.reason}")
                continue
            trial = trials[job.name]
            line = _write_line(study, trial, digests[trial])
            say(f"{number}/{len(jobs)} {job.name}: {ended.seconds:.0f} s, {_brief(line)}")
            if not keep:
                shutil.rmtree(job.config.directory)
                job.log.unlink()
    if failed:
        raise TrialsFailed(
            f"{len(failed)} of {len(jobs)} trials failed ({', '.join(failed)}); the same command tries them again"
        )


def _write_line(study: Study, trial: Trial, digest: str) -> dict[str, Any]:
    line = result_line(trial, study.config(trial), digest=digest, code=code_version())
    append_line(study.results, line)
    return line


def _brief(line: Mapping[str, Any]) -> str:
    """Means over all held-out records: "greedy accuracy 0.412, reward 0.873; sampled …"."""
    said = []
    for kind, tasks in line["heldout"].items():
        count = sum(row[0] for row in tasks.values())
        accuracy, reward = (sum(row[0] * row[i] for row in tasks.values()) / count for i in (1, 2))
        said.append(f"{kind} accuracy {accuracy:.3f}, reward {reward:.3f}")
    return "; ".join(said)


main = partial(command_line.main, parse, run, prog=PROG, stopped="the same command goes on from here")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
