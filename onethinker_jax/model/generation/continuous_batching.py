"""The host's part of sampling: between decode blocks it gives prompt slots and sample slots their next work.

A sample slot whose sample has ended takes the next waiting sample of its prompt. A prompt slot without samples takes
the next prompt, which was prefilled behind earlier decode blocks: whole behind one, or a chunk behind each. When
nothing waits and few prompt slots are in use, these go on in a smaller batch. All shapes are fixed: after `warm_up`
nothing compiles. A row is a prompt slot of the cache, a slot is a sample slot. `qwen3_vl.py` has the legend of the axis
letters.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.model.attention.kv_cache import KVCache
from onethinker_jax.model.generation.generate import (
    DecodeBlock,
    GenerationShape,
    Programs,
    Slots,
    make_programs,
)
from onethinker_jax.model.generation.prefilling import Dispatched, Prefill, Stacked, bucket_of, padding
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.sharding import batch_sharding, data_shards
from onethinker_jax.model.vision import patch_values

EndReason = Literal["stop", "length", "stop_string"]
REFILL = 8  # a decode block ends early when one in REFILL of its rows, or of its slots, can be refilled

# Token ids of a sample, and the number that was looked at before -> how many to keep; None: nothing ends the sample.
FindStop = Callable[[np.ndarray, int], int | None]


@dataclass(frozen=True)
class Prompts:
    """The prompts of a call: their sizes, and a way to stack some of them in arrays of a bucket's size.

    Sizes are read in turn, at most `ahead` before the prompts that are prefilled, or all at once. Among the prompts
    that have been read and wait, the largest are prefilled first; each is stacked once. Where prompts are dealt out to
    processes, this process has every `stride`-th from number `first`: a sample's key is folded from the number that
    its prompt has among all.
    """

    sizes: Iterable[tuple[int, int] | None]  # (tokens, patches) of each number; None: there is no such prompt
    stack: Callable[[Sequence[int], int, int], Stacked]  # (numbers, tokens, patches) -> these prompts
    first: int = 0
    stride: int = 1
    ahead: int | None = None


@dataclass(frozen=True)
class Completion:
    """One sample; the end token, where there is one, is its last."""

    prompt: int
    sample: int
    tokens: np.ndarray  # int32 [n]
    logprobs: np.ndarray  # float32 [n], under the distribution sampled from
    model_logprobs: np.ndarray  # float32 [n], under the model's own: no temperature, no truncation
    reason: EndReason


class ContinuousBatching:
    """Samples for any number of prompts, by a fixed number of prompt slots and sample slots."""

    def __init__(
        self,
        model: nnx.GraphDef | Programs,
        sampling: SamplingConfig,
        shape: GenerationShape,
        mesh: Mesh | None = None,
        *,
        lazy: bool = False,
    ):
        """`model` is its graph, of which the programs are made, or the programs themselves.

        With `lazy` a program is compiled when it is first needed, else the first call compiles all.

        Raises ShardingError when the mesh's data shards do not divide `prompt_slots` or `prefill_rows`.
        """
        self.sampling, self.shape, self.mesh = sampling, shape, mesh
        self.programs = model if isinstance(model, Programs) else make_programs(model, sampling, shape)
        sizes = [shape.prompt_slots >> halving for halving in range(shape.halvings + 1)]
        if mesh is not None:
            for rows in (shape.prompt_slots, shape.prefill_rows):
                batch_sharding(mesh, rows)
            if data_shards(mesh) > 1:
                sizes = sizes[:1]  # to halve rows on many devices would move their caches
        self.sizes = [size for size in sizes if size]
        self._lazy, self._warm = lazy, False

    def __call__(
        self,
        params: nnx.State,
        prompts: Prompts,
        *,
        group_size: int,
        seed: int,
        step: int,
        find_stop: FindStop | None = None,
        halted: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[Completion]]:
        """`group_size` samples of every prompt as they end, keyed by (seed, step, prompt, sample, token).

        Between decode blocks `halted` is asked: once it is true, samples that have not ended are left. Raises
        ValueError when a prompt fits in no bucket.
        """
        waiting = _Waiting(prompts, partial(bucket_of, self.shape))
        if not self._lazy:
            self.warm_up(params)
        key = jax.random.fold_in(jax.random.key(seed), step)
        table = _Table(self.shape, group_size)
        cache, column = self.programs.empty(params), 0
        staged: _Staged | None = None
        finished: list[Completion] = []
        while True:
            while (staged or waiting) and len(free := table.free_rows()):
                staged = staged or self._stage(params, prompts, waiting)
                cache = self._insert(cache, staged, free, table)
                staged = staged if staged.numbers else None
            table.start_samples()
            if halted() or not table.live.any():
                break
            more = bool(staged or waiting)
            if not more:
                cache = self._shrink(cache, table)
            fewest = table.fewest(more, self.sizes)
            slots = table.slots(prompts.first, prompts.stride)
            cache, decode_block = self.programs.decode_block(
                params, cache, slots, key, np.int32(column), *fewest
            )
            if staged is None and waiting:
                staged = self._stage(params, prompts, waiting)
            if staged is not None:
                staged.dispatched.advance()
            if finished:  # while the device is busy
                yield finished
            decode_block = jax.device_get(decode_block)
            column = (column + int(decode_block.steps)) % cache.suffix.capacity
            finished = table.take_in(decode_block, self.sampling, find_stop)
        if finished:
            yield finished

    def warm_up(self, params: nnx.State) -> None:
        """Compiles every program, on nothing; at the first call only."""
        if self._warm:
            return
        cache = self.programs.empty(params)
        nothing = partial(padding, patch_values(params), self.shape.prefill_rows)
        for bucket in self.shape.prompt_buckets:
            staged = _Staged(self._dispatched(params, nothing, bucket, 1), {})
            cache = self._insert(cache, staged, np.zeros(0, np.int32), _Table(self.shape, 1))
        idle, zero = _Table(self.shape, 1), np.int32(0)
        for size in self.sizes:
            if size < len(idle.prompt):
                cache = self.programs.take(cache, idle.keep(size))
            key = jax.random.fold_in(jax.random.key(0), 0)
            cache, _ = self.programs.decode_block(params, cache, idle.slots(), key, zero, zero, zero)
        self._warm = True

    def _stage(self, params: nnx.State, prompts: Prompts, waiting: "_Waiting") -> "_Staged":
        """The next waiting prompts, padded to the bucket of the largest, and their prefill.

        Where fewer than `prefill_rows` wait, the last one fills the other rows too.
        """
        size = self.shape.prefill_rows
        taken = waiting.take(size)
        numbers = [one.number for one in taken]
        padded = numbers + numbers[-1:] * (size - len(numbers))
        bucket = self.shape.prompt_buckets[max(one.bucket for one in taken)]
        longest = max(one.tokens for one in taken)
        stack = partial(prompts.stack, padded)
        return _Staged(self._dispatched(params, stack, bucket, longest), dict(enumerate(numbers)))

    def _dispatched(
        self, params: nnx.State, stack: Callable[[int, int], Stacked], bucket: tuple[int, int], longest: int
    ) -> Dispatched:
        prefill = Prefill(self.programs, self.shape, self.mesh)
        return Dispatched(prefill.dispatches(params, stack, bucket, longest))

    def _insert(self, cache: KVCache, staged: "_Staged", free: np.ndarray, table: "_Table") -> KVCache:
        """The cache with staged prompts in its free rows, as many as there are of both."""
        rows = np.full(self.shape.prefill_rows, self.shape.prompt_slots, np.int32)
        for staged_row, row in zip(list(staged.numbers), free, strict=False):
            rows[staged_row] = row
            table.prompt[row] = staged.numbers.pop(staged_row)
        return self.programs.insert(cache, staged.dispatched.whole(), rows)

    def _shrink(self, cache: KVCache, table: "_Table") -> KVCache:
        """The cache with half of its rows, or a quarter, where the live rows fit in these."""
        for size in self.sizes:
            if table.live.any(-1).sum() <= size < len(table.prompt):
                cache = self.programs.take(cache, table.keep(size))
        return cache


@dataclass(frozen=True)
class _Read:
    """A prompt that waits to be prefilled."""

    number: int
    bucket: int
    tokens: int


class _Waiting:
    """The prompts that are not staged yet; up to `prompts.ahead` of them are read in advance."""

    def __init__(self, prompts: Prompts, bucket: Callable[[int, int], int]):
        self._coming, self._ahead, self._bucket = enumerate(prompts.sizes), prompts.ahead, bucket
        self._read: list[tuple[int, int, _Read]] = []  # a heap: the largest bucket first, then by number
        self._read_on(self._ahead)

    def __bool__(self) -> bool:
        self._read_on(1)
        return bool(self._read)

    def take(self, count: int) -> list[_Read]:
        """Up to `count` prompts, the largest first; they wait no more."""
        self._read_on(self._ahead)
        return [heapq.heappop(self._read)[2] for _ in range(min(count, len(self._read)))]

    def _read_on(self, count: int | None) -> None:
        """Reads prompts until `count` wait, or all prompts where `count` is None."""
        while count is None or len(self._read) < count:
            number, size = next(self._coming, (None, None))
            if number is None:
                return
            if size is not None:
                one = _Read(number, self._bucket(*size), size[0])
                heapq.heappush(self._read, (-one.bucket, number, one))


@dataclass
class _Staged:
    """Prompts that are being prefilled, or wait for rows."""

    dispatched: Dispatched
    # row of the prefill -> number of its prompt, for the prompts that wait for a slot
    numbers: dict[int, int]


class _Table:
    """The prompt in each row and the sample in each slot; a row without a prompt has prompt number -1."""

    def __init__(self, shape: GenerationShape, group_size: int):
        rows, slots = shape.prompt_slots, shape.sample_slots
        self.group_size = group_size
        self.prompt = np.full(rows, -1, np.int32)
        self.started = np.zeros(rows, np.int32)  # samples of the row's prompt
        self.sample = np.zeros((rows, slots), np.int32)
        self.token = np.zeros((rows, slots), np.int32)
        self.length = np.zeros((rows, slots), np.int32)
        self.live = np.zeros((rows, slots), bool)
        # (prompt, sample) -> tokens and log-probabilities of each decode block
        self.drawn: dict[tuple[int, int], list[list[np.ndarray]]] = {}

    def slots(self, first: int = 0, stride: int = 1) -> Slots:
        """Copies for the device, which may read them later; prompt i has number first + i x stride among all."""
        sample, token, length, live = (x.copy() for x in (self.sample, self.token, self.length, self.live))
        return Slots(first + stride * self.prompt, sample, token, length, live)

    def free_rows(self) -> np.ndarray:
        return np.flatnonzero(self.prompt < 0)

    def start_samples(self) -> None:
        """Gives free slots the waiting samples of their rows' prompts."""
        waiting = np.where(self.prompt >= 0, self.group_size - self.started, 0)
        for row in np.flatnonzero(waiting):
            for slot in np.flatnonzero(~self.live[row])[: waiting[row]]:
                self.sample[row, slot] = self.started[row]
                self.started[row] += 1
                self.token[row, slot] = self.length[row, slot] = 0
                self.live[row, slot] = True

    def fewest(self, more: bool, sizes: list[int]) -> tuple[np.int32, np.int32]:
        """The numbers of live rows and of live slots at which a decode block ends, since refilling pays then."""
        rows, slots = int(self.live.any(-1).sum()), int(self.live.sum())
        if more:
            least_rows = rows - max(rows // REFILL, 1)
        else:
            least_rows = max((size for size in sizes if size < rows), default=0)
        some_wait = ((self.prompt >= 0) & (self.started < self.group_size)).any()
        return np.int32(least_rows), np.int32(slots - max(slots // REFILL, 1) if some_wait else 0)

    def keep(self, count: int) -> np.ndarray:
        """Keeps `count` rows, the live ones first; returns the numbers that these rows had."""
        chosen = np.argsort(~self.live.any(-1), kind="stable")[:count].astype(np.int32)
        for name in ("prompt", "started", "sample", "token", "length", "live"):
            setattr(self, name, getattr(self, name)[chosen])
        return chosen

    def take_in(
        self, decode_block: DecodeBlock, sampling: SamplingConfig, find_stop: FindStop | None
    ) -> list[Completion]:
        """Adds what a decode block drew; returns the samples that ended, and frees their slots (and rows)."""
        finished = []
        for row, slot in np.argwhere(self.live):
            known, length = int(self.length[row, slot]), int(decode_block.length[row, slot])
            name = int(self.prompt[row]), int(self.sample[row, slot])
            kinds = (decode_block.tokens, decode_block.logprobs, decode_block.model_logprobs)
            parts = self.drawn.setdefault(name, [])
            parts.append([kind[: length - known, row, slot] for kind in kinds])
            cut = None
            if find_stop is not None:
                cut = find_stop(np.concatenate([tokens for tokens, _, _ in parts]), known)
            if decode_block.live[row, slot] and cut is None:
                continue
            whole = (np.concatenate(kind)[:cut] for kind in zip(*self.drawn.pop(name), strict=True))
            tokens, logprobs, model_logprobs = whole
            reason: EndReason = "stop" if tokens[-1] in sampling.eos_ids else "length"
            reason = reason if cut is None else "stop_string"
            finished.append(Completion(*name, tokens, logprobs, model_logprobs, reason))
            self.live[row, slot] = False
        self.token = np.where(self.live, decode_block.tokens[decode_block.steps - 1], 0)
        self.length = decode_block.length.copy()
        done = ~self.live.any(-1) & (self.started == self.group_size)
        self.prompt[done], self.started[done] = -1, 0
        return finished
