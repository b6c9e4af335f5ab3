"""The host's part of prefill: which bucket a prompt is padded to, and the dispatches that compute prompts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.model.attention.kv_cache import Prefilled
from onethinker_jax.model.generation.generate import GenerationShape, Programs
from onethinker_jax.model.inputs import ModelInputs, VisionInputs
from onethinker_jax.model.sharding import shard_rows

# Inputs, lengths int32 [n], positions of the first new tokens int32 [n].
Stacked = tuple[ModelInputs, np.ndarray, np.ndarray]


def bucket_of(shape: GenerationShape, tokens: int, patches: int) -> int:
    """The number of the smallest bucket that a prompt fits in. Raises ValueError when it fits in none."""
    for number, (most_tokens, most_patches) in enumerate(shape.prompt_buckets):
        if tokens <= most_tokens and patches <= most_patches:
            return number
    raise ValueError(f"a prompt of {tokens} tokens and {patches} patches exceeds {shape.prompt_buckets[-1]}")


@dataclass(frozen=True)
class Prefill:
    """Computes prompts by a sampler's programs."""

    programs: Programs
    shape: GenerationShape
    mesh: Mesh | None

    def dispatches(
        self,
        params: nnx.State,
        stack: Callable[[int, int], Stacked],
        bucket: tuple[int, int],
        longest: int,
    ) -> Iterator[Prefilled]:
        """The prompts after each dispatch: one prefills them whole, or one their media and then one each chunk.

        `stack` gives `prefill_rows` prompts, the longest of `longest` tokens, in arrays of the bucket's size.
        """

        def arrays() -> Any:
            stacked: Any = stack(*bucket)
            return stacked if self.mesh is None else shard_rows(stacked, self.mesh)

        if self.shape.prefill_chunk_tokens is None:
            yield self.programs.prefill(params, *arrays())
            return
        embedded, computed = self.programs.embed(params, *arrays())
        yield computed
        for start in self.shape.chunk_starts(bucket[0], longest):
            computed = self.programs.prefill_chunk(params, embedded, computed, np.int32(start))
            yield computed


class Dispatched:
    """Prompts whose prefill is under way."""

    def __init__(self, dispatches: Iterator[Prefilled]):
        self._dispatches = dispatches
        self._prompts: Prefilled | None = None

    def advance(self) -> bool:
        """Makes one more dispatch, where one is left; whether one was."""
        following = next(self._dispatches, None)
        if following is None:
            return False
        self._prompts = following
        return True

    def whole(self) -> Prefilled:
        """The prompts after all dispatches; those dispatches that are left are made at once."""
        while self.advance():
            pass
        assert self._prompts is not None
        return self._prompts


def padding(values: int, rows: int, tokens: int, patches: int) -> Stacked:
    """Prompts of padding alone, in the shapes of prompts; a patch has `values` numbers."""
    no_token, no_patch = np.zeros((rows, tokens), np.int32), np.zeros((rows, patches), np.int32)
    vision = VisionInputs(
        patches=np.zeros((rows, patches, values), np.uint8),
        frame_ids=no_patch,
        coords=np.zeros((rows, patches, 2), np.int32),
        embed_index=np.zeros((rows, patches, 4), np.int32),
        embed_weight=np.zeros((rows, patches, 4), np.float32),
    )
    inputs = ModelInputs(
        tokens=no_token,
        positions=np.zeros((rows, 3, tokens), np.int32),
        segment_ids=no_token,
        branch_ids=no_token,
        visual_index=no_token - 1,
        vision=vision if patches else None,
    )
    return inputs, np.ones(rows, np.int32), np.zeros(rows, np.int32)
