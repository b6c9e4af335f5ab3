"""Named settings. Each says its command, its hardware, and what to expect of it."""

from dataclasses import replace
from pathlib import Path

from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.data import DataSettings
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings
from onethinker_jax.train.config.presets_gpu import GPU_PRESETS
from onethinker_jax.train.config.presets_lora import LORA_PRESETS
from onethinker_jax.train.config.presets_qwen3_vl import SLICES
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.config.run import LogSettings, TrainConfig
from onethinker_jax.train.config.sft import SFTSettings

TINY_MODEL = ModelSettings(
    vocab_size=896,
    hidden_size=128,
    intermediate_size=384,
    num_layers=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=64,
    rope_theta=10_000.0,
    vision_depth=3,
    vision_hidden_size=96,
    vision_intermediate_size=192,
    vision_heads=3,
    vision_grid=16,
    deepstack_layers=(0, 1),
    tie_word_embeddings=True,
    remat="dots",
    compute_dtype="float32",
)
TINY_OPTIMIZER = OptimizerSettings(
    learning_rate=8e-3,
    kind="muon",
    adam_weight_decay=0.0,  # the embedding does not decay
    beta2=0.98,
    patch_lr_multiplier=0.3,
)
TINY_MEDIA = DataSettings(
    image_max_pixels=128 * 128, video_max_frames=16, video_min_pixels=32 * 32, video_max_pixels=64 * 96
)
"""Sizes of images and frames that a fresh tiny model can learn from, and a released one cannot use."""


SHAPES_BASE = Path(__file__).parents[1] / "shapes_base"
"""The model that `shapes` starts from, as bfloat16. Its tower has been told what it sees, its decoder has read
descriptions of scenes of the Shapes world and no question of a task. `docs/shapes.md` has the commands."""

SHAPES_LONG_BASE = Path(__file__).parents[1] / "shapes_long_base"
"""The model that `shapes_long` starts from, as bfloat16: the same tower and a decoder that has begun to answer.
`docs/shapes.md` has the commands."""


def shapes() -> TrainConfig:
    """`python -m onethinker_jax.train`: SFT, then RL, on the Shapes world, on 2 CPU cores.

    A Qwen3-VL of 1.9M parameters that has described pictures of that world (`SHAPES_BASE`): SFT teaches it the tasks,
    then EMA-GRPO improves its answers against the live reward service. Needs neither data nor weights: it makes the
    data, and the model lies in the package. Its learning rates (Muon at 8e-3, AdamW at 3e-4), rows of 368 tokens and
    images of 128 x 128 are for a tiny model. A released one takes a preset of its size, such as `qwen3_vl_2b_sft`.

    Measured on 2 CPU cores, with rows 15% shorter: 8 minutes 22 s; the README has what it comes to.
    """
    return TrainConfig(
        model=replace(TINY_MODEL, init_from=SHAPES_BASE),
        data=replace(TINY_MEDIA, world_captions=0),
        sft=SFTSettings(
            steps=600,
            batch=BatchSettings(rows=6, tokens=368, patches=208),
            accumulate=1,
            optimizer=TINY_OPTIMIZER,
            train_vision=True,
            save_every=100,
        ),
        rl=RLSettings(
            steps=48,
            prompts_per_step=24,
            num_minibatches=1,
            rollout=SamplerSettings(prompt_tokens=208, prompt_patches=160, max_new_tokens=192, group_size=8),
            batch=BatchSettings(rows=4, tokens=512, patches=160),
            optimizer=OptimizerSettings(
                learning_rate=3e-4, warmup=0.1, vision_lr_multiplier=0.2, patch_lr_multiplier=0.02
            ),
        ),
        evaluation=EvaluationSettings(
            sampler=SamplerSettings(
                prompt_slots=64, prompt_tokens=208, prompt_patches=160, max_new_tokens=192, temperature=0.0
            )
        ),
    )


def shapes_base() -> TrainConfig:
    """`python -m onethinker_jax.train shapes_base`: a fresh model learns to see from captions of the Shapes world.

    Needs neither data nor weights. 100,000 scenes that no other preset has (another seed), each with a caption and no
    question of a task: what is where, boxes, spans, letters. Another 20,000 records of the tasks are for the tokenizer
    alone. `python -m experiments.vision_pretraining` takes these settings for the tower; behind that tower (as
    `model.init_from`) the run makes a start for `shapes`, in 45 minutes of a core.
    """
    full = shapes()
    return replace(
        full,
        name="shapes_base",
        model=TINY_MODEL,
        data=replace(
            TINY_MEDIA,
            world_seed=1000,
            world_sft=20_000,
            world_captions=100_000,
            world_rl=100,
            world_heldout=40,
            sft_mixture=Mixture(sources={"shapes_shapes": 0, "shapes_words": 0, "shapes_sum": 0}),
        ),
        sft=replace(
            full.sft,
            steps=5000,
            batch=BatchSettings(rows=6, tokens=368, patches=272),
            optimizer=replace(TINY_OPTIMIZER, warmup=0.01, beta2=0.99),
            save_every=250,
        ),
        rl=replace(full.rl, steps=0),
    )


def shapes_long() -> TrainConfig:
    """`python -m onethinker_jax.train shapes_long`: the default job for a night on 2 CPU cores.

    Needs neither data nor weights. A model of the same size that has begun to answer (`SHAPES_LONG_BASE`: 80% of greedy
    answers are right); 90,000 SFT records, 30,000 captions and 20,000 records of RL. Not yet run to its end.
    """
    full = shapes()
    return replace(
        full,
        name="shapes_long",
        model=replace(full.model, init_from=SHAPES_LONG_BASE),
        data=replace(full.data, world_sft=90_000, world_captions=30_000, world_rl=20_000),
        sft=replace(full.sft, steps=30_000, save_every=500),
        rl=replace(full.rl, steps=1000, save_every=50),
    )


def smoke() -> TrainConfig:
    """`python -m onethinker_jax.train smoke`: the same way in a minute or two, too short to learn anything.

    A fresh model of 0.3M parameters, on 2 CPU cores; needs neither data nor weights.
    """
    full = shapes()
    return replace(
        full,
        name="smoke",
        model=replace(
            TINY_MODEL,
            vocab_size=1024,
            hidden_size=64,
            intermediate_size=128,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=64,
            vision_depth=2,
            vision_hidden_size=32,
            vision_intermediate_size=64,
            vision_heads=2,
            deepstack_layers=(0,),
        ),
        data=replace(
            TINY_MEDIA,
            world_sft=160,
            world_captions=0,
            world_rl=80,
            world_heldout=36,
        ),
        sft=replace(
            full.sft,
            steps=6,
            batch=BatchSettings(rows=2, tokens=512, patches=512),
            accumulate=1,
            optimizer=OptimizerSettings(learning_rate=2e-3, warmup=0.0),
            log_every=1,
            save_every=3,
        ),
        rl=replace(
            full.rl,
            steps=4,
            prompts_per_step=4,
            num_minibatches=2,
            accuracy_low=-1.0,  # keep every group: a model this fresh has none that is partly right
            rollout=SamplerSettings(prompt_tokens=256, prompt_patches=160, max_new_tokens=24, group_size=2),
            batch=BatchSettings(rows=2, tokens=320, patches=160),
            save_every=2,
        ),
        evaluation=EvaluationSettings(
            sampler=SamplerSettings(
                prompt_slots=12, prompt_tokens=256, prompt_patches=160, max_new_tokens=24, temperature=0.0
            ),
            gallery=1,
        ),
        log=LogSettings(table_every=2, rollouts_every=2),
    )


PRESETS = {
    "shapes": shapes,
    "smoke": smoke,
    "shapes_long": shapes_long,
    "shapes_base": shapes_base,
    **{preset.__name__: preset for preset in SLICES},
    **GPU_PRESETS,
    **LORA_PRESETS,
}
