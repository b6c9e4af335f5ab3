"""Sampling of given lengths by the real scheduler, `ContinuousBatching`, with programs that only count.

Each sample ends at its given length. What a program would have done is summed: prefills, decode steps, and which
columns of the cache its attention would have read (`decode_attention.py` skips whole chunks).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from onethinker_jax.data_pipeline.batches.packing import GroupSize
from onethinker_jax.model.attention.decode_attention import CHUNK, whole_chunks
from onethinker_jax.model.generation.continuous_batching import ContinuousBatching, Prompts
from onethinker_jax.model.generation.generate import DecodeBlock, GenerationShape, Programs, Slots
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.sharding import make_mesh


@dataclass
class Decoded:
    """What sampling did, summed over calls."""

    calls: int = 0
    prefills: Counter[tuple[int, int]] = field(
        default_factory=Counter
    )  # (tokens of the bucket, longest) -> how often
    decode_blocks: int = 0
    steps: int = 0
    row_steps: int = 0  # a step counts once for every prompt slot of its batch
    tokens: int = 0  # drawn
    prefix_columns: int = 0  # of the cache that were read, summed over steps and prompt slots
    suffix_columns: int = 0

    def occupancy(self, shape: GenerationShape) -> float:
        """The share of the sample slots' steps that drew a token."""
        return self.tokens / max(self.row_steps * shape.sample_slots, 1)


def decode(groups: Sequence[GroupSize], shape: GenerationShape, max_new_tokens: int, found: Decoded) -> None:
    """Samples the groups in one call of the scheduler, and adds what it did to `found`.

    The groups have equally many samples, each of at most `max_new_tokens` tokens.
    """
    sampling = SamplingConfig(max_new_tokens=max_new_tokens, eos_ids=(0,))
    lengths = np.array([group.completions for group in groups], np.int32)
    programs = _CountingPrograms(
        np.array([group.tokens for group in groups]), lengths, shape, sampling, found
    )
    scheduler = ContinuousBatching(programs.programs(), sampling, shape, lazy=True)
    prompts = Prompts([(group.tokens, group.patches) for group in groups], programs.stack)
    nothing: Any = None
    with jax.set_mesh(make_mesh(devices=jax.devices("cpu")[:1])):  # a plan's own devices may not be there
        parts = scheduler(nothing, prompts, group_size=lengths.shape[1], seed=0, step=0)
        ended = sum(len(part) for part in parts)
    assert ended == lengths.size
    found.calls += 1


class _CountingPrograms:
    """The programs of a sampler without a model: each sample has its length from the start."""

    def __init__(
        self,
        prompts: np.ndarray,
        lengths: np.ndarray,
        shape: GenerationShape,
        sampling: SamplingConfig,
        found: Decoded,
    ):
        self._prompts, self._lengths, self._shape, self._found = prompts, lengths, shape, found
        columns = whole_chunks(sampling.max_new_tokens)
        self._cache: Any = SimpleNamespace(suffix=SimpleNamespace(capacity=columns))
        self._prefix = whole_chunks(shape.prompt_buckets[-1][0])

    def programs(self) -> Programs:
        """In the place of `make_programs`; the prompts that wait are `()`."""

        def prefill(params: Any, *prompts: Any) -> Any:
            return ()

        def embed(params: Any, *prompts: Any) -> Any:
            return (), ()

        def chunk(params: Any, embedded: Any, prompts: Any, start: Any) -> Any:
            return ()

        def same(cache: Any, *arguments: Any) -> Any:
            return cache

        return Programs(lambda params: self._cache, prefill, embed, chunk, same, self._decode_block, same)

    def stack(self, numbers: Sequence[int], tokens: int, patches: int) -> Any:
        """Counts a prefill; there are no prompts to stack."""
        self._found.prefills[tokens, int(self._prompts[list(numbers)].max())] += 1
        return None, None, None

    def _decode_block(
        self,
        params: Any,
        cache: Any,
        slots: Slots,
        key: Any,
        column: Any,
        fewest_rows: Any,
        fewest_slots: Any,
    ) -> tuple[Any, DecodeBlock]:
        most, length, live = self._shape.decode_block, np.asarray(slots.length), np.asarray(slots.live)
        prompt = np.asarray(slots.prompt)
        left = np.where(live, self._lengths[prompt[:, None], slots.sample] - length, 0)  # [R, g]
        after = np.arange(most + 1)
        live_rows = (left.max(1)[:, None] > after).sum(0)
        live_slots = (left.reshape(-1, 1) > after).sum(0)
        enough = (live_rows <= fewest_rows) | (live_slots <= fewest_slots) | (after == most)
        steps = int(np.argmax(enough))
        self._count(length, left, prompt, int(column), steps)
        nothing = np.broadcast_to(np.int32(0), (most, *left.shape))
        numbers = np.broadcast_to(np.float32(0), nothing.shape)
        length = length + np.minimum(left, steps).astype(np.int32)
        return cache, DecodeBlock(nothing, numbers, numbers, length, left > steps, np.int32(steps))

    def _count(
        self, length: np.ndarray, left: np.ndarray, prompt: np.ndarray, column: int, steps: int
    ) -> None:
        """Adds a decode block to what was found."""
        found, rows, capacity = self._found, len(left), self._cache.suffix.capacity
        found.decode_blocks += 1
        found.steps += steps
        found.row_steps += rows * steps
        found.tokens += int(np.minimum(left, steps).sum())
        of_rows = left.max(1)
        for step in range(steps):
            longest = int(self._prompts[prompt[of_rows > step]].max(initial=0))
            found.prefix_columns += rows * _chunks_of(longest, self._prefix)
            known = int((length[left > step] + step - 1).max(initial=0))
            at = (column + step) % capacity
            found.suffix_columns += rows * ring_columns(known, at, capacity)


def _chunks_of(entries: int, capacity: int) -> int:
    """Columns that are read for the first `entries` of them, in whole chunks."""
    chunk = min(CHUNK, capacity)
    return capacity if chunk == capacity else -(-entries // chunk) * chunk


def ring_columns(entries: int, column: int, capacity: int) -> int:
    """Columns of a ring that are read for the newest `entries` before `column`, in whole chunks."""
    chunk = min(CHUNK, capacity)
    if chunk == capacity or entries >= capacity:
        return capacity
    if entries == 0:
        return 0
    first, last = (column - entries) % capacity, (column - 1) % capacity
    chunks = capacity // chunk
    if first > last and first // chunk == last // chunk:
        return capacity
    return ((last // chunk - first // chunk) % chunks + 1) * chunk
