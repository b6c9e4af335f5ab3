"""Estimates against what is traced and compiled: FLOPs, memory that is held, the order of settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import pytest
from scipy.stats import rankdata

from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model import text
from onethinker_jax.model.attention import attention, decode_attention
from onethinker_jax.train import plan
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.attention_layout import run_flops
from onethinker_jax.train.cost.hardware import CHIPS
from onethinker_jax.train.cost.program_cost import count_flops, device_bytes
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.search import search
from onethinker_jax.train.plans.search.estimates import Estimator
from onethinker_jax.train.plans.search.results import Outcome, Results
from onethinker_jax.train.plans.search.search import Found, Search
from onethinker_jax.train.plans.search.space import Candidate, changed
from onethinker_jax.train.policy import planned_sizes
from onethinker_jax.train.simulation.expected_step import largest_sizes
from onethinker_jax.train.simulation.given_lengths import full_lengths
from tests.train.plans.making import CHIP, compile_here, here, several, slice_of, small

COMPILED = Path(__file__).parent / "compiled_v5p.jsonl"
FOUR = MeshSettings(fsdp=2, tensor=2)


def with_sft(config: TrainConfig) -> TrainConfig:
    """SFT of a frozen tower beside RL."""
    batch = BatchSettings(rows=2, tokens=768, patches=512)
    return replace(config, sft=replace(config.sft, steps=3, batch=batch, accumulate=3, train_vision=False))


def on_four(config: TrainConfig) -> TrainConfig:
    """On a mesh of four devices, two rows at once."""
    rl = config.rl
    rollout = replace(rl.rollout, prompt_slots=2)
    sft = replace(config.sft, batch=replace(config.sft.batch, rows=2))
    answers = replace(config.evaluation.sampler, prompt_slots=2)
    return replace(
        config,
        mesh=FOUR,
        sft=sft,
        rl=replace(rl, batch=replace(rl.batch, rows=2), rollout=rollout),
        evaluation=replace(config.evaluation, sampler=answers),
    )


def in_int8(config: TrainConfig) -> TrainConfig:
    """A sampler of int8 matrices, for which the loss corrects."""
    rollout = replace(config.rl.rollout, weights_dtype="int8")
    loss = PolicyLossSettings(importance_sampling="token_truncate")
    return replace(config, rl=replace(config.rl, rollout=rollout, loss=loss))


def overlapping(config: TrainConfig) -> TrainConfig:
    """The sampler at work on the same device while the policy is updated, by two updates a step."""
    loss = PolicyLossSettings(importance_sampling="token_truncate")
    return replace(config, rl=replace(config.rl, overlap=True, loss=loss))


def of_adapters(config: TrainConfig) -> TrainConfig:
    """RL of adapters, so thin that their own products are below a percent."""
    return replace(config, model=replace(config.model, lora=LoRASettings(rank=1)))


@pytest.mark.parametrize(
    "config",
    [
        with_sft(small()),
        replace(on_four(small()), model=replace(small().model, remat="dots")),
        of_adapters(replace(small(), model=replace(small().model, remat="none"))),
        in_int8(on_four(small())),
        overlapping(small()),
        overlapping(in_int8(small())),
        overlapping(of_adapters(small())),
    ],
    ids=[
        "full",
        "dots on four devices",
        "adapters, none",
        "int8 on four devices",
        "overlap",
        "overlap in int8",
        "overlap of adapters",
    ],
)
def test_flops_and_what_is_held_are_those_of_the_plan(config: TrainConfig) -> None:
    """FLOPs of the traced programs, with the kernels of GPUs, to 1%; arguments to a byte in a hundred."""
    sizes, target = planned_sizes(config.model), here(config.mesh.size)
    mesh = target.mesh(config.mesh)
    estimates = {one.name: one for one in Estimator(config, sizes, target).estimates(config)}
    chosen = [
        patch.object(module, "platform_backend", lambda: "flash_gpu")
        for module in (attention, decode_attention, text)
    ]
    with jax.set_mesh(mesh), chosen[0], chosen[1], chosen[2]:
        for program in plan_programs(config, sizes, mesh):
            estimate = estimates.pop(program.name)
            assert estimate.runs == program.runs
            held = sum(
                device_bytes(tree)
                for kind, tree in [*program.arguments.items(), *program.resident.items()]
                if tree is not None and kind not in ("batch", "count")
            )
            assert 0.999 * held <= estimate.memory, program.name
            if "gradients" not in program.name and program.name != "RL prefill":
                assert estimate.memory <= 1.01 * held, program.name
            if program.name.endswith("update"):
                continue
            counted = count_flops(
                program.function.trace(*program.arguments.values()).jaxpr.jaxpr, trips=program.trips
            )
            flops, _ = run_flops(program.layout, counted, counted, "gpu")
            assert estimate.seconds["compute"] * CHIP.flops == pytest.approx(flops / mesh.size, rel=0.01), (
                program.name
            )
    assert not estimates


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Search]:
    """All of `several` compiled for the CPU."""
    base = small(layers=1)
    chosen = [Candidate(config, changed(base, config)) for config in several(base)]
    path: Path = tmp_path_factory.mktemp("search") / "results.jsonl"
    looking = Search(base, here(), Results(path), compile_here)
    with (
        patch.object(search, "candidates", lambda *args, **kwargs: (chosen, {})),
        patch.object(search, "CLOSE", float("inf")),
        patch.object(Search, "_check_whole", lambda *args: None),
    ):
        return looking(budget_s=1e6), looking


@pytest.mark.slow
def test_settings_are_estimated_in_the_order_of_what_compiles(searched: tuple[Found, Search]) -> None:
    found, looking = searched
    assert len(found.trials) == len(several(looking.base)) and not any(
        trial.failure for trial in found.trials
    )
    compiled = [trial.seconds(looking.target, given=False) for trial in found.trials]
    estimated = [trial.estimate["RL"] for trial in found.trials]
    assert max(compiled) > 2 * min(compiled)
    found_order, true_order = (rankdata(one) for one in (estimated, compiled))
    assert np.corrcoef(found_order, true_order)[0, 1] > 0.9  # Spearman's
    assert found.best is not None and found.best.seconds(looking.target, given=False) == min(compiled)


@pytest.mark.slow
def test_no_setting_is_left_out_that_compiles_within_memory(searched: tuple[Found, Search]) -> None:
    """The bound of every program is below what it needs as compiled, and near it where nothing is kept."""
    found, looking = searched
    for trial in found.trials:
        estimates = {one.name: one for one in looking.estimator.estimates(trial.candidate.config)}
        for report in trial.reports:
            assert report.memory is not None
            assert 0 < estimates[report.program.name].memory <= report.memory.total, report.program.name


def kept_rows() -> list[dict[str, Any]]:
    """Programs of qwen3_vl_8b_rl that a search compiled for a v5p-32, as its file of results has them."""
    return [json.loads(line) for line in COMPILED.read_text(encoding="utf-8").splitlines()]


def test_programs_of_a_tpu_are_estimated_as_they_compiled() -> None:
    """Least seconds to a quarter, in the same order; what must be kept or returned is no more than XLA has for it."""
    base = PRESETS["qwen3_vl_8b_rl"]()
    target, sizes = slice_of(CHIPS["v5p"], 16, a_process=4), planned_sizes(base.model)
    estimator, pairs = Estimator(base, sizes, target), []
    for row in kept_rows():
        config, program = plan.parse([base.name, *row["flags"].split()]), row["program"]
        compiled = Outcome.from_json(row).compiled
        assert compiled is not None and compiled.traffic is not None
        estimate = next(one for one in estimator.estimates(config) if one.name == program)
        layout = estimator.micro_batches("RL", config)[1] if program == "RL gradients" else None
        flops, _ = run_flops(layout, compiled.flops, compiled.model_flops, "tpu")
        moved, sent = compiled.traffic.hbm, sum(compiled.traffic.wire.values())
        chip, devices = target.chip, config.mesh.size
        limits = (
            flops / devices / chip.flops,
            moved / chip.hbm_bandwidth,
            sent / chip.link_bandwidth,
        )
        pairs.append((estimate.step, estimate.runs * max(limits)))
        held = estimator.holdings(config.mesh)
        beside = {
            "RL gradients": held.training("RL"),
            "RL prefill": held.sampling(config.rl.rollout.weights_dtype) + estimator.cache_bytes(config),
        }
        if program in beside:
            made = compiled.outputs + compiled.temporaries
            assert 0 < estimate.memory - beside[program] <= made, program
    assert len(pairs) >= 3
    for estimated, seconds in pairs:
        assert estimated == pytest.approx(seconds, rel=0.25)
    assert sorted(range(len(pairs)), key=lambda n: pairs[n][0]) == sorted(
        range(len(pairs)), key=lambda n: pairs[n][1]
    )


def test_given_lengths_are_estimated_too() -> None:
    """At the limits they are the full step; at half of them it takes less, and shorter answers less decoding."""
    config = small()
    sizes = planned_sizes(config.model)
    full = full_lengths(largest_sizes(config))
    whole, limits = (
        {one.name: one.step for one in Estimator(config, sizes, here(), given).estimates(config)}
        for given in (None, full)
    )
    for name, seconds in whole.items():
        assert limits[name] == pytest.approx(seconds, rel=0.02), name
    group = full.groups[0]
    short = replace(full, groups=[replace(group, completions=tuple(n // 2 for n in group.completions))])
    shorter = {one.name: one.step for one in Estimator(config, sizes, here(), short).estimates(config)}
    assert shorter["RL decoding"] < 0.7 * whole["RL decoding"]
