"""The settings of a sampler: how many samples together, how long, from which distribution. Imports no JAX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

SMALLEST_STEP = 128  # tokens or patches that the sizes of a prompt are rounded up to, at least


def padded(size: int) -> int:
    """The size that a prompt of `size` tokens or patches is padded to, so that few sizes are compiled.

    Beyond 512 the padded size is at most a quarter more than `size`; 0 stays 0.
    """
    step = max(SMALLEST_STEP, 2 ** (max(size - 1, 1).bit_length() - 3))
    return -(-size // step) * step


PROMPT_SLOTS = 8
"""Prompts decoded together, unless a setting says otherwise."""
PROMPTS_AHEAD = 32
"""Prompts that are read and kept beyond those on the device, unless a setting says otherwise."""


KVDtype = Literal["float32", "bfloat16", "int8"]
WeightsDtype = Literal["int8"]


@dataclass(frozen=True)
class SamplerSettings:
    """How a model answers prompts: how many together, how long, and from which distribution.

    Lengths are tokens, sizes of media are patches.
    """

    prompt_slots: int | None = None
    """Prompts decoded together; more wait, and take the slots of those that are done. By default 8, and in RL all of a
    step's."""
    prompt_tokens: int = 16_384
    """Most tokens of a prompt, its media's included."""
    prompt_patches: int = 65_536
    """Most patches of a prompt's images and frames together; a multiple of 4."""
    max_new_tokens: int = 4096
    """Most tokens of an answer; a longer one is cut off."""
    group_size: int = 1
    """Answers sampled of each prompt: in RL the group that a reward is compared within."""
    sample_slots: int | None = None
    """Samples of a prompt decoded together; by default all of them."""
    prompt_buckets: int = 1
    """Sizes that prompts are padded to: the longest, its half, its quarter …; each costs a prefill to compile."""
    prefill_rows: int | None = None
    """Prompts prefilled together; by default up to 8 of them."""
    prefill_chunk_tokens: int | None = None
    """Most tokens of a prompt computed in one dispatch (chunked prefill), so that a long prompt's prefill goes by
    between decode blocks and holds the activations of one chunk; by default prompts are prefilled whole."""
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """The likeliest tokens that are kept; 0 keeps all."""
    top_p: float = 1.0
    """The fewest likeliest tokens whose probabilities sum to this are kept."""
    min_p: float = 0.0
    """Tokens are kept whose probability is at least this fraction of the likeliest token's."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer, at the token that completes one; it counts as ended, not as cut off."""
    kv_dtype: KVDtype | None = None
    """What the KV cache is kept in; by default what the model computes in. With int8 the sampler's probabilities are
    not quite those that RL computes."""
    weights_dtype: WeightsDtype | None = None
    """What the sampler keeps the decoder's and the head's matrices in; by default what the model computes in. With int8
    the sampler's probabilities are not quite those that RL computes."""
    decode_block: int = 32
    """Most tokens of a sample drawn in one dispatch (multi-step decode)."""

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "max_new_tokens", "group_size", "prompt_buckets", "decode_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("prompt_slots", "sample_slots", "prefill_rows", "prefill_chunk_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} must be at least 1")
        if self.prompt_patches < 0 or self.prompt_patches % 4:
            raise ValueError(f"prompt_patches {self.prompt_patches} is not a multiple of 4 (merge blocks)")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature} must not be negative, nor infinite")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k} must not be negative; 0 keeps every token")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is not in (0, 1]; 1 keeps every token")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p {self.min_p} is not in [0, 1]; 0 keeps every token")
        if "" in self.stop:
            raise ValueError("stop: an empty string would end every sample")

    @property
    def together(self) -> int:
        """Prompts decoded together."""
        return PROMPT_SLOTS if self.prompt_slots is None else self.prompt_slots

    @property
    def truncated(self) -> bool:
        """Whether tokens are left out of the model's distribution."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def quantised(self) -> str:
        """The name of a setting by which the sampler's probabilities are not quite the model's, or nothing."""
        return next((name for name in ("weights_dtype", "kv_dtype") if getattr(self, name) == "int8"), "")

    def all_together(self, prompts: int) -> "SamplerSettings":
        """These settings for `prompts` at a time: all decoded together, unless `prompt_slots` says otherwise."""
        return self if self.prompt_slots is not None else replace(self, prompt_slots=prompts)

    def fitted_to(self, sizes: Sequence[tuple[int, int]]) -> "SamplerSettings":
        """For these prompts alone, (tokens, patches) each: no more slots, tokens and patches than they need."""
        return replace(
            self,
            prompt_slots=min(self.together, len(sizes)),
            prompt_tokens=min(self.prompt_tokens, padded(max(tokens for tokens, _ in sizes))),
            prompt_patches=min(self.prompt_patches, padded(max(patches for _, patches in sizes))),
        )

    def buckets(self) -> tuple[tuple[int, int], ...]:
        """(tokens, patches) that prompts are padded to, smallest first; patches in whole merge blocks."""
        sizes = {
            (-(-self.prompt_tokens // 2**i), -(-self.prompt_patches // (4 * 2**i)) * 4)
            for i in range(self.prompt_buckets)
        }
        return tuple(sorted(sizes))
