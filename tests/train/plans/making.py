"""A small RL run for one CPU device with made-up limits, and settings of it to estimate and to compile."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax

from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.hardware import Chip
from onethinker_jax.train.plans.compiling import compile_counted, program_pairs
from onethinker_jax.train.plans.planned_program import Program
from onethinker_jax.train.plans.search.results import Outcome
from onethinker_jax.train.plans.targets import Target

# Gradients are limited by FLOPs here, decoding by bytes, as on chips.
CHIP = Chip("tiny", hbm=2**30, flops=4e12, hbm_bandwidth=4e10, link_bandwidth=1e10)
GROUP, PROMPT, ANSWER = 4, 512, 128


def small(layers: int = 2) -> TrainConfig:
    """A model with a tower, `layers` each; 4 prompts a step in 2 updates, 4 samples of each, one a row."""
    base = shapes()
    model = ModelSettings(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_layers=layers,
        num_heads=2,
        num_kv_heads=2,
        head_dim=64,
        vision_depth=layers,
        vision_hidden_size=64,
        vision_intermediate_size=128,
        vision_heads=2,
        vision_grid=16,
        deepstack_layers=(0,),
        compute_dtype="bfloat16",
    )
    rollout = SamplerSettings(
        prompt_tokens=PROMPT,
        prompt_patches=512,
        max_new_tokens=ANSWER,
        group_size=GROUP,
        prompt_slots=1,
        prefill_rows=1,
    )
    return replace(
        base,
        name="small",
        model=model,
        sft=replace(base.sft, steps=0),
        rl=replace(
            base.rl,
            steps=10,
            prompts_per_step=4,
            num_minibatches=2,
            rollout=rollout,
            batch=BatchSettings(rows=1, tokens=PROMPT + ANSWER, patches=512),
        ),
    )


def several(base: TrainConfig) -> list[TrainConfig]:
    """`base`, and with it rows of a whole group, everything kept, more slots."""
    found = []
    for (samples, remat), slots in itertools.product(((1, "full"), (GROUP, "full"), (GROUP, "none")), (1, 4)):
        batch = replace(base.rl.batch, tokens=PROMPT + samples * ANSWER)
        rl = replace(base.rl, batch=batch, rollout=replace(base.rl.rollout, prompt_slots=slots))
        found.append(replace(base, model=replace(base.model, remat=remat), rl=rl))
    return found


def here(devices: int = 1) -> Target:
    """CPU devices with the made-up limits."""
    return Target(CHIP, jax.devices()[:devices])


def slice_of(chip: Chip, devices: int, *, a_process: int, platform: str = "tpu") -> Target:
    """Devices to estimate for, which cannot be compiled for."""
    described: list[Any] = [
        SimpleNamespace(platform=platform, process_index=number // a_process) for number in range(devices)
    ]
    return Target(chip, described)


_pairs: dict[str, dict[str, tuple[Program, Program]]] = {}


def compile_here(config: TrainConfig, program: str) -> Outcome:
    """Compiles for the CPU, in this process."""
    mesh = here().mesh(MeshSettings())
    with jax.set_mesh(mesh):
        if repr(config) not in _pairs:
            _pairs[repr(config)] = {pair[0].name: pair for pair in program_pairs(config, mesh)}
        return Outcome(compile_counted(*_pairs[repr(config)][program], mesh)[0])
