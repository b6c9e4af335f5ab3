"""What the default job, the class defaults and the presets are: a change of one of these numbers is a decision."""

import re
from dataclasses import asdict, replace
from typing import Any

import pytest

from onethinker_jax.model_arguments import AnswerDefaults
from onethinker_jax.train.config.presets import PRESETS, SHAPES_BASE, shapes
from onethinker_jax.train.config.presets_gpu import GPU_PRESETS
from onethinker_jax.train.config.presets_lora import LORA_PRESETS
from onethinker_jax.train.config.presets_qwen3_vl import SLICES
from onethinker_jax.train.config.run import TrainConfig
from tests.places import ROOT

# Where a run lies, how its media are decoded, whom it asks for scores, what it shows and how often it saves.
CHANGES_NO_NUMBER = {
    *("checkpoints", "health", "preemption"),
    "data.cache_bytes",
    "data.check_lengths",
    "data.frame_cache",
    "data.frame_cache_bytes",
    "data.media_time_limit",
    "data.media_workers",
    "evaluation.gallery",
    "hosts",
    "log",
    "name",
    "out",
    "rl.log_every",
    "rl.prompts_ahead",
    *("rl.save_every", "rl.save_rollouts"),
    "sft.log_every",
    "sft.save_every",
    "sidecar.addresses",
    "sidecar.authorities",
    "sidecar.device",
    "sidecar.judge",  # of the text back end judge alone
    "sidecar.score_workers",
    "sidecar.server_name",
    "sidecar.timeout",
    "sidecar.token_file",
}

TINY = {"shapes", "smoke", "shapes_long", "shapes_base"}
"""Presets of tiny models, which are run and not planned."""

SHAPES: dict[str, Any] = {
    "seed": 0,
    "model.init_from": SHAPES_BASE,
    "model.family": None,
    "model.tiny": False,
    "model.vocab_size": 896,
    "model.hidden_size": 128,
    "model.intermediate_size": 384,
    "model.num_layers": 4,
    "model.num_heads": 2,
    "model.num_kv_heads": 1,
    "model.head_dim": 64,
    "model.rope_theta": 10_000.0,
    "model.vision_depth": 3,
    "model.vision_hidden_size": 96,
    "model.vision_intermediate_size": 192,
    "model.vision_heads": 3,
    "model.vision_grid": 16,
    "model.deepstack_layers": (0, 1),
    "model.tie_word_embeddings": True,
    "model.remat": "dots",
    "model.compute_dtype": "float32",
    "model.master_dtype": "float32",
    "model.lora.rank": 0,
    "model.lora.alpha": 32.0,
    "model.lora.targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "model.lora.vision": False,
    "data.sft_file": None,
    "data.rl_file": None,
    "data.heldout_file": None,
    "data.media_root": None,
    "data.prompt_file": None,
    "data.on_bad_record": "raise",
    "data.world": "shapes",
    "data.world_library": None,
    "data.world_sft": 8000,
    "data.world_captions": 0,
    "data.world_rl": 3000,
    "data.world_heldout": 640,
    "data.world_seed": 0,
    "data.image_min_pixels": 3136,
    "data.image_max_pixels": 128 * 128,
    "data.video_fps": 2.0,
    "data.video_max_frames": 16,
    "data.video_min_pixels": 32 * 32,
    "data.video_max_pixels": 64 * 96,
    "data.video_total_pixels": None,
    "data.sft_mixture": {"tasks": {}, "sources": {}},
    "data.rl_mixture": {"tasks": {}, "sources": {}},
    "data.packing_strategy": "best_fit",
    "data.window": 64,
    "sft.steps": 600,
    "sft.accumulate": 1,
    "sft.train_vision": True,
    "sft.batch.rows": 6,
    "sft.batch.tokens": 368,
    "sft.batch.patches": 208,
    "sft.optimizer.kind": "muon",
    "sft.optimizer.learning_rate": 8e-3,
    "sft.optimizer.schedule": "cosine",
    "sft.optimizer.warmup": 0.02,
    "sft.optimizer.weight_decay": 1e-2,
    "sft.optimizer.adam_weight_decay": 0.0,
    "sft.optimizer.max_grad_norm": 1.0,
    "sft.optimizer.beta1": 0.9,
    "sft.optimizer.beta2": 0.98,
    "sft.optimizer.momentum_dtype": "float32",
    "sft.optimizer.vision_lr_multiplier": 1.0,
    "sft.optimizer.patch_lr_multiplier": 0.3,
    "rl.steps": 48,
    "rl.prompts_per_step": 24,
    "rl.num_minibatches": 1,
    "rl.max_generation_rounds": 20,
    "rl.accuracy_low": 0.01,
    "rl.accuracy_high": 0.99,
    "rl.overlap": False,
    "rl.rollout_mesh": None,
    "rl.rollout.prompt_tokens": 208,
    "rl.rollout.prompt_patches": 160,
    "rl.rollout.max_new_tokens": 192,
    "rl.rollout.group_size": 8,
    "rl.rollout.prompt_slots": None,
    "rl.rollout.decode_block": 32,
    "rl.rollout.temperature": 1.0,
    "rl.rollout.top_k": 0,
    "rl.rollout.top_p": 1.0,
    "rl.rollout.min_p": 0.0,
    "rl.rollout.stop": (),
    "rl.rollout.kv_dtype": None,
    "rl.rollout.weights_dtype": None,
    "rl.rollout.prompt_buckets": 1,
    "rl.rollout.prefill_rows": None,
    "rl.rollout.prefill_chunk_tokens": None,
    "rl.rollout.sample_slots": None,
    "rl.batch.rows": 4,
    "rl.batch.tokens": 512,
    "rl.batch.patches": 160,
    "rl.optimizer.kind": "adamw",
    "rl.optimizer.learning_rate": 3e-4,
    "rl.optimizer.schedule": "cosine",
    "rl.optimizer.warmup": 0.1,
    "rl.optimizer.weight_decay": 1e-2,
    "rl.optimizer.adam_weight_decay": None,
    "rl.optimizer.max_grad_norm": 1.0,
    "rl.optimizer.beta1": 0.9,
    "rl.optimizer.beta2": 0.999,
    "rl.optimizer.momentum_dtype": "float32",
    "rl.optimizer.vision_lr_multiplier": 0.2,
    "rl.optimizer.patch_lr_multiplier": 0.02,
    "rl.advantage.method": "ema_grpo",
    "rl.advantage.variant": "released",
    "rl.advantage.decay": 0.99,
    "rl.advantage.clip": 5.0,
    "rl.advantage.min_std": 1e-3,
    "rl.advantage.eps": 1e-6,
    "rl.advantage.weights": (),
    "rl.loss.kind": "ppo",
    "rl.loss.clip_low": 0.2,
    "rl.loss.clip_high": 0.3,
    "rl.loss.dual_clip": 3.0,
    "rl.loss.aggregation": "token",
    "rl.loss.kl_coefficient": 0.0,
    "rl.loss.kl_estimator": "k3",
    "rl.loss.kl_bias_correction": False,
    "rl.loss.entropy_coefficient": 0.0,
    "rl.loss.importance_sampling": "none",
    "rl.loss.tis_cap": 2.0,
    "rl.loss.tis_floor": 0.0,
    "rl.loss.max_log_ratio": 20.0,
    "rl.loss.overlong": "keep",
    "rl.loss.overlong_buffer": 0,
    "rl.loss.overlong_penalty": 1.0,
    "reward.variant": "released",
    "reward.module": None,
    "reward.segmentation_reward": "points",
    "reward.text_normalisation": "raw",
    "reward.format_weight": 1.0,
    "reward.time_weight": 1.0,
    "reward.box_weight": 1.0,
    "reward.point_weight": 1.0,
    "reward.key_time_weight": 1.0,
    "reward.point_sigma": 50.0,
    "reward.key_time_sigma": 1.0,
    "sidecar.text_backend": "rouge",
    "sidecar.text_model": None,
    "sidecar.mask_backend": "grabcut",
    "sidecar.mask_model": None,
    "sidecar.dtype": "float32",
    "evaluation.sampled": True,
    "evaluation.every": 0,
    "evaluation.metric": "accuracy",
    "evaluation.patience": 0,
    "evaluation.sampler.prompt_tokens": 208,
    "evaluation.sampler.prompt_patches": 160,
    "evaluation.sampler.max_new_tokens": 192,
    "evaluation.sampler.group_size": 1,
    "evaluation.sampler.prompt_slots": 64,
    "evaluation.sampler.decode_block": 32,
    "evaluation.sampler.temperature": 0.0,
    "evaluation.sampler.top_k": 0,
    "evaluation.sampler.top_p": 1.0,
    "evaluation.sampler.min_p": 0.0,
    "evaluation.sampler.stop": (),
    "evaluation.sampler.kv_dtype": None,
    "evaluation.sampler.weights_dtype": None,
    "evaluation.sampler.prompt_buckets": 1,
    "evaluation.sampler.prefill_rows": None,
    "evaluation.sampler.prefill_chunk_tokens": None,
    "evaluation.sampler.sample_slots": None,
    **dict.fromkeys(("mesh.data", "mesh.fsdp", "mesh.tensor"), 1),
}


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, such as `rl.batch.rows`; a mixture stays one value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if prefix + name in CHANGES_NO_NUMBER:
            continue
        nested = isinstance(value, dict) and "mixture" not in name
        found |= flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


def test_the_default_job_is_the_one_that_was_measured() -> None:
    """Every setting that its numbers depend on, a new one too. README's table and docs/training.md are of these."""
    assert flat(asdict(shapes())) == SHAPES


def values(config: object, *names: str) -> dict[str, Any]:
    """The settings of these dotted names."""
    found = {}
    for name in names:
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = value
    return found


# arXiv 2512.03043 and tulerfeng/OneThinker; what neither gives (steps, minibatches' packing) is ours and not here.
ONETHINKER: dict[str, Any] = {
    "sft.optimizer.kind": "adamw",
    "sft.optimizer.learning_rate": 1e-5,
    "sft.optimizer.schedule": "cosine",
    "sft.optimizer.warmup": 0.02,
    "sft.optimizer.weight_decay": 1e-6,
    "sft.optimizer.max_grad_norm": 1.0,
    "sft.batch.tokens": 16_384,
    "sft.train_vision": False,
    "rl.optimizer.kind": "adamw",
    "rl.optimizer.learning_rate": 2e-6,
    "rl.optimizer.schedule": "constant",
    "rl.optimizer.warmup": 0.0,
    "rl.optimizer.weight_decay": 1e-2,
    "rl.optimizer.max_grad_norm": 1.0,
    "rl.optimizer.beta1": 0.9,
    "rl.optimizer.beta2": 0.999,
    "rl.steps": 200,
    "rl.prompts_per_step": 128,
    "rl.num_minibatches": 4,
    "rl.rollout.group_size": 8,
    "rl.rollout.prompt_tokens": 16_384,
    "rl.rollout.max_new_tokens": 4096,
    "rl.rollout.temperature": 1.0,
    "rl.rollout.top_k": 0,
    "rl.rollout.top_p": 1.0,
    "rl.batch.tokens": 16_384 + 4096,
    "rl.accuracy_low": 0.01,
    "rl.accuracy_high": 0.99,
    "rl.max_generation_rounds": 20,
    "rl.advantage.method": "ema_grpo",
    "rl.advantage.variant": "released",
    "rl.advantage.decay": 0.99,
    "rl.advantage.clip": 5.0,
    "rl.advantage.min_std": 1e-3,
    "rl.advantage.eps": 1e-6,
    "rl.loss.kind": "ppo",
    "rl.loss.clip_low": 0.2,
    "rl.loss.clip_high": 0.3,
    "rl.loss.dual_clip": 3.0,
    "rl.loss.aggregation": "token",
    "rl.loss.max_log_ratio": 20.0,
    "rl.loss.kl_coefficient": 0.0,
    "rl.loss.kl_estimator": "k3",
    "reward.variant": "released",
    "data.image_min_pixels": 3136,
    "data.image_max_pixels": 1_048_576,
    "data.video_fps": 2.0,
    "data.video_max_frames": 128,
    "data.video_min_pixels": 4 * 32 * 32,
    "data.video_max_pixels": 64 * 32 * 32,
    "evaluation.sampler.temperature": 0.0,
    "evaluation.sampler.max_new_tokens": 8192,
    "model.num_layers": 36,
    "model.hidden_size": 4096,
    "model.vision_depth": 27,
}


def test_class_defaults_are_onethinkers() -> None:
    config = TrainConfig()
    assert values(config, *ONETHINKER) == ONETHINKER
    assert config.sft.batch.rows * config.sft.accumulate == 32
    evaluation = AnswerDefaults()
    expected = {
        "temperature": 0.0,
        "video_fps": 2.0,
        "video_max_frames": 128,
        "video_max_pixels": 256 * 32**2,
    }
    assert values(evaluation, *expected) == expected


@pytest.mark.parametrize("name", [preset.__name__ for preset in SLICES] + list(GPU_PRESETS))
def test_presets_of_released_sizes_keep_onethinkers_recipe(name: str) -> None:
    """They differ in the model, the mesh and what is computed at once; SFT has its own bounds of media."""
    config, defaults = PRESETS[name](), TrainConfig()
    stage = "sft" if config.sft.steps else "rl"
    kept = {key for key in ONETHINKER if key.startswith((f"{stage}.", "reward.", "evaluation."))}
    kept -= {"rl.batch.tokens"}  # of a GPU's preset, a whole group
    assert values(config, *kept) == {key: ONETHINKER[key] for key in kept}
    if stage == "sft":
        assert (config.rl.steps, config.sft.steps) == (0, 10_000)
        assert config.sft.batch.rows * config.sft.accumulate == 32
        assert (config.data.image_max_pixels, config.data.video_max_pixels) == (802_816, 100_352)
    else:
        assert config.data == defaults.data
        assert config.rl.batch.tokens in (16_384 + 4096, 16_384 + 8 * 4096)


@pytest.mark.parametrize("name", LORA_PRESETS)
def test_presets_of_adapters_keep_the_recipe_but_for_the_rate(name: str) -> None:
    """Ten times the rate of all weights, on one GPU, a whole group a row."""
    config, whole = PRESETS[name](), PRESETS[name.removesuffix("_lora_gpu")]()
    assert config.name == name and config.mesh.size == 1 and config.model.lora.rank == 32
    assert config.rl.optimizer == replace(whole.rl.optimizer, learning_rate=2e-5)
    assert (config.rl.loss, config.rl.advantage, config.data) == (
        whole.rl.loss,
        whole.rl.advantage,
        whole.data,
    )
    kept = {key for key in ONETHINKER if key.startswith(("rl.", "reward.", "evaluation."))}
    kept -= {"rl.batch.tokens", "rl.optimizer.learning_rate"}
    assert values(config, *kept) == {key: ONETHINKER[key] for key in kept}
    assert config.rl.batch.tokens == 16_384 + 8 * 4096


PLANNED = r"Planned, not run: ([\d.]+) of ([\d.]+) GiB.* at least ([\d.,]+) s, ([\d,]+) (?:updates|steps) ([\d.]+) h\."


def planned() -> dict[str, tuple[str, str, str]]:
    """docs/plan.md: preset -> GiB of its largest program, GiB there are, least seconds of a step; of GPUs an H100's."""
    page = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    tpu = re.findall(
        r"^\| (\w+) \| v[\w-]+ \| yes \| ([\d.]+) \| ([\d.]+) \| (\S+) s \|$", page, re.MULTILINE
    )
    gpu = re.findall(
        r"^\| (\w+) \| \d x H100 SXM \| yes \| [\w -]+ \| ([\d.]+) \| ([\d.]+) \| (\S+) s \|$",
        page,
        re.MULTILINE,
    )
    return {name: (gib, of, seconds) for name, gib, of, seconds in tpu + gpu}


def test_docstrings_give_what_the_plans_say() -> None:
    plans = planned()
    assert set(plans) == set(PRESETS) - TINY
    for name, (gib, of, seconds) in plans.items():
        doc, config = PRESETS[name].__doc__ or "", PRESETS[name]()
        said = re.search(PLANNED, doc)
        assert said is not None, name
        assert said[1] == gib, name
        assert said[2] == of, name
        assert float(said[3].replace(",", "")) == float(seconds), name
        steps = config.sft.steps or config.rl.steps
        assert int(said[4].replace(",", "")) == steps, name
        assert float(said[5]) == pytest.approx(float(seconds) * steps / 3600, abs=0.5), name


@pytest.mark.parametrize("name", PRESETS)
def test_docstrings_give_command_data_and_weights(name: str) -> None:
    doc = " ".join((PRESETS[name].__doc__ or "").split())
    command = "python -m onethinker_jax.train" + ("" if name == "shapes" else f" {name}")
    assert command in doc
    if name in TINY:
        assert "neither data nor weights" in doc
    else:
        stage = "sft" if PRESETS[name]().sft.steps else "rl"
        assert f"--data.{stage}-file" in doc
        assert "--data.heldout-file" in doc
        assert "weights of Qwen/Qwen3-VL-" in doc
