"""A batch that never ends: requests join it while others decode, and leave it when they are through or unwanted.

What `continuous_batching.py` does for a given number of prompts, this does for a server. Each request has its own
settings, which are arrays of the compiled step, and a key of its own, so that its samples do not depend on what else
is decoded: they are those that `ContinuousBatching` draws for the prompt alone, at step 0. A prompt slot has one sample
slot. The samples of a request share one prefill: its keys and values are copied to a slot for each sample. All shapes
are fixed: after `warm_up` nothing compiles. For one thread; `qwen3_vl.py` has the legend of the axis letters.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import count
from typing import Generic, Literal, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.model.generation.continuous_batching import REFILL
from onethinker_jax.model.generation.generate import DecodeBlock, GenerationShape, Slots, make_programs
from onethinker_jax.model.generation.prefilling import Dispatched, Prefill, Stacked, bucket_of, padding
from onethinker_jax.model.generation.sampling import SampleSettings, SamplingConfig
from onethinker_jax.model.sharding import batch_sharding
from onethinker_jax.model.vision import patch_values

P = TypeVar("P")


@dataclass(frozen=True)
class SampleRequest(Generic[P]):
    """A prompt, and the samples that are wanted of it; `max_new_tokens` is at most the batch's."""

    prompt: P  # what the batch's `stack` takes
    tokens: int  # of the prompt
    patches: int
    max_new_tokens: int
    samples: int = 1
    seed: int = 0  # in [0, 2^32)
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    top_logprobs: bool = False  # whether `NewTokens.top` is wanted


@dataclass(frozen=True)
class NewTokens:
    """What a decode block drew of one sample: n tokens."""

    request: int
    sample: int
    tokens: np.ndarray  # int32 [n], the end token included
    logprobs: np.ndarray  # float32 [n], of the model's distribution: no temperature, no truncation
    top: (
        tuple[np.ndarray, np.ndarray] | None
    )  # int32 and float32 [n, N], the likeliest tokens; None: not wanted
    reason: Literal["stop", "length"] | None  # None: the sample goes on


@dataclass
class _Waiting(Generic[P]):
    number: int
    request: SampleRequest[P]
    started: int = 0  # of its samples


@dataclass
class _Staged(Generic[P]):
    """Requests that are being prefilled, or whose samples wait for slots; a row of the prefill each."""

    dispatched: Dispatched
    rows: list[_Waiting[P]]
    ready: bool = False

    def waiting(self) -> list[tuple[int, _Waiting[P]]]:
        """The rows whose request has samples that wait for a slot."""
        return [(row, one) for row, one in enumerate(self.rows) if one.started < one.request.samples]


class RunningBatch(Generic[P]):
    """Samples for requests, by a fixed number of slots."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        params: nnx.State,
        sampling: SamplingConfig,
        shape: GenerationShape,
        stack: Callable[[Sequence[P], int, int], Stacked],
        mesh: Mesh | None = None,
    ):
        """`stack` puts `prefill_rows` prompts into arrays of a bucket's tokens and patches.

        Of `sampling` the end tokens, the suppressed tokens and the longest sample count. Raises ShardingError when
        the mesh's data shards do not divide `prompt_slots` or `prefill_rows`, ValueError for several sample slots.
        """
        if shape.sample_slots != 1:
            raise ValueError("a running batch has one sample slot a prompt slot")
        if mesh is not None:
            for rows in (shape.prompt_slots, shape.prefill_rows):
                batch_sharding(mesh, rows)
        self.shape, self.sampling = shape, sampling
        self.prefills = 0
        """Prompts that were computed."""
        self.steps = 0
        """Decode steps that were made."""
        self._params, self._stack, self._programs = params, stack, make_programs(graphdef, sampling, shape)
        self._prefill = Prefill(self._programs, shape, mesh)
        self._numbers = count()
        self._key = jax.random.key(0)  # requests have keys of their own
        self.clear()

    def clear(self) -> list[int]:
        """Forgets all requests and makes a new cache; returns the requests that were not through.

        After an error inside a dispatch this is the way on: the cache may be lost with it.
        """
        lost = sorted({*self._all()}) if hasattr(self, "_waiting") else []
        size = (self.shape.prompt_slots, 1)
        self._waiting: deque[_Waiting[P]] = deque()
        self._staged: _Staged[P] | None = None
        self._request = np.full(size, -1, np.int64)  # -1: the slot is free
        self._sample, self._token, self._length = (np.zeros(size, np.int32) for _ in range(3))
        dtypes = {"seed": np.uint32, "top_k": np.int32, "max_new_tokens": np.int32}
        names = [field.name for field in fields(SampleSettings) if field.name != "top_logprobs"]
        self._settings = {name: np.zeros(size, dtypes.get(name, np.float32)) for name in names}
        self._wants_top = np.zeros(size, bool)
        self._cache, self._column = self._programs.empty(self._params), 0
        return lost

    @property
    def running(self) -> int:
        """Slots in use."""
        return int((self._request >= 0).sum())

    @property
    def waiting(self) -> int:
        """Requests with samples that wait for a slot."""
        return len(self._waiting) + (len(self._staged.waiting()) if self._staged else 0)

    def join(self, request: SampleRequest[P]) -> int:
        """Takes a request; returns its number. Raises ValueError where its prompt or its samples are too long."""
        bucket_of(self.shape, request.tokens, request.patches)
        if not 1 <= request.max_new_tokens <= self.sampling.max_new_tokens:
            most = self.sampling.max_new_tokens
            raise ValueError(f"max_new_tokens {request.max_new_tokens} is not in 1 to {most}")
        number = next(self._numbers)
        self._waiting.append(_Waiting(number, request))
        return number

    def leave(self, request: int, sample: int | None = None) -> None:
        """Drops a request that is not wanted any more, or one sample of it that has a slot: slots are free at once."""
        mine = self._request == request
        self._free(mine if sample is None else mine & (self._sample == sample))
        if sample is None:
            self._waiting = deque(one for one in self._waiting if one.number != request)
            for one in self._staged.rows if self._staged else ():
                if one.number == request:
                    one.started = one.request.samples

    def step(self) -> list[NewTokens]:
        """Gives free slots to what waits and decodes a block; none where nothing runs."""
        self._admit()
        live = self._request >= 0
        if not live.any():
            return []
        rows = int(live.sum())
        fewest = rows - max(rows // REFILL, 1) if self.waiting else 0
        self._cache, block = self._programs.decode_block(
            *(self._params, self._cache, self._slots(live), self._key, np.int32(self._column)),
            *(np.int32(fewest), np.int32(0)),
        )
        block = jax.device_get(block)
        self._column = (self._column + int(block.steps)) % self._cache.suffix.capacity
        self.steps += int(block.steps)
        return self._take_in(block, live)

    def warm_up(self) -> None:
        """Compiles every program, on nothing."""
        nothing = partial(padding, patch_values(self._params), self.shape.prefill_rows)
        outside = np.full(self.shape.prefill_rows, self.shape.prompt_slots, np.int32)
        for bucket in self.shape.prompt_buckets:
            prompts = Dispatched(self._prefill.dispatches(self._params, nothing, bucket, longest=1)).whole()
            self._cache = self._programs.insert(self._cache, prompts, outside)
        zero, idle = np.int32(0), self._slots(np.zeros_like(self._wants_top))
        arguments = self._params, self._cache, idle, self._key, zero, zero, zero
        self._cache, block = self._programs.decode_block(*arguments)
        jax.block_until_ready(block)

    def _admit(self) -> None:
        """Prefills what waits and puts it into free slots.

        While others decode, chunked prefill computes no more than about a chunk between two decode blocks. One
        prompt is prefilled ahead of a free slot.
        """
        chunk, spent = self.shape.prefill_chunk_tokens, 0
        alone = not (self._request >= 0).any()
        while self._staged or self._waiting:
            staged = self._staged = self._staged or self._stage()
            while not staged.ready and (chunk is None or alone or spent < chunk):
                staged.ready = not staged.dispatched.advance()
                spent += 0 if staged.ready else chunk or 0
            while (waiting := staged.waiting()) and staged.ready:
                free = np.flatnonzero(self._request[:, 0] < 0)
                if not len(free):
                    return
                self._insert(staged, waiting, free)
            if waiting:
                return
            self._staged = None

    def _stage(self) -> _Staged[P]:
        """The next waiting requests and their prefill; where too few wait, the last one fills the other rows too."""
        size = self.shape.prefill_rows
        taken = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        self.prefills += len(taken)
        prompts = [one.request.prompt for one in taken]
        prompts += prompts[-1:] * (size - len(prompts))
        sizes = [(one.request.tokens, one.request.patches) for one in taken]
        longest, most_patches = (max(size) for size in zip(*sizes, strict=True))
        bucket = self.shape.prompt_buckets[bucket_of(self.shape, longest, most_patches)]
        stack = partial(self._stack, prompts)
        return _Staged(Dispatched(self._prefill.dispatches(self._params, stack, bucket, longest)), taken)

    def _insert(self, staged: _Staged[P], waiting: list[tuple[int, _Waiting[P]]], free: np.ndarray) -> None:
        """Puts a sample of each waiting request into a free slot, as many as there are of both."""
        rows = np.full(self.shape.prefill_rows, self.shape.prompt_slots, np.int32)
        for (staged_row, one), row in zip(waiting, free, strict=False):
            rows[staged_row] = row
            self._request[row], self._sample[row] = one.number, one.started
            self._token[row] = self._length[row] = 0
            for name, values in self._settings.items():
                values[row] = getattr(one.request, name)
            self._wants_top[row] = one.request.top_logprobs
            one.started += 1
        self._cache = self._programs.insert(self._cache, staged.dispatched.whole(), rows)

    def _slots(self, live: np.ndarray) -> Slots:
        """Copies for the device, which may read them later."""
        each: dict[str, np.ndarray] = {name: values.copy() for name, values in self._settings.items()}
        wants_top = np.bool_((self._wants_top & live).any())
        return Slots(
            prompt=np.zeros(len(live), np.int32),
            sample=self._sample.copy(),
            token=self._token.copy(),
            length=self._length.copy(),
            live=live,
            settings=SampleSettings(**each, top_logprobs=wants_top),
        )

    def _take_in(self, block: DecodeBlock, live: np.ndarray) -> list[NewTokens]:
        """What was drawn of each sample; the slots of those that ended are free."""
        found: list[NewTokens] = []
        for row in np.flatnonzero(live[:, 0]):
            at = slice(int(block.length[row, 0] - self._length[row, 0])), row, 0
            tokens, top = block.tokens[at], None
            if self._wants_top[row, 0]:
                assert block.top is not None
                top = block.top[0][at], block.top[1][at]
            reason = None
            if not block.live[row, 0]:
                reason = "stop" if tokens[-1] in self.sampling.eos_ids else "length"
            name = int(self._request[row, 0]), int(self._sample[row, 0])
            found.append(NewTokens(*name, tokens, block.model_logprobs[at], top, reason))
            self._token[row] = tokens[-1]
        self._length = block.length.copy()
        self._free(live & ~block.live)
        return found

    def _free(self, slots: np.ndarray) -> None:
        self._request[slots] = -1
        self._wants_top[slots] = False
        for values in self._settings.values():
            values[slots] = 0

    def _all(self) -> list[int]:
        """The requests that are not through."""
        staged = [one.number for _, one in self._staged.waiting()] if self._staged else []
        held = self._request[self._request >= 0].tolist()
        return [*held, *staged, *(one.number for one in self._waiting)]
