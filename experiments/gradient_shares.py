"""Which tasks and which difficulties a method's gradient comes from: the imbalances of the paper, measured.

    python -m experiments.gradient_shares MODEL … --data FOLDER --out FILE.jsonl [-- shapes --rl.…]

Of each model, groups are sampled and scored as RL does, once for all methods. A line a model and method: the norm of
the gradient by task and by the groups' difficulty, its share of the sum of norms, and its cosine with the whole.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optax
import tyro

from experiments.arms import ARMS, METHODS, check_names
from experiments.gradients import Part, cut_gradient, shares, warmed_moments
from experiments.opened_run import OpenedRun, opened
from experiments.result_lines import append_line
from experiments.trials import Sizes, Trial, make_study
from experiments.words import Command, name_of_model, say, split_words
from onethinker_jax.responses import Sampler
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.__main__ import parse as parse_trainer
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.rl.dynamic_sampling import Rollouts
from onethinker_jax.train.rl.learner import advantage_config, group_advantages
from onethinker_jax.train.rl.policy_update import rl_update
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.run import rollout_mesh
from onethinker_jax.train.state import Update

PROG = "python -m experiments.gradient_shares"
DIGITS = 4


@dataclass(frozen=True)
class Arguments:
    """The share of each task and each difficulty in a method's gradient; after `--` a trainer's command line."""

    models: tyro.conf.Positional[tuple[Path, ...]]
    """Hugging Face directories: the SFT model, models of trials (`experiments.ablation … --keep`)."""
    data: Path
    """Folder with the world's JSON files."""
    out: Path
    """File that the lines are added to."""
    arms: tuple[str, ...] = METHODS
    """Rows of experiments/arms.py."""
    batches: int = 8
    """Rollout batches to sample, which warm the task moments in their order, and which the gradient is of together."""
    prompts: int | None = None
    """Groups of a batch; by default the preset's."""
    seed: int = 0
    """Of the order of prompts and of the samples."""


def parse(words: Sequence[str]) -> Command[Arguments]:
    """The command that the words ask for; raises UsageError or SettingError naming what is wrong with it."""
    own, trainer = split_words(words)
    arguments = command_line.parse(Arguments, own, prog=PROG, description=Arguments.__doc__)
    check_names("arm", arguments.arms, tuple(ARMS))
    return Command(arguments, parse_trainer(trainer, prog=f"{PROG} … --"))


def run(command: Command[Arguments]) -> None:
    """Measures each model in turn, and adds a line a model and method to the file."""
    arguments = command.arguments
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            sizes = Sizes(steps=1, prompts=arguments.prompts)
            study = make_study(
                replace(command.base, seed=arguments.seed),
                Path(folder),
                model.resolve(),
                arguments.data.resolve(),
                sizes,
            )
            with opened(replace(study.base, out=Path(folder), name="gradients")) as at:
                sampler = rollout_sampler(at, study.base)
                steps = sample(at, study.base, sampler, arguments.batches)
                updates: dict[PolicyLossSettings, Update] = {}  # methods with one loss share what is compiled
                for arm in arguments.arms:
                    settings = study.config(Trial(arm)).rl
                    if settings.loss not in updates:
                        updates[settings.loss] = rl_update(
                            at.policy, optax.identity(), settings, sampler.config
                        )
                    measured = measure(at, steps, settings, updates[settings.loss])
                    line = {"model": name_of_model(model), "seed": arguments.seed, "arm": arm, **measured}
                    append_line(arguments.out, line)
                    say(f"{model} {arm}: {_brief(line['tasks'])}")


def rollout_sampler(at: OpenedRun, config: TrainConfig) -> Sampler:
    """RL's sampler."""
    return Sampler(
        at.policy.graphdef,
        at.ready.processor,
        config.rl.rollout.all_together(config.rl.prompts_per_step),
        mesh=rollout_mesh(config, at.policy.mesh),
        compute_dtype=at.policy.compute_dtype,
    )


def sample(at: OpenedRun, config: TrainConfig, sampler: Sampler, batches: int) -> list[list[Group]]:
    """The groups of this many steps of RL, filtered as RL does, all from the model as it is."""
    assert at.ready.rl_stream is not None
    at.run.log.stage("rl", batches)
    with Rollouts(
        at.ready.rl_stream, sampler, at.scorer, config.rl, seed=config.seed, log=at.run.log
    ) as rollouts:
        return [rollouts.take(step, at.params).groups for step in range(1, batches + 1)]


def measure(
    at: OpenedRun, steps: Sequence[Sequence[Group]], settings: RLSettings, update: Update
) -> dict[str, Any]:
    """The gradient of all steps' groups together under a method, the task moments having been through them in order."""
    groups = [group for of_step in steps for group in of_step]
    scaling = advantage_config(settings, at.scorer)
    moments = warmed_moments(steps, settings, at.scorer)
    advantages, moments = group_advantages([group.stats for group in groups], moments, scaling, settings)
    cuts = cut_gradient(at.policy, at.params, update, groups, advantages, settings)
    sigma, seen = np.asarray(moments.sigma()), np.asarray(moments.initialised)
    return {
        "groups": len(groups),
        "norm": rounded(float(np.linalg.norm(cuts.total))),
        "sigma": {name: rounded(float(sigma[i])) for i, name in enumerate(MOMENTS) if seen[i]},
        "tasks": _rounded_shares(cuts.tasks, cuts.total),
        "bins": _rounded_shares(cuts.bins, cuts.total),
    }


def _rounded_shares(parts: Mapping[str, Part], total: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {key: rounded(value) for key, value in found.items()}
        for name, found in shares(parts, total).items()
    }


def rounded(value: float) -> float:
    """To a few significant digits."""
    return float(f"{value:.{DIGITS}g}")


def _brief(tasks: Mapping[str, Mapping[str, float]]) -> str:
    most = sorted(tasks, key=lambda task: -tasks[task]["share"])[:3]
    return ", ".join(f"{task} {tasks[task]['share']:.0%}" for task in most)


main = partial(command_line.main, parse, run, prog=PROG)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
