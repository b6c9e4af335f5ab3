r"""Settings for the released sizes of Qwen3-VL, with OneThinker's lengths, batches and learning rates.

A `…_sft` preset is the cold start: AdamW at 1e-5 with a cosine schedule, 10,000 updates of 32 rows of 16,384 tokens,
the vision tower frozen, images of up to 802,816 pixels, videos of up to 128 frames of 100,352. It needs
`--data.sft-file` (records with `messages` that end with the assistant's answer) and `--data.heldout-file`.

A `…_rl` preset is EMA-GRPO: AdamW at a constant 2e-6, 200 steps of 128 prompts x 8 answers of up to 4,096 tokens, in
4 updates; prompts of up to 16,384 tokens; images of up to 1,048,576 pixels, videos of up to 128 frames of 65,536. It
needs `--data.rl-file` (records with `problem` and `answer`) and `--data.heldout-file` (records of the same form
that no stage is trained on).

Both start from weights: `hf download Qwen/Qwen3-VL-8B-Instruct --local-dir Qwen3-VL-8B-Instruct`, or RL from what SFT
exported, `runs/qwen3_vl_8b_sft/model`:

    python -m onethinker_jax.train qwen3_vl_8b_sft --model.init-from Qwen3-VL-8B-Instruct \
        --data.sft-file sft.json --data.heldout-file eval.json
    python -m onethinker_jax.train qwen3_vl_8b_rl --model.init-from runs/qwen3_vl_8b_sft/model \
        --data.rl-file rl.json --data.heldout-file eval.json

on every host, with `--hosts.coordinator auto` where there are several. `--dry-run` checks everything first. Each
preset's mesh is that of the TPU slice its docstring names; other hardware takes other mesh flags, one GPU
`--mesh.fsdp 1 --mesh.tensor 1`.

No preset of this file has been run yet. Its docstring gives what `plan` computed (`docs/plan.md`): the memory of the
largest program, and the least time, with every row, prompt and answer at its full length and every chip at its peak
rate. OneThinker's authors trained the 8B on 32 H800 for about ten days.
"""

from dataclasses import replace

from onethinker_jax.train.config.data import DataSettings
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.model import ModelSettings, Remat
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.config.sft import SFTSettings

FRAME_PAIRS = 64  # of a 128-frame video: the tower joins two frames
SFT_PATCHES = FRAME_PAIRS * 392  # 100,352 pixels a frame
RL_PATCHES = FRAME_PAIRS * 256  # 64 x 32 x 32 pixels a frame


def _model(size: str) -> ModelSettings:
    return ModelSettings(family=size)


def _sft(size: str, mesh: MeshSettings) -> TrainConfig:
    """32 rows of 16,384 tokens an update, the vision tower and merger frozen."""
    rows = mesh.data * mesh.fsdp
    return TrainConfig(
        name=f"qwen3_vl_{size.replace('-', '_')}_sft",
        model=ModelSettings(family=size),
        data=DataSettings(image_max_pixels=802_816, video_max_pixels=100_352),
        sft=SFTSettings(batch=BatchSettings(rows=rows), accumulate=max(32 // rows, 1)),
        rl=RLSettings(steps=0, batch=_rl_batch(rows)),
        evaluation=_evaluation(rows, SFT_PATCHES),
        mesh=mesh,
    )


def _rl(
    size: str,
    mesh: MeshSettings,
    *,
    prompt_slots: int,
    prefill_rows: int | None = None,
    remat: Remat = "full",
) -> TrainConfig:
    """128 prompts x 8 samples a step in 4 updates of 32 prompts; everything is trained."""
    rows, full = mesh.data * mesh.fsdp, RLSettings()
    rollout = replace(full.rollout, prompt_slots=prompt_slots, prefill_rows=prefill_rows)
    return TrainConfig(
        name=f"qwen3_vl_{size.replace('-', '_')}_rl",
        model=ModelSettings(family=size, remat=remat),
        sft=SFTSettings(steps=0, batch=BatchSettings(rows=rows)),
        rl=replace(full, rollout=rollout, batch=_rl_batch(rows)),
        evaluation=_evaluation(rows, RL_PATCHES),
        mesh=mesh,
    )


def groups_in_rows(config: TrainConfig) -> TrainConfig:
    """`config` with rows of an update that each hold a whole group, so that its prompt is computed once."""
    rollout = config.rl.rollout
    tokens = rollout.prompt_tokens + rollout.group_size * rollout.max_new_tokens
    return replace(config, rl=replace(config.rl, batch=replace(config.rl.batch, tokens=tokens)))


def _rl_batch(rows: int) -> BatchSettings:
    return replace(RLSettings().batch, rows=rows)


def _evaluation(rows: int, patches: int) -> EvaluationSettings:
    sampler = EvaluationSettings().sampler
    return EvaluationSettings(replace(sampler, prompt_slots=rows, prompt_patches=patches))


def qwen3_vl_2b_sft() -> TrainConfig:
    """Qwen3-VL-2B on chain-of-thought data, 8 chips of a v6e-8.

    `python -m onethinker_jax.train qwen3_vl_2b_sft --model.init-from Qwen3-VL-2B-Instruct …`

    Needs the weights of Qwen/Qwen3-VL-2B-Instruct, `--data.sft-file` and `--data.heldout-file`.
    AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update.
    Planned, not run: 12.2 of 31.25 GiB a chip. An update of full rows takes at least 1.91 s, 10,000 updates 5.3 h.
    """
    return _sft("2b", MeshSettings(fsdp=8))


def qwen3_vl_4b_sft() -> TrainConfig:
    """Qwen3-VL-4B on chain-of-thought data, 8 chips of a v6e-8.

    `python -m onethinker_jax.train qwen3_vl_4b_sft --model.init-from Qwen3-VL-4B-Instruct …`

    Needs the weights of Qwen/Qwen3-VL-4B-Instruct, `--data.sft-file` and `--data.heldout-file`.
    AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update.
    Planned, not run: 22.2 of 31.25 GiB a chip. An update of full rows takes at least 3.9 s, 10,000 updates 11 h.
    """
    return _sft("4b", MeshSettings(fsdp=8))


def qwen3_vl_8b_sft() -> TrainConfig:
    """OneThinker's cold start of Qwen3-VL-8B, 16 chips of a v6e-16.

    `python -m onethinker_jax.train qwen3_vl_8b_sft --model.init-from Qwen3-VL-8B-Instruct …`

    Needs the weights of Qwen/Qwen3-VL-8B-Instruct, `--data.sft-file` and `--data.heldout-file`.
    AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update.
    Planned, not run: 26.8 of 31.25 GiB a chip. An update of full rows takes at least 2.91 s, 10,000 updates 8.1 h.
    """
    return _sft("8b", MeshSettings(fsdp=16))


def qwen3_vl_32b_sft() -> TrainConfig:
    """Qwen3-VL-32B on chain-of-thought data, 32 chips of a v5p-64.

    `python -m onethinker_jax.train qwen3_vl_32b_sft --model.init-from Qwen3-VL-32B-Instruct …`

    Needs the weights of Qwen/Qwen3-VL-32B-Instruct, `--data.sft-file` and `--data.heldout-file`.
    AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update.
    Planned, not run: 43.4 of 95.74 GiB a chip. An update of full rows takes at least 11.5 s, 10,000 updates 32 h.
    """
    return _sft("32b", MeshSettings(fsdp=32))


def qwen3_vl_30b_a3b_sft() -> TrainConfig:
    """Qwen3-VL-30B-A3B on chain-of-thought data, 32 chips of a v5p-64.

    `python -m onethinker_jax.train qwen3_vl_30b_a3b_sft --model.init-from Qwen3-VL-30B-A3B-Instruct …`

    Needs the weights of Qwen/Qwen3-VL-30B-A3B-Instruct, `--data.sft-file` and `--data.heldout-file`.
    AdamW at 1e-5, the vision tower frozen, 32 rows of 16,384 tokens an update.
    Planned, not run: 31.9 of 95.74 GiB a chip. An update of full rows takes at least 2.07 s, 10,000 updates 5.8 h.
    """
    return _sft("30b-a3b", MeshSettings(fsdp=32))


def qwen3_vl_2b_rl() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-2B, 8 chips of a v6e-8.

    `python -m onethinker_jax.train qwen3_vl_2b_rl --model.init-from runs/qwen3_vl_2b_sft/model …`

    Needs the model that `qwen3_vl_2b_sft` exported, or the weights of Qwen/Qwen3-VL-2B-Instruct,
    `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a step.
    Planned, not run: 27.9 of 31.25 GiB a chip. A step of full lengths takes at least 273 s, 200 steps 15 h.
    """
    mesh = MeshSettings(fsdp=2, tensor=4)
    return groups_in_rows(_rl("2b", mesh, prompt_slots=32, prefill_rows=2, remat="dots"))


def qwen3_vl_4b_rl() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-4B, 16 chips of a v6e-16.

    `python -m onethinker_jax.train qwen3_vl_4b_rl --model.init-from runs/qwen3_vl_4b_sft/model …`

    Needs the model that `qwen3_vl_4b_sft` exported, or the weights of Qwen/Qwen3-VL-4B-Instruct,
    `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a step.
    Planned, not run: 19.6 of 31.25 GiB a chip. A step of full lengths takes at least 203 s, 200 steps 11 h.
    """
    return groups_in_rows(_rl("4b", MeshSettings(fsdp=4, tensor=4), prompt_slots=32, prefill_rows=4))


def qwen3_vl_8b_rl() -> TrainConfig:
    """OneThinker's EMA-GRPO of Qwen3-VL-8B, 16 chips of a v5p-32.

    `python -m onethinker_jax.train qwen3_vl_8b_rl --model.init-from runs/qwen3_vl_8b_sft/model …`

    Needs the model that `qwen3_vl_8b_sft` exported, or the weights of Qwen/Qwen3-VL-8B-Instruct,
    `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a step.
    Planned, not run: 65.3 of 95.74 GiB a chip. A step of full lengths takes at least 170 s, 200 steps 9 h.
    """
    mesh = MeshSettings(fsdp=4, tensor=4)
    return groups_in_rows(_rl("8b", mesh, prompt_slots=128, prefill_rows=4, remat="dots"))


def qwen3_vl_8b_rl_v6e() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-8B, 32 chips of a v6e-32 (a third of a v5p chip's memory).

    `python -m onethinker_jax.train qwen3_vl_8b_rl_v6e --model.init-from runs/qwen3_vl_8b_sft/model …`

    Needs the model that `qwen3_vl_8b_sft` exported, or the weights of Qwen/Qwen3-VL-8B-Instruct,
    `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a step.
    Planned, not run: 21.8 of 31.25 GiB a chip. A step of full lengths takes at least 117 s, 200 steps 6.5 h.
    """
    return groups_in_rows(_rl("8b", MeshSettings(fsdp=8, tensor=4), prompt_slots=64))


def qwen3_vl_32b_rl() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-32B, 64 chips of a v5p-128.

    `python -m onethinker_jax.train qwen3_vl_32b_rl --model.init-from runs/qwen3_vl_32b_sft/model …`

    Needs the model that `qwen3_vl_32b_sft` exported, or the weights of Qwen/Qwen3-VL-32B-Instruct,
    `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a step.
    Planned, not run: 48.0 of 95.74 GiB a chip. A step of full lengths takes at least 153 s, 200 steps 8.5 h.
    """
    return groups_in_rows(_rl("32b", MeshSettings(fsdp=16, tensor=4), prompt_slots=128))


def qwen3_vl_30b_a3b_rl() -> TrainConfig:
    """EMA-GRPO of Qwen3-VL-30B-A3B, 64 chips of a v5p-128.

    `python -m onethinker_jax.train qwen3_vl_30b_a3b_rl --model.init-from runs/qwen3_vl_30b_a3b_sft/model …`

    Needs the model that `qwen3_vl_30b_a3b_sft` exported, or the weights of Qwen/Qwen3-VL-30B-A3B-Instruct,
    `--data.rl-file` and `--data.heldout-file`. AdamW at 2e-6, 128 prompts x 8 answers a step.
    Planned, not run: 35.8 of 95.74 GiB a chip. A step of full lengths takes at least 58.6 s, 200 steps 3.3 h.
    """
    return groups_in_rows(_rl("30b-a3b", MeshSettings(fsdp=16, tensor=4), prompt_slots=128))


# Preset -> the slice that its mesh is for.
SLICES = {
    qwen3_vl_2b_sft: "v6e-8",
    qwen3_vl_4b_sft: "v6e-8",
    qwen3_vl_8b_sft: "v6e-16",
    qwen3_vl_32b_sft: "v5p-64",
    qwen3_vl_30b_a3b_sft: "v5p-64",
    qwen3_vl_2b_rl: "v6e-8",
    qwen3_vl_4b_rl: "v6e-16",
    qwen3_vl_8b_rl: "v5p-32",
    qwen3_vl_8b_rl_v6e: "v6e-32",
    qwen3_vl_32b_rl: "v5p-128",
    qwen3_vl_30b_a3b_rl: "v5p-128",
}
