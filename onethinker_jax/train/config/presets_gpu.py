"""Settings for one GPU of 80 GB, and for one host of eight.

An update's rows, prompts, lengths, media and learning rates are those of the TPU presets of the same model
(`presets_qwen3_vl`). What differs is the mesh, the rows of a micro-batch, what is kept for the backward pass, and how
many prompts are decoded together. A row of RL holds a whole group, so that its prompt is computed once. Weights, Adam's
moments and sums of gradients are float32; the towers compute in bfloat16, and the KV cache is bfloat16.

`docs/plan.md` shows what each program needs of an H100's and an A100's memory, as XLA compiles it for them. None of
these presets has run on a GPU yet: a docstring gives the memory of its largest program, and the least time, with every
row, prompt and answer at its full length. JAX takes three quarters of a GPU's memory unless
`XLA_PYTHON_CLIENT_MEM_FRACTION` says otherwise, and each preset needs about that much or more at times.
"""

from collections.abc import Callable
from dataclasses import replace

from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.model import Remat
from onethinker_jax.train.config.presets_qwen3_vl import (
    groups_in_rows,
    qwen3_vl_2b_rl,
    qwen3_vl_2b_sft,
    qwen3_vl_8b_rl,
    qwen3_vl_8b_sft,
)
from onethinker_jax.train.config.run import TrainConfig

PROMPT_BUCKETS = 4
"""Up to 16,384, 8,192, 4,096 and 2,048 tokens: most prompts with one image fit in the smallest."""


def on_mesh(
    base: TrainConfig, name: str, mesh: MeshSettings, *, rows: int, heldout_slots: int, remat: Remat = "full"
) -> TrainConfig:
    """`base` on another mesh, with `rows` of a micro-batch and as many rows an update as before."""
    shards, sft, rl, evaluation = mesh.data * mesh.fsdp, base.sft, base.rl, base.evaluation
    return replace(
        base,
        name=name,
        mesh=mesh,
        model=replace(base.model, remat=remat),
        sft=replace(
            sft,
            batch=replace(sft.batch, rows=rows),
            accumulate=sft.batch.rows * sft.accumulate // rows,
        ),
        rl=replace(rl, batch=replace(rl.batch, rows=rows)),
        evaluation=replace(evaluation, sampler=_sampler(evaluation.sampler, heldout_slots, shards)),
    )


def _sampler(base: SamplerSettings, prompt_slots: int, shards: int) -> SamplerSettings:
    """As many prompts decoded together, and one a shard prefilled at once: its activations and keys are large."""
    return replace(base, prompt_slots=prompt_slots, prefill_rows=shards, prompt_buckets=PROMPT_BUCKETS)


def decoding_together(config: TrainConfig, prompt_slots: int) -> TrainConfig:
    """`config` with as many prompts decoded together, and a whole group in each row of an update."""
    rollout = _sampler(config.rl.rollout, prompt_slots, config.mesh.data * config.mesh.fsdp)
    return groups_in_rows(replace(config, rl=replace(config.rl, rollout=rollout)))


def qwen3_vl_2b_sft_gpu() -> TrainConfig:
    """Qwen3-VL-2B on chain-of-thought data, one GPU of 80 GB.

    With `XLA_PYTHON_CLIENT_MEM_FRACTION=0.92` in the environment:
    `python -m onethinker_jax.train qwen3_vl_2b_sft_gpu --model.init-from Qwen3-VL-2B-Instruct …`

    For an H100 or A100. Needs the weights of Qwen/Qwen3-VL-2B-Instruct, `--data.sft-file` and
    `--data.heldout-file`. AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update, one row at a
    time; matrix products are kept for the backward pass.
    Planned, not run: 59.1 of 74.5 GiB. An update of full rows takes an H100 at least 11.1 s, 10,000 updates 31 h.
    """
    mesh = MeshSettings()
    return on_mesh(qwen3_vl_2b_sft(), "qwen3_vl_2b_sft_gpu", mesh, rows=1, heldout_slots=12, remat="dots")


def qwen3_vl_2b_rl_gpu() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-2B, one GPU of 80 GB.

    With `XLA_PYTHON_CLIENT_MEM_FRACTION=0.92` in the environment:
    `python -m onethinker_jax.train qwen3_vl_2b_rl_gpu --model.init-from runs/qwen3_vl_2b_sft_gpu/model …`

    For an H100 or A100. Needs the model that `qwen3_vl_2b_sft_gpu` exported, or the weights of
    Qwen/Qwen3-VL-2B-Instruct, `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a
    step; 4 prompts with their 8 answers are decoded together, a group at a time is trained on.
    Planned, not run: 59.2 of 74.5 GiB. A step of full lengths takes an H100 at least 1,280 s, 200 steps 71 h.
    """
    config = on_mesh(qwen3_vl_2b_rl(), "qwen3_vl_2b_rl_gpu", MeshSettings(), rows=1, heldout_slots=12)
    return decoding_together(config, 4)


def qwen3_vl_8b_sft_8gpu() -> TrainConfig:
    """OneThinker's cold start of Qwen3-VL-8B, one host of eight GPUs of 80 GB.

    With `XLA_PYTHON_CLIENT_MEM_FRACTION=0.92` in the environment:
    `python -m onethinker_jax.train qwen3_vl_8b_sft_8gpu --model.init-from Qwen3-VL-8B-Instruct …`

    For H100 or A100 SXM. Needs the weights of Qwen/Qwen3-VL-8B-Instruct, `--data.sft-file` and
    `--data.heldout-file`. AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update, two rows a GPU
    at a time.
    Planned, not run: 60.9 of 74.5 GiB a GPU. An update of full rows takes H100s at least 5.69 s, 10,000 updates 16 h.
    """
    mesh = MeshSettings(fsdp=8)
    return on_mesh(qwen3_vl_8b_sft(), "qwen3_vl_8b_sft_8gpu", mesh, rows=16, heldout_slots=48)


def qwen3_vl_8b_rl_8gpu() -> TrainConfig:
    """OneThinker's EMA-GRPO of Qwen3-VL-8B, one host of eight GPUs of 80 GB.

    With `XLA_PYTHON_CLIENT_MEM_FRACTION=0.92` in the environment:
    `python -m onethinker_jax.train qwen3_vl_8b_rl_8gpu --model.init-from runs/qwen3_vl_8b_sft_8gpu/model …`

    For H100 or A100 SXM. Needs the model that `qwen3_vl_8b_sft_8gpu` exported, or the weights of
    Qwen/Qwen3-VL-8B-Instruct, `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a
    step; 48 prompts with their 8 answers are decoded together, two groups at a time are trained on, each by four GPUs,
    and matrix products are kept for the backward pass.
    Planned, not run: 61.1 of 74.5 GiB a GPU. A step of full lengths takes H100s at least 233 s, 200 steps 13 h.
    """
    mesh = MeshSettings(fsdp=2, tensor=4)
    config = on_mesh(qwen3_vl_8b_rl(), "qwen3_vl_8b_rl_8gpu", mesh, rows=2, heldout_slots=64, remat="dots")
    return decoding_together(config, 48)


GPU_PRESETS: dict[str, Callable[[], TrainConfig]] = {
    preset.__name__: preset
    for preset in (qwen3_vl_2b_sft_gpu, qwen3_vl_2b_rl_gpu, qwen3_vl_8b_sft_8gpu, qwen3_vl_8b_rl_8gpu)
}
