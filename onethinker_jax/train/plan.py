"""python -m onethinker_jax.train.plan PRESET --topology v5p-32 [--flags]: does it fit, and how fast could it be?

Compiles the preset's device programs for a TPU slice or a GPU host (h200x8), on a machine without one, and reports
memory, FLOPs, bytes moved, collectives and a roofline estimate (docs/plan.md). Without --topology it reports for the
GPUs present; --only sampling (or RL, or "gradients|update") compiles the programs whose names match.

Exit status: 0 it fits, 1 it does not or cannot be planned (one line says why), 2 an unknown preset or flag.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import os
import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from onethinker_jax.train.__main__ import parse
from onethinker_jax.train.config.checks import SettingError, positive
from onethinker_jax.train.config.run import TrainConfig


@dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """What is to be planned, and for which devices."""

    topology: str | None = None
    """What to compile for: a TPU slice (v5p-32, v6e:4x8), GPUs of a host (h200x8) or of two (h200x8x2); by default the
    GPUs that are present."""
    only: str = ""
    """Compiles the programs whose names match this regular expression, such as sampling or RL."""
    lengths: str | None = None
    """Also report the step at these lengths: a file of them (such as a run's lengths.jsonl), or stated distributions,
    such as prompt=1200,response=lognormal:600:0.8."""
    search: bool = False
    """Look for settings that make a step fast and compute the same: estimate all, compile the most promising."""
    budget: float = 30.0
    """Minutes of a search; no compilation begins after them."""
    results: Path | None = None
    """File that a search keeps compilations in, and goes on from; by default `out`/plans/PRESET-TOPOLOGY.jsonl."""
    compile_gib: float | None = None
    """GiB of this machine's memory that a compilation of a search may take; by default any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search and self.only:
            raise SettingError("only is not for search, which plans whole steps")
        if self.search and self.rl.rollout_mesh is not None:
            raise SettingError("search knows no rl.rollout_mesh")
        positive("search", self, "budget")
        if self.compile_gib is not None:
            positive("search", self, "compile_gib")

    def config(self) -> TrainConfig:
        """The run's own settings."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})


def run(config: PlanConfig) -> int:
    """Compiles and reports; returns 0 where all fits, else 1."""
    if config.topology is not None:  # before the first import of JAX: the slice's devices are only described
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("USE_TORCH", "0")
    if config.search:
        return _search(config)
    command_line.interrupts_end_at_once("stopped")  # the compiler does not come back before it is done
    from onethinker_jax.train.plans.compiling import plan
    from onethinker_jax.train.plans.description import describe
    from onethinker_jax.train.plans.lengths import describe_expected
    from onethinker_jax.train.plans.targets import find_target
    from onethinker_jax.train.simulation.expected_step import largest_sizes
    from onethinker_jax.train.simulation.given_lengths import given_lengths

    lengths = None if config.lengths is None else given_lengths(config.lengths, largest_sizes(config))
    target = find_target(config.mesh, config.topology)
    chip, mesh = target.chip, target.mesh(config.mesh)
    reports = plan(config, mesh, only=config.only, lengths=lengths)
    sys.stdout.write(describe(config, chip, mesh, reports, config.topology, only=config.only))
    if lengths is not None:
        notes = lengths.notes
        sys.stdout.write(describe_expected(config.lengths or "", notes, reports, chip, only=config.only))
    return 0 if all(report.fits(chip) for report in reports) else 1


def _search(config: PlanConfig) -> int:
    """Searches and says what was found; returns 0 where something fits, else 1."""
    from onethinker_jax.train.plans.search.results import Results
    from onethinker_jax.train.plans.search.search import Search, compile_in_process
    from onethinker_jax.train.plans.search.table import describe_search
    from onethinker_jax.train.plans.targets import find_target
    from onethinker_jax.train.simulation.expected_step import largest_sizes
    from onethinker_jax.train.simulation.given_lengths import given_lengths

    base, topology = config.config(), config.topology
    lengths = None if config.lengths is None else given_lengths(config.lengths, largest_sizes(base))
    path = config.results or config.out / "plans" / f"{config.name}-{topology or 'here'}.jsonl"
    results = Results(path)
    target = find_target(base.mesh, topology)
    compiling = compile_in_process(
        topology, None if config.compile_gib is None else config.compile_gib * 2**30
    )

    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    search = Search(base, target, results, compiling, topology=topology, given=lengths, tell=tell)
    found = search(60 * config.budget)
    sys.stdout.write(describe_search(found, target, topology, lengths=config.lengths))
    return 0 if found.best is not None else 1


main = partial(
    command_line.main,
    partial(parse, settings=PlanConfig, prog="python -m onethinker_jax.train.plan"),
    run,
    stopped="what was compiled is kept: the same command goes on from here",
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
