"""What 200 steps of RL may cost on TPU slices and GPU hosts, by the search's estimates, into docs/performance.md.

pip install '.[tpu,gpu-plan]'
python docs/costs.py [SIZE ...]      # 2b 4b 8b 30b-a3b 32b by default; some seconds a slice, nothing is compiled
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # the devices are only described

from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.gpu import is_gpu, parse_gpu_topology
from onethinker_jax.train.cost.hardware import parse_topology
from onethinker_jax.train.plans.search.estimates import Estimate, Estimator, usable
from onethinker_jax.train.plans.search.search import SURE
from onethinker_jax.train.plans.search.space import Candidate, candidates
from onethinker_jax.train.plans.targets import Target, find_target
from onethinker_jax.train.policy import planned_sizes

PAGE = Path(__file__).parent / "performance.md"
BEGIN, END = "<!-- costs: begin -->", "<!-- costs: end -->"
SIZES = ("2b", "4b", "8b", "30b-a3b", "32b")
SLICES = ("v5p-32", "v5p-128", "v6e-64", "v6e-256", "h200x8", "h200x8x4", "h200x8x8")
STEPS = 200
LINKS = {"ICI", "NVLink", "network"}  # what limits a program where communication does


def main(sizes: Sequence[str]) -> int:
    """Writes the table; returns the exit status."""
    if unknown := set(sizes) - set(SIZES):
        sys.stderr.write(f"error: unknown size {min(unknown)!r}; there are: {', '.join(SIZES)}\n")
        return 2
    lines = [
        "| model | on | step, s | MFU | chip-hours of 200 steps | links, of the step | settings |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in sizes or SIZES:
        for topology in SLICES:
            lines.append(_row(size, topology))
            sys.stderr.write(f"{lines[-1]}\n")
    before, _, after = re.split(f"{BEGIN}|{END}", PAGE.read_text())
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")
    return 0


def _row(size: str, topology: str) -> str:
    """The fastest settings that are expected to fit."""
    base = PRESETS[f"qwen3_vl_{size.replace('-', '_')}_rl"]()
    described = parse_gpu_topology(topology) if is_gpu(topology) else parse_topology(topology)
    target = find_target(MeshSettings(fsdp=described.devices), topology)
    estimator = Estimator(base, planned_sizes(base.model), target)
    best, estimates = min(
        _fitting(base, target, estimator), key=lambda one: _seconds(one[1]), default=(None, [])
    )
    if best is None:
        return f"| {size} | {topology} | does not fit | | | | |"
    seconds, devices = _seconds(estimates), len(target.devices)
    unrepeated = estimator.estimates(replace(best.config, model=replace(best.config.model, remat="none")))
    computing = sum(one.seconds["compute"] * one.runs for one in unrepeated if "compute" in one.seconds)
    linked = sum(one.step for one in estimates if _limit(one) in LINKS)
    config, mesh = best.config, best.config.mesh
    rows = config.rl.batch
    return (
        f"| {size} | {topology} | {seconds:.3g} | {computing / seconds:.0%} | "
        f"{seconds * STEPS * devices / 3600:,.0f} | {linked / seconds:.0%} | "
        f"data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}; remat {config.model.remat}; "
        f"{rows.rows} rows of {rows.tokens:,}; {config.rl.rollout.prompt_slots} prompts decoded |"
    )


def _fitting(
    base: TrainConfig, target: Target, estimator: Estimator
) -> Iterator[tuple[Candidate, list[Estimate]]]:
    most = SURE * usable(target.chip)
    found, _ = candidates(base, planned_sizes(base.model), target, estimator, buckets=False)
    for one in found:
        if one.config.mesh.size != len(target.devices):
            continue  # the preset's own mesh
        estimates = estimator.estimates(one.config)
        if max(estimate.likely for estimate in estimates) <= most:
            yield one, estimates


def _seconds(estimates: Sequence[Estimate]) -> float:
    return sum(one.step for one in estimates)


def _limit(estimate: Estimate) -> str:
    return max(estimate.seconds, key=lambda name: estimate.seconds[name])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
