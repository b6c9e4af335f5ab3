"""Qwen3-VL: the vision tower and the decoder joined. Tokens and patches in, hidden states and logits out.

A visual token *gathers* its feature through `visual_index`; nothing is scattered, so rows of mixed images,
videos and text need no special case, and image and video DeepStack features cannot overwrite each other.

The axis letters of every array in `model`; a file that needs another letter says so where it is used:

    B  rows of a batch; in prefill one prompt each  N  query heads
    T  tokens of a row                              K  key heads, as many value heads
    P  patches of a row                             J  query heads that share a key head, N / K
    M  merged patches of a row, P / 4:              H  numbers of a head
       its visual tokens                            D  width: the decoder's; in vision.py the tower's
    R  prompt slots of a KV cache                   F  width of a feed-forward network
    g  sample slots of each prompt slot             V  tokens of the vocabulary
    G  samples of a prompt, all in all              L  layers of a stack
    S  tokens of a prompt in the cache, or keys     n  DeepStack features, for the first n of L layers
       of a block                                   E  experts of a layer
    U  columns of the ring of a sample's own keys   k  experts that a token goes to
    C  tokens of a chunk                            Q  queries of a block
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model.attention.decode_attention import Visible
from onethinker_jax.model.attention.kv_cache import KVCache
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.int8_weights import matmul
from onethinker_jax.model.layers import Linear, Remat
from onethinker_jax.model.text import Decoder, gather_visual
from onethinker_jax.model.vision import VisionTower


class Qwen3VL(nnx.Module):
    """The policy: parameters of `dtype`, made afresh from `rngs`; `hf_weights.load_hf` reads released ones.

    `remat` says what is kept of each layer for the backward pass (`layers.recompute`), `lora` which adapters there are:
    none before `lora.add_adapters` has made some.
    """

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
        self.lora: LoRASettings | None = None

    def __call__(self, inputs: ModelInputs) -> Float[Array, "B T D"]:
        """The last layer's hidden states of packed rows, normalised: what `logits` and the losses start from."""
        x, deepstack = self.embedded(inputs)
        return self.decoder(x, deepstack, inputs, remat=self.remat)

    def prefill(self, inputs: ModelInputs) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """The hidden states of prompts, and the keys and values of every layer, each [L, B, T, K, H]."""
        x, deepstack = self.embedded(inputs)
        return self.decoder.prefill(x, deepstack, inputs)

    def embedded(self, inputs: ModelInputs) -> tuple[Float[Array, "B T D"], Float[Array, "n B M D"] | None]:
        """What the decoder reads: embeddings, visual tokens' being their features, and the DeepStack features.

        The DeepStack features are None where `inputs` has no vision.
        """
        x = self.embed[...][inputs.tokens]
        if inputs.vision is None:
            return x, None
        features, deepstack = self.visual(inputs.vision, remat=self.remat)
        return gather_visual(features, inputs.visual_index, x), deepstack

    def decode(
        self, tokens: Int[Array, "R g"], positions: Int[Array, "R g"], cache: KVCache, visible: Visible
    ) -> tuple[Float[Array, "R g D"], tuple[Array, Array]]:
        """Hidden states of one more token of each sample slot, and its keys and values, each [L, R, g, K, H].

        `positions` are M-RoPE positions: a sampled token is text, which has the same on all three axes.
        """
        return self.decoder.decode(self.embed[...][tokens], positions, cache, visible)

    def head(self) -> Float[Array, "D V"]:
        """The output projection: its own, or the embedding table transposed when the two are tied."""
        return self.embed[...].T if self.lm_head is None else self.lm_head.kernel[...]

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits, of a few positions only: losses use `train.lm_head`, which never makes [B, T, V]."""
        return matmul(hidden, self.head(), jnp.float32)
