"""The policy: what every stage knows of it, its sizes, and a fresh or a read model on the mesh before training."""

from dataclasses import dataclass, fields
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.lora_settings import LoRAError
from onethinker_jax.model.config import Qwen3VLConfig, TextConfig, VisionConfig
from onethinker_jax.model.family import family_member
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.model.lora import add_adapters
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import tree_shardings
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.run import TrainConfig


@dataclass(frozen=True)
class Policy:
    """The model that is trained, beside its weights.

    Its graph is as `nnx.split` gives it, the mesh is that of all processes, which the weights lie on, and the dtype is
    what it computes in.
    """

    graphdef: nnx.GraphDef
    mesh: Mesh
    compute_dtype: str = "float32"


def model_config(settings: ModelSettings, processor: Processor | None) -> Qwen3VLConfig:
    """Sizes of a fresh model; time gets what height and width leave of a head's frequencies.

    Token ids are the processor's; without one, as for a plan, some that the vocabulary has.
    """
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: getattr(processor, name) if processor else i for i, name in enumerate(names)}
    side = settings.head_dim // 6
    return Qwen3VLConfig(
        text=TextConfig(
            vocab_size=settings.vocab_size,
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            num_kv_heads=settings.num_kv_heads,
            head_dim=settings.head_dim,
            rope_theta=settings.rope_theta,
            mrope_section=(settings.head_dim // 2 - 2 * side, side, side),
            max_position_embeddings=4096,
        ),
        vision=VisionConfig(
            depth=settings.vision_depth,
            hidden_size=settings.vision_hidden_size,
            intermediate_size=settings.vision_intermediate_size,
            num_heads=settings.vision_heads,
            out_hidden_size=settings.hidden_size,
            num_position_embeddings=settings.vision_grid**2,
            deepstack_layers=settings.deepstack_layers,
        ),
        tie_word_embeddings=settings.tie_word_embeddings,
        **ids,
    )


def make_model(config: TrainConfig, base: Path, mesh: Mesh) -> Qwen3VL:
    """The policy before training, its parameters sharded over the mesh; adapters, if any, made by the run's seed.

    Raises SettingError when `init_from` is not of the size that `family` names, or LoRAError when adapters do not fit
    the model or have no base.
    """
    settings = config.model
    sizes = Qwen3VLConfig.from_directory(settings.init_from or base)
    check_family(settings, sizes)
    check_base(settings)
    graphdef, shapes = nnx.split(abstract_model(sizes, settings))

    def fresh() -> nnx.State:
        """All parameters; of a base that is read, the adapters alone."""
        params = nnx.state(_new_model(sizes, settings, config.seed))
        return params if settings.init_from is None else split_adapters(params)[0]

    read = None
    if settings.init_from is not None:
        dtype = jnp.dtype(settings.frozen_dtype)
        read = load_hf(settings.init_from, mesh=mesh, dtype=dtype, remat=settings.remat)
        if not settings.lora.rank:
            return read
        shapes, _ = split_adapters(shapes)
    made = jax.jit(fresh, out_shardings=tree_shardings(shapes, mesh))()
    return nnx.merge(graphdef, made if read is None else join_adapters(made, nnx.state(read)))


def abstract_model(sizes: Qwen3VLConfig, settings: ModelSettings) -> Qwen3VL:
    """The policy's shapes, without arrays. Raises LoRAError naming targets that it does not have."""
    return nnx.eval_shape(lambda: _new_model(sizes, settings, 0))


def _new_model(sizes: Qwen3VLConfig, settings: ModelSettings, seed: int) -> Qwen3VL:
    dtype = jnp.dtype(settings.frozen_dtype)
    model = Qwen3VL(sizes, rngs=nnx.Rngs(seed), dtype=dtype, remat=settings.remat)
    if settings.lora.rank:
        master = jnp.dtype(settings.master_dtype)
        add_adapters(model, settings.lora, rngs=nnx.Rngs(seed), dtype=master)
    return model


def check_base(settings: ModelSettings) -> None:
    """Raises LoRAError where adapters have no base that stands on disk."""
    if settings.lora.rank and settings.init_from is None:
        raise LoRAError(
            f"model.lora.rank {settings.lora.rank}: name the base that the adapters are of, --model.init-from DIRECTORY"
        )


def planned_sizes(settings: ModelSettings) -> Qwen3VLConfig:
    """What a run with these settings would train, told without files where `family` names it.

    Raises ConfigError, or OSError when `init_from` cannot be read.
    """
    if settings.init_from is not None:
        return Qwen3VLConfig.from_directory(settings.init_from)
    return model_config(settings, None) if settings.family is None else family_member(settings.family)


def check_family(settings: ModelSettings, sizes: Qwen3VLConfig) -> None:
    """Raises SettingError when the model to train is not of the size that `family` names."""
    if settings.family is None:
        return
    if settings.init_from is None:
        raise SettingError(f"model.family {settings.family}: name its weights, --model.init-from DIRECTORY")
    wanted = family_member(settings.family)
    for part in ("text", "vision"):
        for field in fields(getattr(wanted, part)):
            if field.name == "intermediate_size" and part == "text" and wanted.text.moe is not None:
                continue  # names no weight where every layer has experts
            found, expected = (getattr(getattr(c, part), field.name) for c in (sizes, wanted))
            if found != expected:
                raise SettingError(
                    f"model.family {settings.family}: {settings.init_from} has {part} {field.name} "
                    f"{found}, not {expected}"
                )
