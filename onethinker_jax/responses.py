"""Records -> responses: the one way from prompts to sampled text, for rollouts, evaluation and whoever asks.

Any number of prompts runs through the model's own sampler in fixed shapes, and samples come out as they end.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.batches.packing import PackingError, check_fits, stack_prompts
from onethinker_jax.data_pipeline.processor.processor import Example, Processor
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.generation.continuous_batching import (
    Completion,
    ContinuousBatching,
    EndReason,
    Prompts,
)
from onethinker_jax.model.generation.generate import GenerationShape
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.sharding import data_shards, decoding_layout
from onethinker_jax.sampler_settings import SamplerSettings


@dataclass(frozen=True)
class Samples:
    """The G completions of one prompt. Those that a checkpoint brings back lack the last two."""

    tokens: list[np.ndarray]  # int32 [n] each, the end token included
    logprobs: list[np.ndarray]  # float32 [n] each, under the distribution sampled from
    ended: list[bool]  # False: cut off at the length limit
    texts: list[str]  # what the prompt's opening wrote of the answer, and what the tokens say
    model_logprobs: list[np.ndarray] = field(default_factory=list)  # float32 [n], untempered and untruncated
    reasons: list[EndReason] = field(default_factory=list)


class Sampler:
    """Completions for any number of prompts, by continuous batching in fixed shapes."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        processor: Processor,
        settings: SamplerSettings,
        *,
        mesh: Mesh,
        compute_dtype: str = "float32",
        first: int = 0,
        stride: int = 1,
        lazy: bool = False,
    ):
        """Where prompts are dealt out to processes, this one samples every `stride`-th from number `first`.

        With `lazy` it compiles a program when a prompt first needs it, else all of them before the first sample.
        Raises ValueError naming a setting, ShardingError when the mesh does not divide `prompt_slots`.
        """
        self.processor, self.settings = processor, settings
        self._first, self._stride = first, stride
        self.mesh, self.compute_dtype = mesh, compute_dtype
        self.config = sampling_config(
            settings, eos_ids=processor.ends.eos_ids, suppressed_ids=suppressed_ids(processor)
        )
        shards = data_shards(mesh)
        shape = generation_shape(settings, compute_dtype, shards)
        self._decoding = ContinuousBatching(graphdef, self.config, shape, mesh, lazy=lazy)
        self._longest_stop = max((len(text.encode()) for text in settings.stop), default=0)

    def __call__(
        self, params: nnx.State, prompts: Sequence[Example], *, seed: int, step: int
    ) -> list[Samples]:
        """The samples of each prompt, keyed by (seed, step, its number).

        Raises PackingError when a prompt is longer than the settings allow.
        """
        found: dict[int, Samples] = {}
        for numbers, samples in self.parts(params, prompts, seed=seed, step=step):
            found.update(zip(numbers, samples, strict=True))
        return [found[number] for number in range(len(prompts))]

    def parts(
        self,
        params: nnx.State,
        prompts: Iterable[Example | None],
        *,
        seed: int,
        step: int,
        ahead: int | None = None,
        halted: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[list[int], list[Samples]]]:
        """The samples of a call in parts: the numbers of the prompts that are through, and their samples.

        The device goes on while the caller works on a part. `ahead` is the number of prompts that are read and kept
        beyond those on the device, by default all. A number whose prompt is None has no samples. Once `halted` says so
        no more are sampled. Raises PackingError when a prompt is longer than the settings allow.
        """
        settings = self.settings
        kept: dict[int, Example] = {}  # until it is on the device
        openings: dict[int, str] = {}  # of the prompts whose samples are not through

        def sizes() -> Iterator[tuple[int, int] | None]:
            for number, prompt in enumerate(prompts):
                if prompt is None:
                    yield None
                else:
                    check_fits(prompt, tokens=settings.prompt_tokens, patches=settings.prompt_patches)
                    kept[number], openings[number] = prompt, prompt.opening
                    yield len(prompt.tokens), len(prompt.patches)

        def stack(
            numbers: Sequence[int], tokens: int, patches: int
        ) -> tuple[ModelInputs, np.ndarray, np.ndarray]:
            chosen = [kept[number] for number in numbers]
            for number in set(numbers):
                del kept[number]
            inputs, lengths = stack_prompts(chosen, tokens=tokens, patches=patches)
            return inputs, lengths, np.array([prompt.next_position for prompt in chosen], np.int32)

        params = self.decoding_params(params)
        stream = self._decoding(
            params,
            Prompts(sizes(), stack, self._first, self._stride, ahead),
            group_size=settings.group_size,
            seed=seed,
            step=step,
            find_stop=self._find_stop if settings.stop else None,
            halted=halted,
        )
        unfinished: dict[int, list[Completion]] = defaultdict(list)
        for some in stream:
            for one in some:
                unfinished[one.prompt].append(one)
            through = sorted(
                number for number, parts in unfinished.items() if len(parts) == settings.group_size
            )
            if through:
                yield (
                    through,
                    [self._samples(openings.pop(number), unfinished.pop(number)) for number in through],
                )

    def decoding_params(self, params: nnx.State) -> nnx.State:
        """`params` in the dtypes and sharding that decoding uses; these pass through a second time unchanged."""
        settings, dtype = self.settings, self.compute_dtype
        return decoding_layout(params, self.mesh, dtype, weights_dtype=settings.weights_dtype)

    def number(self, own: int) -> int:
        """The number among those of all processes that this one's prompt number `own` has."""
        return self._first + self._stride * own

    def warm_up(self, params: nnx.State) -> None:
        """Compiles every program of sampling, which else the first call does."""
        self._decoding.warm_up(self.decoding_params(params))

    def prompt(self, record: Record) -> Example:
        """The record's prompt; raises PackingError naming the record when it exceeds the settings' sizes."""
        return prompt_of(record, self.processor, self.settings)

    def _samples(self, opening: str, finished: list[Completion]) -> Samples:
        finished = sorted(finished, key=lambda one: one.sample)
        return Samples(
            [one.tokens for one in finished],
            [one.logprobs for one in finished],
            [one.reason != "length" for one in finished],
            [self.processor.response(opening, one.tokens) for one in finished],
            [one.model_logprobs for one in finished],
            [one.reason for one in finished],
        )

    def _find_stop(self, tokens: np.ndarray, known: int) -> int | None:
        """The number of tokens up to the one that completes a stop string, looked for after token `known`; or None."""
        start = max(known - self._longest_stop, 0)  # a token that is seen in the text has at least one byte

        def complete(end: int) -> bool:
            text = self.processor.decode(tokens[start:end])
            return any(stop in text for stop in self.settings.stop)

        if not complete(len(tokens)):
            return None
        return next(end for end in range(known + 1, len(tokens) + 1) if complete(end))


def prompt_of(record: Record, processor: Processor, settings: SamplerSettings) -> Example:
    """The record's prompt; raises PackingError naming the record when it exceeds the settings' sizes."""
    prompt = processor.prompt(record)
    limits = (("tokens", settings.prompt_tokens), ("patches", settings.prompt_patches))
    for name, most in limits:
        if (size := len(getattr(prompt, name))) > most:
            raise PackingError(f"{record}: prompt of {size} {name}, more than the {most} allowed")
    return prompt


def suppressed_ids(processor: Processor) -> tuple[int, ...]:
    """The tokens that only the processor may write: placeholders and vision markers."""
    return (
        processor.image_token_id,
        processor.video_token_id,
        processor.vision_start_token_id,
        processor.vision_end_token_id,
    )


def sampling_config(
    settings: SamplerSettings, *, eos_ids: tuple[int, ...], suppressed_ids: tuple[int, ...]
) -> SamplingConfig:
    """The distribution that the settings describe. Raises ValueError naming a setting that is out of its range."""
    return SamplingConfig(
        max_new_tokens=settings.max_new_tokens,
        eos_ids=eos_ids,
        temperature=settings.temperature,
        suppressed_ids=suppressed_ids,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )


def generation_shape(settings: SamplerSettings, compute_dtype: str, shards: int) -> GenerationShape:
    """The device's shapes for the settings; `prefill_rows` is rounded up to a multiple of the data `shards`."""
    prefill_rows = settings.prefill_rows or min(settings.together, 8)
    return GenerationShape(
        prompt_slots=settings.together,
        sample_slots=min(settings.sample_slots or settings.group_size, settings.group_size),
        prompt_buckets=settings.buckets(),
        prefill_rows=-(-prefill_rows // shards) * shards,
        decode_block=min(settings.decode_block, settings.max_new_tokens),
        kv_dtype=settings.kv_dtype or compute_dtype,
        weights_dtype=settings.weights_dtype,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
    )
