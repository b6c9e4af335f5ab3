"""The flags of a model and of how it answers: what evaluation and the demo have in common.

Imports neither JAX nor what needs it until a model is asked for: `--help` is instant.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from onethinker_jax.command_line import UsageError
from onethinker_jax.rewards.client.sidecar import SidecarSettings
from onethinker_jax.sampler_settings import KVDtype, SamplerSettings

if TYPE_CHECKING:
    from flax import nnx
    from jax.sharding import Mesh

    from onethinker_jax.data_pipeline.processor.processor import Processor


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """A model and how it answers: what evaluation and the demo have in common."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """Hugging Face directory: weights, tokenizer and processor files."""
    max_new_tokens: int = 4096
    """Most tokens of an answer; a longer one is cut off."""
    temperature: float = 0.0
    """0: greedy answers."""
    top_k: int = 0
    """This many of the likeliest tokens are kept; 0: all."""
    top_p: float = 1.0
    """The fewest likeliest tokens whose probabilities sum to this are kept; 1: all."""
    min_p: float = 0.0
    """Tokens at least this many times as likely as the likeliest are kept; 0: all."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer."""
    seed: int = 0
    """The seed of the samples, where the temperature is above 0."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in."""
    kv_dtype: KVDtype | None = None
    """What the KV cache is kept in; by default what the model computes in."""
    prefill_chunk_tokens: int | None = None
    """Most tokens of a prompt computed in one dispatch (chunked prefill); by default all."""
    image_max_pixels: int | None = None
    """The most pixels of an image; by default what the directory says."""
    video_fps: float = 2.0
    """Frames sampled of a second of video."""
    video_max_frames: int = 128
    """Most frames sampled of a video; a longer one is sampled evenly over its whole length."""
    video_num_frames: int | None = None
    """This many frames, sampled evenly by their number; by default as video_fps and video_max_frames say."""
    video_min_pixels: int = 4 * 32 * 32
    """The fewest pixels of one frame."""
    video_max_pixels: int = 256 * 32 * 32
    """The most pixels of one frame."""
    video_total_pixels: int | None = None
    """The most pixels of all sampled frames of a video; by default what the directory says."""
    media_workers: int = 0
    """Processes that decode media; 0: this one."""
    media_time_limit: float = 60.0
    """Seconds that decoding one video may take."""
    prompt_file: Path | None = None
    """JSON or TOML file of prompt templates by task; by default the directory's prompts.json, else the project's."""
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)

    def sampler(
        self, *, prompt_slots: int, prompt_tokens: int, prompt_patches: int, prompt_buckets: int = 1
    ) -> SamplerSettings:
        """What answers are sampled with. Raises UsageError naming a setting that cannot work."""
        try:
            return SamplerSettings(
                prompt_slots=prompt_slots,
                prompt_tokens=prompt_tokens,
                prompt_patches=prompt_patches,
                prompt_buckets=prompt_buckets,
                prefill_chunk_tokens=self.prefill_chunk_tokens,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                stop=self.stop,
                kv_dtype=self.kv_dtype,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def processor(self) -> "Processor":
        """The directory's. Raises ProcessorError, PromptError, UsageError naming a size that cannot work."""
        from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
        from onethinker_jax.data_pipeline.processor.chat import ProcessorError
        from onethinker_jax.data_pipeline.processor.processor import Processor
        from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
        from onethinker_jax.data_pipeline.processor.prompts import PromptError, Prompts

        try:
            return Processor.from_pretrained(
                self.model,
                MediaBounds(
                    image_max_pixels=self.image_max_pixels,
                    video_fps=self.video_fps,
                    video_max_frames=self.video_max_frames,
                    video_num_frames=self.video_num_frames,
                    video_min_pixels=self.video_min_pixels,
                    video_max_pixels=self.video_max_pixels,
                    video_total_pixels=self.video_total_pixels,
                ),
                prompts=Prompts.from_file(self.prompt_file) if self.prompt_file else None,
                media=MediaReader.in_processes(self.media_workers, time_limit=self.media_time_limit),
            )
        except (ProcessorError, PromptError):
            raise
        except ValueError as error:
            raise UsageError(str(error)) from None

    def load(self, mesh: "Mesh") -> "tuple[nnx.GraphDef, nnx.State]":
        """The model's graph, and its weights as the sampler wants them. Raises ConfigError, WeightsError."""
        import jax.numpy as jnp
        from flax import nnx

        from onethinker_jax.model.hf_weights import load_hf
        from onethinker_jax.model.sharding import decoding_layout

        graphdef, params = nnx.split(load_hf(self.model, mesh=mesh, dtype=jnp.dtype(self.dtype)))
        return graphdef, decoding_layout(params, mesh, self.dtype, donate=True)
