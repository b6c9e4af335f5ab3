"""The distribution a token is drawn from: suppressed tokens, temperature, top-k, top-p, min-p; and the keys of draws.

A draw's key is folded from (seed, step, prompt, sample, token), so no sample depends on what else is decoded.
First one of 128 blocks of the vocabulary is drawn by its probability, then a token of the block. That takes
128 + V / 128 Gumbel numbers; V of them would take longer to make than a small model's logits.
Truncation departs from the usual sorting of the vocabulary: the least logit that is kept is found by bisection
over the bits of a float32, 32 sums over the vocabulary, which accelerators do much faster than a sort.
Where samples differ in how they are drawn, as the requests of a server do, their settings are arrays of the compiled
step (`SampleSettings`, `draw_each`); else they are constants of it (`SamplingConfig`, `draw`).
`qwen3_vl.py` has the legend of the axis letters; *B are any axes of samples, W the tokens of a block of the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from onethinker_jax.model.inputs import HostOrDevice

# A power of two, so that a vocabulary split over devices is split between blocks.
BLOCKS = 128
TOP_LOGPROBS = 20
"""The likeliest tokens that `top_tokens` gives: the most that OpenAI's API lets a client ask for."""


@dataclass(frozen=True)
class SamplingConfig:
    """How continuations are drawn, of at most `max_new_tokens`. `temperature` 0 is greedy.

    `suppressed_ids` are never drawn and take no probability: placeholders and vision markers, which would
    promise features that are not there. An `eos_ids` token ends its sample and belongs to it.

    Truncation is that of transformers, in its order: of the tempered distribution the `top_k` likeliest tokens
    (0: all); of these, renormalised, the fewest likeliest whose probabilities sum to `top_p`
    (arXiv 1904.09751); of these, those at least `min_p` times as likely as the likeliest (arXiv 2407.01082).
    Tokens as likely as the last one kept are kept too. Greedy decoding takes no truncation: it would change nothing.
    Raises ValueError naming a value that is out of its range.
    """

    max_new_tokens: int
    eos_ids: tuple[int, ...]
    temperature: float = 1.0
    suppressed_ids: tuple[int, ...] = ()
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} must be at least 1")
        if not 0 <= self.temperature < np.inf:
            raise ValueError(f"temperature {self.temperature} must not be negative, nor infinite")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k} must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is not in (0, 1]")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p {self.min_p} is not in [0, 1]")

    @property
    def truncated(self) -> bool:
        """Whether tokens are left out that the policy could have produced."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Draw:
    """Tokens drawn, and their log-probabilities under two distributions."""

    token: Array  # int32 [*B]
    logprob: Array  # float32 [*B], of the distribution sampled from (greedy: of the model's)
    # float32 [*B], of the model's distribution: without temperature, truncation and suppressed tokens
    model_logprob: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SampleSettings:
    """How each sample is drawn, where samples differ in it. The fields mean what they mean in `SamplingConfig`."""

    seed: HostOrDevice  # uint32 [*B], its key is that of (seed, step 0, prompt 0, sample, token)
    temperature: HostOrDevice  # float32 [*B]
    top_k: HostOrDevice  # int32 [*B]
    top_p: HostOrDevice  # float32 [*B]
    min_p: HostOrDevice  # float32 [*B]
    max_new_tokens: HostOrDevice  # int32 [*B]
    top_logprobs: HostOrDevice  # bool [], whether the step gives each sample's likeliest tokens


def seeded_keys(seeds: Int[Array, "*B"], samples: Int[Array, "*B"]) -> Key[Array, "*B"]:
    """The keys of samples that each have a seed, uint32: those of (seed, step 0, prompt 0, sample)."""
    fold = jax.random.fold_in

    def key(seed: Array, sample: Array) -> Array:
        return fold(fold(fold(jax.random.key(seed), 0), 0), sample)

    return jax.vmap(key)(seeds.reshape(-1), samples.reshape(-1)).reshape(seeds.shape)


def sample_keys(
    key: Key[Array, ""], prompts: Int[Array, "*B"], samples: Int[Array, "*B"]
) -> Key[Array, "*B"]:
    """The keys of samples, by their prompt's number and their own; `key` is that of (seed, step)."""
    fold = jax.random.fold_in
    flat = jax.vmap(lambda p, s: fold(fold(key, p), s))(prompts.reshape(-1), samples.reshape(-1))
    return flat.reshape(prompts.shape)


def policy_logits(
    logits: Float[Array, "*B V"], *, temperature: float, suppressed_ids: tuple[int, ...]
) -> Float[Array, "*B V"]:
    """The logits / temperature, suppressed tokens at -inf: the policy that RL samples from and optimises.

    With `temperature` 0 (greedy) the logits are left as they are.
    """
    if suppressed_ids:
        suppressed = np.zeros(logits.shape[-1], bool)
        suppressed[list(suppressed_ids)] = True
        logits = jnp.where(suppressed, -jnp.inf, logits)
    return logits / temperature if temperature not in (0, 1) else logits


def draw(
    logits: Float[Array, "*B V"], keys: Key[Array, "*B"], index: Int[Array, "*B"], config: SamplingConfig
) -> Draw:
    """One token of each sample; `index` is the token's number in its sample, which the sample's key is folded with."""
    plain = policy_logits(logits, temperature=1.0, suppressed_ids=config.suppressed_ids)
    tempered = policy_logits(plain, temperature=config.temperature, suppressed_ids=())
    kept = truncate(tempered, config) if config.truncated else tempered
    blocks = _blocks(kept)
    masses = jax.nn.logsumexp(blocks, axis=-1)
    token = kept.argmax(-1) if config.temperature == 0 else _drawn(keys, index, blocks, masses)
    logprob = _logprob(kept, token, masses)
    model_logprob = logprob
    if kept is not plain:
        model_logprob = _logprob(plain, token, jax.nn.logsumexp(_blocks(plain), axis=-1))
    return Draw(token.astype(jnp.int32), logprob, model_logprob)


def draw_each(
    logits: Float[Array, "*B V"],
    keys: Key[Array, "*B"],
    index: Int[Array, "*B"],
    settings: SampleSettings,
    suppressed_ids: tuple[int, ...],
) -> Draw:
    """As `draw`, each sample by its own settings."""
    plain = policy_logits(logits, temperature=1.0, suppressed_ids=suppressed_ids)
    drawn = settings.temperature > 0
    tempered = plain / jnp.where(drawn, settings.temperature, 1)[..., None]
    kept = _truncate_each(tempered, drawn, settings)
    blocks = _blocks(kept)
    masses = jax.nn.logsumexp(blocks, axis=-1)
    token = jnp.where(drawn, _drawn(keys, index, blocks, masses), plain.argmax(-1))
    model_logprob = _logprob(plain, token, jax.nn.logsumexp(_blocks(plain), axis=-1))
    return Draw(token.astype(jnp.int32), _logprob(kept, token, masses), model_logprob)


def top_tokens(
    logits: Float[Array, "*B V"], suppressed_ids: tuple[int, ...]
) -> tuple[Int[Array, "*B N"], Float[Array, "*B N"]]:
    """The `TOP_LOGPROBS` likeliest tokens of the model's distribution, without suppressed ones, likeliest first.

    Returns their ids and log-probabilities, as `Draw.model_logprob` has them.
    """
    plain = policy_logits(logits, temperature=1.0, suppressed_ids=suppressed_ids)
    values, tokens = jax.lax.top_k(plain, min(TOP_LOGPROBS, plain.shape[-1]))
    masses = jax.nn.logsumexp(_blocks(plain), axis=-1)
    return tokens.astype(jnp.int32), values - jax.nn.logsumexp(masses, axis=-1, keepdims=True)


def _drawn(
    keys: Key[Array, "*B"],
    index: Int[Array, "*B"],
    blocks: Float[Array, "*B 128 W"],
    masses: Float[Array, "*B 128"],
) -> Int[Array, "*B"]:
    """A token of each sample."""
    flat = jax.vmap(jax.random.fold_in)(keys.reshape(-1), index.reshape(-1))
    parts = blocks.reshape(-1, *blocks.shape[-2:]), masses.reshape(-1, BLOCKS)
    return jax.vmap(_categorical)(flat, *parts).reshape(index.shape)


def _blocks(logits: Float[Array, "*B V"]) -> Float[Array, "*B 128 W"]:
    """The vocabulary in 128 blocks, the last one filled up with logits of -inf."""
    missing = -logits.shape[-1] % BLOCKS
    padded = jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, missing)], constant_values=-jnp.inf)
    return padded.reshape(*logits.shape[:-1], BLOCKS, -1)


def _categorical(
    key: Key[Array, ""], blocks: Float[Array, "128 W"], masses: Float[Array, " 128"]
) -> Int[Array, ""]:
    """A token drawn from the softmax of the logits; one at -inf is never drawn.

    `masses` are the logarithms of the blocks' sums of exponentials.
    """
    block_key, token_key = jax.random.split(key)
    block = jax.random.categorical(block_key, masses)
    return block * blocks.shape[1] + jax.random.categorical(token_key, blocks[block])


def _logprob(
    logits: Float[Array, "*B V"], token: Int[Array, "*B"], masses: Float[Array, "*B 128"]
) -> Float[Array, "*B"]:
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(masses, axis=-1)


def truncate(logits: Float[Array, "*B V"], config: SamplingConfig) -> Float[Array, "*B V"]:
    """Logits, those that top-k, top-p and min-p leave out set to -inf; `SamplingConfig` says which."""
    if 0 < config.top_k < logits.shape[-1]:
        least = least_kept(logits, jnp.ones_like(logits), config.top_k)
        logits = jnp.where(logits >= least[..., None], logits, -jnp.inf)
    if config.top_p < 1:
        least = least_kept(logits, jax.nn.softmax(logits, axis=-1), config.top_p)
        logits = jnp.where(logits >= least[..., None], logits, -jnp.inf)
    if config.min_p > 0:
        least = logits.max(-1) + jnp.log(config.min_p)
        logits = jnp.where(logits >= least[..., None], logits, -jnp.inf)
    return logits


def _truncate_each(
    logits: Float[Array, "*B V"], drawn: Bool[Array, "*B"], settings: SampleSettings
) -> Float[Array, "*B V"]:
    """As `truncate`, each sample by its own settings; `drawn`: which are not greedy.

    A step in which no sample asks for a truncation does not compute it.
    """

    def cut(logits: Array, asked: Array, least: Callable[[Array], Array]) -> Array:
        def apply(logits: Array) -> Array:
            bound = jnp.where(asked, least(logits), -jnp.inf)
            return jnp.where(logits >= bound[..., None], logits, -jnp.inf)

        return jax.lax.cond(asked.any(), apply, lambda logits: logits, logits)

    def least_of_top_k(logits: Array) -> Array:
        return least_kept(logits, jnp.ones_like(logits), settings.top_k)

    def least_of_top_p(logits: Array) -> Array:
        return least_kept(logits, jax.nn.softmax(logits, axis=-1), settings.top_p)

    def least_of_min_p(logits: Array) -> Array:
        return logits.max(-1) + jnp.log(settings.min_p)

    logits = cut(logits, drawn & (settings.top_k > 0), least_of_top_k)
    logits = cut(logits, drawn & (settings.top_p < 1), least_of_top_p)
    return cut(logits, drawn & (settings.min_p > 0), least_of_min_p)


def least_kept(
    logits: Float[Array, "*B V"], weights: Float[Array, "*B V"], target: float | Array
) -> Float[Array, "*B"]:
    """The largest x for which the weights of all logits >= x sum to at least `target` (-inf if none do).

    `target` is one number, or [*B].
    """
    order = _ordered(logits)

    def enough(bound: Int[Array, "*B"]) -> Bool[Array, "*B"]:
        return jnp.where(order >= bound[..., None], weights, 0).sum(-1) >= target

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds  # enough(low), not enough(high)
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        go_up = enough(middle)
        return jnp.where(go_up, middle, low), jnp.where(go_up, high, middle)

    rows = logits.shape[:-1]
    low = jnp.broadcast_to(_ordered(jnp.float32(-jnp.inf)), rows)
    high = jnp.broadcast_to(_ordered(jnp.float32(jnp.inf)) + 1, rows)
    low, _ = jax.lax.fori_loop(0, 32, halve, (low, high))
    return _float_of(low)


def _ordered(x: Float[Array, "*B"]) -> Int[Array, "*B"]:
    """int32 in the order of the float32s: their bits, those of negative numbers but the sign inverted."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _float_of(order: Int[Array, "*B"]) -> Float[Array, "*B"]:
    bits = jnp.where(order < 0, order ^ jnp.int32(0x7FFFFFFF), order)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
