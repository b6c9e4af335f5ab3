"""Qwen3-VL: the vision tower and the decoder joined. Tokens and patches in, hidden states and logits out.

Axis letters, used in every module: B rows of a batch, T tokens of a row, P patches of a row, M = P / 4
merged visual tokens, N query heads, K key/value heads, H head size, D width, F feed-forward width,
V vocabulary, L layers, E experts, G samples of one prompt; in a cache R rows (prompts) of g slots (samples), S prompt
length, U generated length.

A visual token *gathers* its feature through `visual_index`; nothing is scattered, so rows of mixed images,
videos and text need no special case, and image and video DeepStack features cannot overwrite each other.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from onethinker_jax.model.attention.decode_attention import Visible
from onethinker_jax.model.attention.kv_cache import KVCache
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.layers import Linear, Remat
from onethinker_jax.model.text import Decoder, gather_visual
from onethinker_jax.model.vision import VisionTower


class Qwen3VL(nnx.Module):
    """The policy. `remat` says what is kept of each layer for the backward pass (`layers.recompute`)."""

    def __init__(
        self,
        config: Qwen3VLConfig,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        remat: Remat = "none",
    ):
        text = config.text
        self.visual = VisionTower(config.vision, rngs=rngs, dtype=dtype)
        table = jax.random.normal(rngs.params(), (text.vocab_size, text.hidden_size), dtype)
        self.embed = nnx.Param(0.08 * table)
        self.decoder = Decoder(text, rngs=rngs, dtype=dtype)
        self.lm_head = nnx.data(
            None
            if config.tie_word_embeddings
            else Linear(text.hidden_size, text.vocab_size, bias=False, rngs=rngs, dtype=dtype)
        )
        self.config = config
        self.remat: Remat = remat

    def __call__(self, inputs: ModelInputs) -> Float[Array, "B T D"]:
        """Final (normalised) hidden states of packed rows; `logits` or the chunked losses take them on."""
        x, deepstack = self.embedded(inputs)
        return self.decoder(x, deepstack, inputs, remat=self.remat)

    def prefill(self, inputs: ModelInputs) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """The same, with the keys and values of every layer, each [L, B, T, K, H]."""
        x, deepstack = self.embedded(inputs)
        return self.decoder.prefill(x, deepstack, inputs)

    def embedded(self, inputs: ModelInputs) -> tuple[Float[Array, "B T D"], Float[Array, "n B M D"] | None]:
        """What the decoder reads: embeddings with visual features in their places, and DeepStack features."""
        x = self.embed[...][inputs.tokens]
        if inputs.vision is None:
            return x, None
        features, deepstack = self.visual(inputs.vision, remat=self.remat)
        return gather_visual(features, inputs.visual_index, x), deepstack

    def decode(
        self, tokens: Int[Array, "R g"], positions: Int[Array, "R g"], cache: KVCache, visible: Visible
    ) -> tuple[Float[Array, "R g D"], tuple[Array, Array]]:
        """Hidden states of one new token of each slot, and its keys and values, each [L, R, g, K, H]."""
        return self.decoder.decode(self.embed[...][tokens], positions, cache, visible)

    def head(self) -> Float[Array, "D V"]:
        """The output projection: its own, or the embedding table transposed when the two are tied."""
        return self.embed[...].T if self.lm_head is None else self.lm_head.kernel[...]

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits. For a few positions: losses use `train.lm_head`, which never makes [B, T, V]."""
        return jnp.matmul(hidden, self.head(), preferred_element_type=jnp.float32)
