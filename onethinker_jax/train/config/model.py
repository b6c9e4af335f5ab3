"""Where the policy comes from, and what it is kept and computed in."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from onethinker_jax.lora_settings import LoRASettings

Remat = Literal["none", "dots", "full"]


@dataclass(frozen=True)
class ModelSettings:
    """Where the policy comes from: `init_from` a Hugging Face directory, or fresh with these sizes.

    The sizes are by default those of Qwen3-VL-8B.
    """

    init_from: Path | None = None
    """Hugging Face directory of a Qwen3-VL whose weights, tokenizer and processor the run starts from; by default the
    model is fresh, with the sizes below."""
    tiny: bool = False
    """`init_from` is a tiny model too: the learning rates and media sizes of a fresh tiny model are meant. Without
    it they are refused, as they ruin a released one."""
    vocab_size: int = 151_936
    """Tokens of a fresh model's tokenizer, which is trained on the SFT records."""
    hidden_size: int = 4096
    """Width of the language model."""
    intermediate_size: int = 12_288
    """Width inside a layer's MLP."""
    num_layers: int = 36
    """Layers of the language model."""
    num_heads: int = 32
    """Query heads of a layer."""
    num_kv_heads: int = 8
    """Key and value heads, which the query heads share evenly."""
    head_dim: int = 128
    """Width of one head."""
    rope_theta: float = 5_000_000.0
    """Base of the rotary position embedding."""
    vision_depth: int = 27
    """Layers of the vision tower."""
    vision_hidden_size: int = 1152
    """Width of the vision tower."""
    vision_intermediate_size: int = 4304
    """Width inside a vision layer's MLP."""
    vision_heads: int = 16
    """Attention heads of a vision layer."""
    vision_grid: int = 48
    """Side of the learned position table, in patches."""
    deepstack_layers: tuple[int, ...] = (8, 16, 24)
    """Vision layers, from 0, whose outputs are added to the first layers of the language model."""
    tie_word_embeddings: bool = False
    """The output head is the embedding table."""
    family: str | None = None
    """A released size, such as `8b`: what `plan` compiles without weights; `init_from` must be of that size."""
    remat: Remat = "full"
    """What is kept of a layer for the backward pass: everything, its matrix products and attention, or its input
    alone."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What the towers compute in; losses, norms, softmax and gradient sums are float32 either way."""
    master_dtype: Literal["float32", "bfloat16"] = "float32"
    """What weights are kept in.  bfloat16 halves them but rounds away updates below 1/256 of a weight. With LoRA the
    adapters are kept in it, and the base, which stands still, in `compute_dtype`."""
    lora: LoRASettings = field(default_factory=LoRASettings)

    @property
    def frozen_dtype(self) -> str:
        """What the weights beside adapters are kept in; without adapters all weights."""
        return self.compute_dtype if self.lora.rank else self.master_dtype
