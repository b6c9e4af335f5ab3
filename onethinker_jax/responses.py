"""Records -> responses: the one way from prompts to sampled text, for rollouts, evaluation and whoever asks.

Prompts of any number run in batches of one fixed shape on the model's own sampler.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.packing import PackingError, stack_prompts
from onethinker_jax.data_pipeline.processor import Example, Processor
from onethinker_jax.data_pipeline.records import Record
from onethinker_jax.model.generate import SamplingConfig, make_sampler, sample_keys
from onethinker_jax.model.sharding import decoding_layout, shard_rows


@dataclass(frozen=True)
class Samples:
    """The G completions of one prompt."""

    tokens: list[np.ndarray]  # int32 [n] each, the end token included
    logprobs: list[np.ndarray]  # float32 [n] each, under the distribution sampled from
    ended: list[bool]  # False: cut off at the length limit
    texts: list[str]


class Sampler:
    """Completions for prompts of any number, in batches of one fixed shape."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        processor: Processor,
        *,
        rows: int,
        samples: int,
        prompt_tokens: int,
        prompt_patches: int,
        max_new_tokens: int,
        temperature: float,
        mesh: Mesh,
        compute_dtype: str = "float32",
    ):
        self.processor = processor
        self.rows, self.samples = rows, samples
        self.shape = {"tokens": prompt_tokens, "patches": prompt_patches}
        self.mesh, self.compute_dtype = mesh, compute_dtype
        self.config = SamplingConfig(
            max_new_tokens=max_new_tokens,
            eos_ids=(processor.eos_token_id,),
            pad_id=processor.pad_token_id,
            temperature=temperature,
            forbidden_ids=forbidden_ids(processor),
            halvings=3 if math.prod(mesh.shape[axis] for axis in ("data", "fsdp")) == 1 else 0,
        )  # rows on many devices stay where they are: to halve them would move their caches
        self._sample = make_sampler(graphdef, self.config)

    def __call__(
        self, params: nnx.State, prompts: Sequence[Example], *, seed: int, step: int
    ) -> list[Samples]:
        """The samples of each prompt, keyed by (seed, step, its number).

        Raises PackingError when a prompt is longer than the fixed shape.
        """
        parts = self.parts(params, prompts, seed=seed, step=step)
        return [samples for part in parts for samples in part]

    def parts(
        self, params: nnx.State, prompts: Sequence[Example], *, seed: int, step: int
    ) -> Iterator[list[Samples]]:
        """The same, one batch at a time as each is through."""
        params = decoding_layout(params, self.mesh, self.compute_dtype)
        keys = sample_keys(seed, step, -(-len(prompts) // self.rows) * self.rows, self.samples)
        for start in range(0, len(prompts), self.rows):
            part = list(prompts[start : start + self.rows])
            padded = part + [part[-1]] * (self.rows - len(part))
            inputs, lengths = stack_prompts(padded, **self.shape)
            positions = np.array([prompt.next_position for prompt in padded], np.int32)
            arrays: Any = shard_rows((inputs, lengths, positions, keys[start : start + self.rows]), self.mesh)
            out = jax.device_get(self._sample(params, *arrays))
            results = []
            for row in range(len(part)):
                tokens = [ids[:n] for ids, n in zip(out.tokens[row], out.lengths[row], strict=True)]
                logprobs = [values[:n] for values, n in zip(out.logprobs[row], out.lengths[row], strict=True)]
                texts = [self.processor.decode(ids) for ids in tokens]
                results.append(Samples(tokens, logprobs, out.ended[row].tolist(), texts))
            yield results

    def prompt(self, record: Record) -> Example:
        """The record's prompt; raises PackingError naming the record when it exceeds the fixed shape."""
        prompt = self.processor.prompt(record)
        for name, size in (("tokens", len(prompt.tokens)), ("patches", len(prompt.patches))):
            if size > self.shape[name]:
                raise PackingError(
                    f"record {record.problem_id}: prompt of {size} {name}, more than the {self.shape[name]} allowed"
                )
        return prompt


def forbidden_ids(processor: Processor) -> tuple[int, ...]:
    """Tokens that only the processor may write: placeholders and vision markers."""
    return (
        processor.image_token_id,
        processor.video_token_id,
        processor.vision_start_token_id,
        processor.vision_end_token_id,
    )
