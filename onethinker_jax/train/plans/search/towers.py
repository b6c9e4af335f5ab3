"""The matrix products and the attention of a model's two towers, counted from its sizes.

What `count_flops` finds in a trace, and `count_traffic` in compiled text, comes here from a few numbers, in
microseconds: FLOPs are the same to 1% (`tests/train/plans/test_estimates.py`), bytes are those that products and
attention read and write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from onethinker_jax.model.attention.flash import Kernels, module_of
from onethinker_jax.model.attention.flash_blocks import PRODUCTS, kernel_name, pairs_of_one_segment
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.layers import Remat

Trained = Literal["all", "through", "nothing"]
"""What the backward pass computes of a tower: all gradients; those that pass through its frozen kernels, as beside
adapters; or none."""


@dataclass(frozen=True)
class Product:
    """A kernel [inputs, outputs] of a layer. `by`: which side `tensor` splits, `outputs` or `inputs`."""

    inputs: int
    outputs: int
    by: Literal["inputs", "outputs"]

    @property
    def flops(self) -> int:
        """Of one token."""
        return 2 * self.inputs * self.outputs

    def numbers(self, tensor: int) -> float:
        """Of a token, what one of `tensor` devices reads and writes."""
        if self.by == "outputs":
            return self.inputs + self.outputs / tensor
        return self.inputs / tensor + self.outputs


@dataclass(frozen=True)
class Tower:
    """Equal layers over tokens or patches."""

    layers: int
    width: int
    heads: int
    head_dim: int
    products: tuple[Product, ...]
    kept: int  # numbers of a token that `remat` dots keeps of a layer beside its input, at least
    causal: bool

    def product_flops(self, tokens: int, passes: int, *, repeated: bool = False) -> float:
        """Of all layers. `repeated`: one pass makes a layer anew, but for its last product, which nobody needs."""
        flops = passes * sum(product.flops for product in self.products)
        return float(tokens) * self.layers * (flops - repeated * self.products[-1].flops)

    def product_numbers(self, tokens: float, tensor: int, passes: float) -> float:
        """What one of `tensor` devices reads and writes for its tokens, in all layers."""
        return tokens * passes * self.layers * sum(product.numbers(tensor) for product in self.products)

    def attention_flops(self, rows: int, length: int, runs: Mapping[str, float]) -> float:
        """Of all layers; `runs`: kernel -> its runs a layer, times the share of pairs that it computes."""
        pairs = pairs_of_one_segment(rows * length, length, self.causal)
        pair_flops = 2.0 * pairs * self.heads * self.head_dim * self.layers
        return pair_flops * sum(
            count * runs.get(kernel_name(part, self.causal), 0.0) for part, count in PRODUCTS.items()
        )

    def kept_numbers(self, tokens: float, remat: Remat) -> float:
        """What all layers keep of these tokens for the backward pass, at least."""
        return tokens * self.layers * (self.width + (0 if remat == "full" else self.kept))


def text_tower(sizes: Qwen3VLConfig) -> Tower:
    """The decoder; of experts a token sees `experts_per_token`, and all of the router."""
    text = sizes.text
    heads = (text.num_heads + 2 * text.num_kv_heads) * text.head_dim
    products = [
        Product(text.hidden_size, heads, "outputs"),
        Product(text.num_heads * text.head_dim, text.hidden_size, "inputs"),
    ]
    kept = heads + text.num_heads * text.head_dim + text.hidden_size
    feed_forward = text.intermediate_size
    if text.moe is None:
        kept += 2 * feed_forward
    else:
        feed_forward = text.moe.intermediate_size * text.moe.experts_per_token
        products.append(Product(text.hidden_size, text.moe.num_experts, "inputs"))
    products += [
        Product(text.hidden_size, 2 * feed_forward, "outputs"),
        Product(feed_forward, text.hidden_size, "inputs"),
    ]
    return Tower(
        text.num_layers, text.hidden_size, text.num_heads, text.head_dim, tuple(products), kept, causal=True
    )


def vision_tower(sizes: Qwen3VLConfig) -> Tower:
    """The blocks of the vision tower; patch embedding and mergers are `merger_flops`."""
    vision = sizes.vision
    width, wide = vision.hidden_size, vision.intermediate_size
    products = (
        Product(width, 3 * width, "outputs"),
        Product(width, width, "inputs"),
        Product(width, wide, "outputs"),
        Product(wide, width, "inputs"),
    )
    kept = 5 * width + wide
    return Tower(vision.depth, width, vision.num_heads, vision.head_dim, products, kept, causal=False)


def merger_flops(sizes: Qwen3VLConfig, patches: int, trained: Trained) -> float:
    """Of the patch embedding, whose pixels need no gradient, and of all mergers, which nothing makes anew."""
    vision = sizes.vision
    joined = vision.hidden_size * vision.merge_size**2
    mergers = 1 + len(vision.deepstack_layers)
    merging = 2 * mergers * joined * (joined + vision.out_hidden_size) / vision.merge_size**2
    embedding = 2 * vision.patch_values * vision.hidden_size
    embeddings, passes = {"all": (2, 3), "through": (1, 2), "nothing": (1, 1)}[trained]
    return patches * (embeddings * embedding + passes * merging)


def head_flops(sizes: Qwen3VLConfig, tokens: int, trained: Trained) -> float:
    """Of training: logits are made again in the backward pass."""
    passes = {"all": 4, "through": 3, "nothing": 1}[trained]
    return 2.0 * passes * tokens * sizes.text.hidden_size * sizes.text.vocab_size


def passes_of(remat: Remat, trained: Trained) -> int:
    """Passes of a layer's matrix products, each as dear as the forward one."""
    if trained == "nothing":
        return 1
    return {"all": 3, "through": 2}[trained] + (remat == "full")


def attention_runs(
    shares: Mapping[str, float], kernels: Kernels, remat: Remat, trained: Trained, *, causal: bool
) -> dict[str, float]:
    """Kernel -> runs a layer, times the share of pairs that it computes; only `remat` full attends anew."""
    forward = 2 if remat == "full" and trained != "nothing" else 1
    backward = 0 if trained == "nothing" else 1
    counts = {part: forward if part == "forward" else backward for part in module_of(kernels).PARTS}
    names = {kernel_name(part, causal): count for part, count in counts.items()}
    return {name: count * shares.get(name, 1.0) for name, count in names.items()}
