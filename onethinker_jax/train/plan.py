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
from dataclasses import dataclass
from functools import partial

from onethinker_jax.train.__main__ import parse
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


def run(config: PlanConfig) -> int:
    """Compiles and reports; returns 0 where all fits, else 1."""
    if config.topology is not None:  # before the first import of JAX: the slice's devices are only described
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("USE_TORCH", "0")
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


main = partial(
    command_line.main, partial(parse, settings=PlanConfig, prog="python -m onethinker_jax.train.plan"), run
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
