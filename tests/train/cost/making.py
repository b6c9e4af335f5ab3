"""Decoding of a two-layer model, and the text that XLA's GPU compiler makes of it: the fixture of `test_gpu.py`.

    pip install '.[gpu-plan]'
    python -m tests.train.cost.making       # writes the fixture anew

By XLA alone: a loop of unknown length over tokens, in it one over two layers, in it one over the three
chunks of the prompts' keys and one over the two chunks of the samples' own. (As TPUs decode there is none over chunks,
as GPUs decode none but the first.) The fixture keeps of every instruction its name, type, operands,
computations, groups, and XLA's count of a loop's turns.
"""

import gzip
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"  # the GPUs are only described

import jax

from onethinker_jax.model import moe, text
from onethinker_jax.model.attention import decode_attention
from onethinker_jax.model.attention.attention import Backend
from onethinker_jax.model.config import MoEConfig, Qwen3VLConfig, TextConfig, VisionConfig
from onethinker_jax.sampler_settings import SamplerSettings, WeightsDtype
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.targets import find_target

TEXT = Path(__file__).parent / "gpu_decode.txt.gz"
TOPOLOGY, TPUS = "h200x4", "v6e:2x2"
WIDTH = 256
LAYERS, PROMPT_CHUNKS, SAMPLE_CHUNKS = 2, 3, 2
ROWS, GROUP, TOKENS = 2, 4, 8  # prompts, samples of each, tokens of a decode block


def two_layers(times: int = 1, width: int = WIDTH) -> tuple[TrainConfig, Qwen3VLConfig]:
    """RL of a two-layer model on four devices: each has one of two prompts, and half of the heads.

    Prompts and samples are `times` as long as the fixture's.
    """
    decoder = TextConfig(
        vocab_size=256,
        hidden_size=width,
        intermediate_size=2 * width,
        num_layers=LAYERS,
        num_heads=4,
        num_kv_heads=2,
    )
    vision = VisionConfig(
        depth=2,
        hidden_size=144,
        intermediate_size=256,
        num_heads=2,
        out_hidden_size=width,
        deepstack_layers=(0,),
    )
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids: dict[str, Any] = {name: number for number, name in enumerate(names)}
    config = shapes()
    rollout = SamplerSettings(
        prompt_tokens=256 * PROMPT_CHUNKS * times,
        prompt_patches=256,
        max_new_tokens=256 * SAMPLE_CHUNKS * times,
        group_size=GROUP,
        prompt_slots=ROWS,
        decode_block=TOKENS,
    )
    config = replace(
        config,
        model=replace(config.model, compute_dtype="bfloat16"),
        sft=replace(config.sft, steps=0),
        rl=replace(
            config.rl,
            steps=1,
            prompts_per_step=ROWS,
            rollout=rollout,
            batch=BatchSettings(ROWS, rollout.prompt_tokens + GROUP * rollout.max_new_tokens, 256),
            loss=PolicyLossSettings(importance_sampling="token_truncate"),
        ),
        mesh=MeshSettings(fsdp=2, tensor=2),
    )
    return config, Qwen3VLConfig(text=decoder, vision=vision, **ids)


def decoding(
    topology: str,
    backend: Backend = "xla",
    times: int = 1,
    *,
    width: int = WIDTH,
    weights_dtype: WeightsDtype | None = None,
    experts: MoEConfig | None = None,
) -> str:
    """The compiled text of decoding for the topology: by XLA, or with its kernels as a back end has them."""
    config, sizes = two_layers(times, width)
    sizes = replace(sizes, text=replace(sizes.text, moe=experts))
    rollout = replace(config.rl.rollout, weights_dtype=weights_dtype)
    config = replace(config, rl=replace(config.rl, rollout=rollout))
    mesh = find_target(config.mesh, topology).mesh(config.mesh)
    chosen = [
        patch.object(module, "platform_backend", lambda: backend) for module in (decode_attention, text, moe)
    ]
    with jax.set_mesh(mesh), chosen[0], chosen[1], chosen[2]:
        (program,) = (one for one in plan_programs(config, sizes, mesh) if one.name == "RL decoding")
        function = program.function
        return function.trace(*program.arguments.values()).lower().compile().as_text()


def shortened(compiled: str) -> str:
    """Compiled text without what its reader does not look at."""
    head, body = compiled.split("\n\n", 1)
    short = f"{head}\n\n{body[body.index('%') :]}"  # no tables of source files in between
    short = re.sub(r", (?:metadata|frontend_attributes)=\{[^}]*\}", "", short)
    return re.sub(
        r', backend_config=.*?(?:("known_trip_count":\{"n":"\d+"\}).*)?$',
        lambda found: f", backend_config={{{found[1]}}}" if found[1] else "",
        short,
        flags=re.MULTILINE,
    )


if __name__ == "__main__":
    TEXT.write_bytes(gzip.compress(shortened(decoding(TOPOLOGY)).encode(), mtime=0))
