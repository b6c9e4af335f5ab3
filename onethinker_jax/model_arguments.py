"""The flags of a model and of how it answers: what evaluation and the demo have in common.

Imports neither JAX nor what needs it until a model is asked for: `--help` is instant.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import tyro

from onethinker_jax.command_line import UsageError
from onethinker_jax.rewards.client.sidecar import SidecarSettings
from onethinker_jax.sampler_settings import KVDtype, SamplerSettings, WeightsDtype

if TYPE_CHECKING:
    from flax import nnx
    from jax.sharding import Mesh

    from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
    from onethinker_jax.data_pipeline.processor.processor import Processor
    from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
    from onethinker_jax.data_pipeline.processor.prompts import Prompts


@dataclass(frozen=True, kw_only=True)
class AnswerDefaults:
    """What counts of answers and media where no flag says otherwise. A protocol of evaluation has others."""

    max_new_tokens: int = 4096
    temperature: float = 0.0
    top_p: float = 1.0
    image_max_pixels: int | None = None
    video_fps: float = 2.0
    video_max_frames: int = 128
    video_num_frames: int | None = None
    video_min_pixels: int = 4 * 32 * 32
    video_max_pixels: int = 256 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """A model and how it answers: what evaluation and the demo have in common."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """Hugging Face directory: weights, tokenizer and processor files."""
    max_new_tokens: int | None = None
    """Most tokens of an answer; a longer one is cut off. By default 4,096; an evaluation's protocol may have another
    default, as for the next that are None."""
    temperature: float | None = None
    """0, the default: greedy answers."""
    top_k: int = 0
    """This many of the likeliest tokens are kept; 0: all."""
    top_p: float | None = None
    """The fewest likeliest tokens whose probabilities sum to this are kept; 1, the default: all."""
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
    weights_dtype: WeightsDtype | None = None
    """What the decoder's and the head's matrices are kept in; by default what the model computes in."""
    prefill_chunk_tokens: int | None = None
    """Most tokens of a prompt computed in one dispatch (chunked prefill); by default all."""
    image_max_pixels: int | None = None
    """The most pixels of an image; by default what the directory says."""
    video_fps: float | None = None
    """Frames sampled of a second of video; by default 2."""
    video_max_frames: int | None = None
    """Most frames sampled of a video; a longer one is sampled evenly over its whole length. By default 128."""
    video_num_frames: int | None = None
    """This many frames, sampled evenly by their number; by default as video_fps and video_max_frames say."""
    video_min_pixels: int | None = None
    """The fewest pixels of one frame; by default 4,096."""
    video_max_pixels: int | None = None
    """The most pixels of one frame; by default 262,144."""
    video_total_pixels: int | None = None
    """The most pixels of all sampled frames of a video; by default what the directory says."""
    media_workers: int = 0
    """Processes that decode media; 0: this one."""
    media_time_limit: float = 60.0
    """Seconds that decoding one video may take."""
    prompt_file: Path | None = None
    """JSON or TOML file of prompt templates by task; by default the directory's prompts.json, else the project's."""
    sidecar: SidecarSettings = field(default_factory=SidecarSettings)

    def with_defaults(self, defaults: AnswerDefaults) -> Self:
        """The same, with `defaults` where no flag was given; the fewest pixels of a frame never exceed the most."""
        unsaid = [field.name for field in fields(AnswerDefaults) if getattr(self, field.name) is None]
        filled = replace(self, **{name: getattr(defaults, name) for name in unsaid})
        low, high = filled.video_min_pixels, filled.video_max_pixels
        if "video_min_pixels" in unsaid and low is not None and high is not None and high < low:
            return replace(filled, video_min_pixels=high)
        return filled

    def answer_settings(self) -> AnswerDefaults:
        """What counts of these flags, and of the project's defaults where none was given."""
        filled = self.with_defaults(AnswerDefaults())
        return AnswerDefaults(**{field.name: getattr(filled, field.name) for field in fields(AnswerDefaults)})

    def sampler(
        self, *, prompt_slots: int, prompt_tokens: int, prompt_patches: int, prompt_buckets: int = 1
    ) -> SamplerSettings:
        """What answers are sampled with. Raises UsageError naming a setting that cannot work."""
        answers = self.answer_settings()
        try:
            return SamplerSettings(
                prompt_slots=prompt_slots,
                prompt_tokens=prompt_tokens,
                prompt_patches=prompt_patches,
                prompt_buckets=prompt_buckets,
                prefill_chunk_tokens=self.prefill_chunk_tokens,
                max_new_tokens=answers.max_new_tokens,
                temperature=answers.temperature,
                top_k=self.top_k,
                top_p=answers.top_p,
                min_p=self.min_p,
                stop=self.stop,
                kv_dtype=self.kv_dtype,
                weights_dtype=self.weights_dtype,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def prompts(self, own: "Prompts | None" = None, *, protocol: str = "") -> "Prompts":
        """The words of the prompt file, else of the directory's; of a protocol where they have it.

        Without either they are `own`, by default the project's. Raises PromptError.
        """
        from onethinker_jax.data_pipeline.processor.processor_config import PROMPTS
        from onethinker_jax.data_pipeline.processor.prompts import OWN_PROMPTS, Prompts

        file = self.prompt_file or self.model / PROMPTS
        if self.prompt_file is None and not file.is_file():
            return own or OWN_PROMPTS
        return Prompts.from_file(file).of_protocol(protocol)

    def media(self) -> "MediaReader":
        """Reads media in the processes that the flags ask for; each starts with its first file."""
        from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader

        return MediaReader.in_processes(self.media_workers, time_limit=self.media_time_limit)

    def media_bounds(self) -> "MediaBounds":
        """The sizes of media. Raises ValueError naming one that cannot work."""
        from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds

        answers = self.answer_settings()
        return MediaBounds(
            image_max_pixels=answers.image_max_pixels,
            video_fps=answers.video_fps,
            video_max_frames=answers.video_max_frames,
            video_num_frames=answers.video_num_frames,
            video_min_pixels=answers.video_min_pixels,
            video_max_pixels=answers.video_max_pixels,
            video_total_pixels=self.video_total_pixels,
        )

    def processor(self, prompts: "Prompts | None" = None, media: "MediaReader | None" = None) -> "Processor":
        """The directory's, with `prompts` and `media`, by default `self.prompts()` and `self.media()`.

        Raises ProcessorError, PromptError, UsageError naming a size that cannot work.
        """
        from onethinker_jax.data_pipeline.processor.chat import ProcessorError
        from onethinker_jax.data_pipeline.processor.processor import Processor
        from onethinker_jax.data_pipeline.processor.prompts import PromptError

        try:
            return Processor.from_pretrained(
                self.model,
                self.media_bounds(),
                prompts=prompts or self.prompts(),
                media=self.media() if media is None else media,
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
        moved = decoding_layout(params, mesh, self.dtype, weights_dtype=self.weights_dtype, donate=True)
        return graphdef, moved
