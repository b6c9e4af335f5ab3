"""The sampler: one prefill a prompt, its keys and values shared by the G samples, decoding in one dispatch.

A prompt's vision tower and prefill run once; its KV cache is stored once and each decode step reads it once
for all of its samples.  The whole continuation is one compiled ``while_loop`` that stops when every sample
has ended.  Randomness is keyed by sample and step only, so neither batch nor slot changes what is sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from onethinker_jax.model.inputs import HostOrDevice, ModelInputs
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import BATCH_AXES, constrain
from onethinker_jax.model.text import KVCache


@dataclass(frozen=True)
class SamplingConfig:
    """How continuations are drawn.  ``temperature`` 0 is greedy.

    ``forbidden_ids`` are never drawn and take no probability: placeholders and vision markers, which would
    promise features that are not there.  ``pad_id`` fills what lies after a sample's end.
    """

    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    temperature: float = 1.0
    forbidden_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} must not be negative")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Completions:
    """G continuations of each of B prompts; the end token, where there is one, counts as part of its sample."""

    tokens: HostOrDevice  # int32 [B, G, U], pad_id after the end
    logprobs: HostOrDevice  # float32 [B, G, U], under the distribution sampled from; 0 after the end
    lengths: HostOrDevice  # int32 [B, G]
    ended: HostOrDevice  # bool [B, G], False when cut off at max_new_tokens


def sample_keys(seed: int, step: int, prompts: int, samples: int) -> Key[Array, "B G"]:
    """Keys folded from (seed, step, prompt, sample): used once, never reused."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(
        lambda p: jax.vmap(lambda s: jax.random.fold_in(jax.random.fold_in(key, p), s))(jnp.arange(samples))
    )(jnp.arange(prompts))


def policy_logits(
    logits: Float[Array, "*B V"], *, temperature: float, forbidden_ids: tuple[int, ...]
) -> Float[Array, "*B V"]:
    """Logits of the distribution that is sampled from and, in RL, optimised: tempered, forbidden ids at -inf."""
    if forbidden_ids:
        barred = np.zeros(logits.shape[-1], bool)
        barred[list(forbidden_ids)] = True
        logits = jnp.where(barred, -jnp.inf, logits)
    return logits / temperature if temperature > 0 else logits


def make_sampler(
    graphdef: nnx.GraphDef, config: SamplingConfig
) -> Callable[[nnx.State, ModelInputs, Array, Array, Array], Completions]:
    """A compiled function (params, prompts, lengths, next_positions, keys) -> Completions.

    ``prompts`` holds one left-aligned prompt a row [B, S]; ``lengths`` int32 [B] its true lengths;
    ``next_positions`` int32 [B] the M-RoPE position of the first new token; ``keys`` [B, G], whose shape says
    how many samples are drawn.
    """

    @jax.jit
    def sample(
        params: nnx.State,
        prompts: ModelInputs,
        lengths: Int[Array, " B"],
        next_positions: Int[Array, " B"],
        keys: Key[Array, "B G"],
    ) -> Completions:
        model: Qwen3VL = nnx.merge(graphdef, params)
        return _sample(model, config, prompts, lengths, next_positions, keys)

    return sample


_State = tuple[Array, Array, Array, KVCache, Array, Array]  # step, token, done, cache, tokens, logprobs


def _sample(
    model: Qwen3VL,
    config: SamplingConfig,
    prompts: ModelInputs,
    lengths: Array,
    next_positions: Array,
    keys: Array,
) -> Completions:
    rows, samples = keys.shape
    budget = config.max_new_tokens
    prefix_mask = prompts.segment_ids
    draw = partial(_draw, config=config)

    hidden, (prefix_key, prefix_value) = model.prefill(prompts)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)  # [B, 1, D]
    logits = jnp.broadcast_to(model.logits(last), (rows, samples, model.config.text.vocab_size))
    token, logprob = draw(logits, keys, jnp.int32(0))
    layers, _, _, kv_heads, size = prefix_key.shape
    room = jnp.zeros((layers, rows, samples, budget, kv_heads, size), prefix_key.dtype)
    room = constrain(room, None, BATCH_AXES, None, None, "tensor")
    tokens = jnp.full((rows, samples, budget), config.pad_id, jnp.int32).at[:, :, 0].set(token)
    logprobs = jnp.zeros((rows, samples, budget), jnp.float32).at[:, :, 0].set(logprob)

    def unfinished(state: _State) -> Array:
        step, _, done, _, _, _ = state
        return (step < budget) & ~done.all()

    def advance(state: _State) -> _State:
        step, token, done, cache, tokens, logprobs = state
        positions = jnp.broadcast_to(next_positions[:, None] + step - 1, token.shape)
        hidden, cache = model.decode(token, positions, cache, prefix_mask, step - 1)
        token, logprob = draw(model.logits(hidden), keys, step)
        token = jnp.where(done, config.pad_id, token)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[..., None], step, axis=2)
        logprob = jnp.where(done, 0.0, logprob)
        logprobs = jax.lax.dynamic_update_slice_in_dim(logprobs, logprob[..., None], step, axis=2)
        return step + 1, token, done | _is_end(token, config), cache, tokens, logprobs

    cache = KVCache(prefix_key, prefix_value, room, room)
    state = (jnp.int32(1), token, _is_end(token, config), cache, tokens, logprobs)
    _, _, done, _, tokens, logprobs = jax.lax.while_loop(unfinished, advance, state)
    ends = _is_end(tokens, config)
    lengths = jnp.where(ends.any(-1), ends.argmax(-1) + 1, budget).astype(jnp.int32)
    return Completions(tokens, logprobs, lengths, done)


def _draw(logits: Array, keys: Array, step: Array, *, config: SamplingConfig) -> tuple[Array, Array]:
    """A token of each sample and its log-probability; logits [B, G, V]."""
    logits = policy_logits(logits, temperature=config.temperature, forbidden_ids=config.forbidden_ids)
    if config.temperature == 0:
        token = logits.argmax(-1)
    else:
        fold = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, step)))
        token = jax.vmap(jax.vmap(jax.random.categorical))(fold(keys), logits)
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return token.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def _is_end(tokens: Array, config: SamplingConfig) -> Array:
    ends = jnp.zeros(tokens.shape, bool)
    for eos in config.eos_ids:
        ends |= tokens == eos
    return ends
