"""What can be said against a run before anything of it is made: its settings held against the files they name."""

from pathlib import Path

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.prompts import Prompts
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.family import family_name
from onethinker_jax.model.hf_weights import check_weights
from onethinker_jax.scoring import check_reward
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import SHAPES_BASE, SHAPES_LONG_BASE, TINY_MEDIA
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.export.directory import check_out
from onethinker_jax.train.policy import abstract_model, check_base, check_family

# Above it a full fine-tuning ruins a pretrained model, whatever the optimiser: Muon's steps have AdamW's size.
LARGEST_LEARNING_RATE = 1e-4
OF_ADAPTERS = 10  # times as large a rate suits them ("LoRA Without Regret", Thinking Machines Lab 2025)


def check_before(config: TrainConfig) -> None:
    """Raises what is wrong with the settings and the files that they name, within a second and without a trace.

    SettingError, LoRAError, ConfigError, WeightsError, ProcessorError, PromptError, RewardFunctionError,
    FileNotFoundError or FileExistsError, each one line that names the setting or the file.
    """
    _check_files(config)
    check_reward(config.reward)
    if (
        config.reward.module is not None
        and config.rl.advantage.method == "gdpo"
        and not config.rl.advantage.weights
    ):
        raise SettingError(
            f"rl.advantage.estimator gdpo with reward.module {config.reward.module} needs --rl.advantage.weights: "
            "nothing says how its reward weighs accuracy, format and structure"
        )
    base = config.model.init_from
    if base is not None:
        sizes = Qwen3VLConfig.from_directory(base)
        check_fresh_settings(config, sizes)
        check_family(config.model, sizes)
        abstract_model(sizes, config.model)
        Processor.from_pretrained(base)
        check_weights(base)
    elif config.model.family is not None:
        raise SettingError(
            f"model.family {config.model.family}: name its weights, --model.init-from DIRECTORY"
        )
    check_base(config.model)
    check_out(config.folder.model)


def check_fresh_settings(config: TrainConfig, sizes: Qwen3VLConfig) -> None:
    """Raises SettingError where `init_from` meets settings made for a fresh tiny model, naming the preset to take.

    Those are a learning rate above 1e-4 (of LoRA's adapters 1e-3) in a stage that has steps, and bounds of images or
    frames that are still those of the Shapes world. `model.tiny` says that they are meant.
    """
    if config.model.init_from in (None, SHAPES_BASE, SHAPES_LONG_BASE) or config.model.tiny:
        return
    largest = LARGEST_LEARNING_RATE * (OF_ADAPTERS if config.model.lora.rank else 1)
    found = [
        f"{stage}.optimizer.learning_rate {optimizer.learning_rate:g} ({optimizer.kind})"
        for stage, steps, optimizer in (
            ("sft", config.sft.steps, config.sft.optimizer),
            ("rl", config.rl.steps, config.rl.optimizer),
        )
        if steps and optimizer.learning_rate > largest
    ]
    found += [
        f"data.{name} {getattr(config.data, name)}"
        for name in ("image_max_pixels", "video_max_pixels")
        if getattr(config.data, name) == getattr(TINY_MEDIA, name)
    ]
    if found:
        size = (family_name(sizes) or "2b").replace("-", "_")
        raise SettingError(
            f"model.init_from {config.model.init_from} with settings made for a fresh tiny model "
            f"({', '.join(found)}): take the preset qwen3_vl_{size}_sft, then qwen3_vl_{size}_rl, or set these "
            "yourself (--model.tiny if the model is as tiny)"
        )


def _check_files(config: TrainConfig) -> None:
    data, sidecar = config.data, config.sidecar
    for name, path in {
        "data.sft_file": data.sft_file,
        "data.rl_file": data.rl_file,
        "data.heldout_file": data.heldout_file,
        "data.prompt_file": data.prompt_file,
        "sidecar.text_model": sidecar.text_model,
        "sidecar.mask_model": sidecar.mask_model,
        "sidecar.authorities": sidecar.authorities,
        "sidecar.token_file": sidecar.token_file,
    }.items():
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{name} {path}: no such file")
    _check_folder("data.media_root", data.media_root)
    _check_folder("data.world_library", data.world_library)
    if data.prompt_file is not None:
        Prompts.from_file(data.prompt_file)


def _check_folder(name: str, path: Path | None) -> None:
    if path is not None and not path.is_dir():
        raise FileNotFoundError(f"{name} {path}: no such folder")
