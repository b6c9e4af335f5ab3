"""The sampler: one prefill a prompt, its keys and values shared by the G samples, decoding in one dispatch.

A prompt's vision tower and prefill run once; its KV cache is stored once and each decode step reads it once
for all of its samples.  The whole continuation is one compiled program that stops when every sample has ended;
whenever half of its rows have, the other half goes on alone.  Randomness is keyed by sample and step only, so
neither batch nor slot changes what is sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
    halvings: int = 3
    """How often the rows may be halved as prompts end; each costs one more decode step to compile."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} must not be negative")
        if self.halvings < 0:
            raise ValueError(f"halvings {self.halvings} must not be negative")


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Decoding:
    """B rows (prompts) being continued; ``row`` says which row of the call each is."""

    row: Array  # int32 [B]
    step: Array  # int32 [], tokens drawn so far
    token: Array  # int32 [B, G], the newest
    done: Array  # bool [B, G]
    tokens: Array  # int32 [B, G, U]
    logprobs: Array  # float32 [B, G, U]
    keys: Array  # [B, G]
    prefix_mask: Array  # int32 [B, S]
    next_position: Array  # int32 [B]
    cache: KVCache

    def unfinished(self) -> Array:
        """How many rows have a sample that has not ended."""
        return (~self.done.all(-1)).sum()

    def keep(self, count: int) -> "_Decoding":
        """``count`` of the rows, the unfinished ones first."""
        chosen = jnp.argsort(self.done.all(-1), stable=True)[:count]
        rest = {
            f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name not in ("step", "cache")
        }
        cache = jax.tree.map(lambda x: x[:, chosen], self.cache)  # [L, B, ...]
        return _Decoding(step=self.step, cache=cache, **rest)


def _sample(
    model: Qwen3VL,
    config: SamplingConfig,
    prompts: ModelInputs,
    lengths: Array,
    next_positions: Array,
    keys: Array,
) -> Completions:
    budget = config.max_new_tokens
    state = _start(model, config, prompts, lengths, next_positions, keys)
    tokens, logprobs, done = state.tokens, state.logprobs, state.done
    sizes = [len(keys) >> halving for halving in range(config.halvings + 1)]
    for size in [*(size for size in sizes[1:] if size), 0]:
        state = jax.lax.while_loop(
            lambda state, size=size: (state.step < budget) & (state.unfinished() > size),
            partial(_advance, model, config),
            state,
        )
        tokens, logprobs = tokens.at[state.row].set(state.tokens), logprobs.at[state.row].set(state.logprobs)
        done = done.at[state.row].set(state.done)
        state = state.keep(size) if size else state
    ends = _is_end(tokens, config)
    lengths = jnp.where(ends.any(-1), ends.argmax(-1) + 1, budget).astype(jnp.int32)
    return Completions(tokens, logprobs, lengths, done)


def _start(
    model: Qwen3VL,
    config: SamplingConfig,
    prompts: ModelInputs,
    lengths: Array,
    next_positions: Array,
    keys: Array,
) -> _Decoding:
    """Prefill of every prompt, and the first token of every sample."""
    rows, samples = keys.shape
    budget = config.max_new_tokens
    hidden, (prefix_key, prefix_value) = model.prefill(prompts)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)  # [B, 1, D]
    logits = jnp.broadcast_to(model.logits(last), (rows, samples, model.config.text.vocab_size))
    token, logprob = _draw(logits, keys, jnp.int32(0), config=config)
    layers, _, _, kv_heads, size = prefix_key.shape
    room = jnp.zeros((layers, rows, samples, budget, kv_heads, size), prefix_key.dtype)
    room = constrain(room, None, BATCH_AXES, None, None, "tensor")
    return _Decoding(
        row=jnp.arange(rows),
        step=jnp.int32(1),
        token=token,
        done=_is_end(token, config),
        tokens=jnp.full((rows, samples, budget), config.pad_id, jnp.int32).at[:, :, 0].set(token),
        logprobs=jnp.zeros((rows, samples, budget), jnp.float32).at[:, :, 0].set(logprob),
        keys=keys,
        prefix_mask=prompts.segment_ids,
        next_position=next_positions,
        cache=KVCache(prefix_key, prefix_value, room, room),
    )


def _advance(model: Qwen3VL, config: SamplingConfig, state: _Decoding) -> _Decoding:
    """One more token of every sample that has not ended."""
    step = state.step
    positions = jnp.broadcast_to(state.next_position[:, None] + step - 1, state.token.shape)
    hidden, cache = model.decode(state.token, positions, state.cache, state.prefix_mask, step - 1)
    token, logprob = _draw(model.logits(hidden), state.keys, step, config=config)
    token = jnp.where(state.done, config.pad_id, token)
    logprob = jnp.where(state.done, 0.0, logprob)
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=step, axis=2)
    return replace(
        state,
        step=step + 1,
        token=token,
        done=state.done | _is_end(token, config),
        tokens=put(state.tokens, token[..., None]),
        logprobs=put(state.logprobs, logprob[..., None]),
        cache=cache,
    )


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
