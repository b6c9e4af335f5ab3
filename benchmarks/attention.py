"""Time and agreement of the attention back ends on the GPU present, in bfloat16.

    python -m benchmarks.attention [--tokens 4096 16384] [--runs 20]

Each kind of row runs through the XLA form, the flash kernels and, where it is one segment, cuDNN. Times are
medians of `--runs` runs; "x" is how many times faster than XLA. The errors are the largest difference from the
XLA form over its largest number, of values and of gradients. TFLOP/s counts products over visible pairs only: two
forward, five more backward.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from onethinker_jax.model.attention.attention import Backend, attention
from onethinker_jax.model.attention.pair_count import seen_pairs

Ids = tuple[np.ndarray, np.ndarray]


def one_segment(tokens: int) -> Ids:
    return np.ones(tokens, np.int32), np.zeros(tokens, np.int32)


def packed(tokens: int) -> Ids:
    """Examples of 1,024 tokens."""
    return np.arange(tokens, dtype=np.int32) // 1024 + 1, np.zeros(tokens, np.int32)


def branches(tokens: int) -> Ids:
    """A prompt of half the row and eight samples."""
    own = np.arange(tokens // 2, dtype=np.int32) // (tokens // 16) + 1
    return np.ones(tokens, np.int32), np.concatenate([np.zeros(tokens - len(own), np.int32), own])


# kind of row: ids, query heads, key heads, head size, causal
KINDS: dict[str, tuple[Callable[[int], Ids], int, int, int, bool]] = {
    "text, one example": (one_segment, 32, 8, 128, True),
    "text, packed": (packed, 32, 8, 128, True),
    "text, 8 samples of a prompt": (branches, 32, 8, 128, True),
    "vision, frames of 1,024": (packed, 16, 16, 72, False),
}


@dataclass(frozen=True)
class Measured:
    """What one form of attention took on one kind of row."""

    form: str
    seconds: tuple[float, float]  # forward; forward and backward
    flops: tuple[float, float]  # of the pairs that see each other
    errors: tuple[float, float]  # of values; of gradients


def median_seconds(function: Callable[..., Any], arguments: Sequence[Any], runs: int) -> float:
    for _ in range(2):
        jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def difference(ours: Any, reference: Any) -> float:
    """Largest over arrays of max |a - b| / max |b|."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True)
    floats = ((np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in pairs)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in floats)


def forms_of(kind: str, ids: Ids, platform: str) -> dict[str, Callable[..., jax.Array]]:
    """The XLA form, and on a GPU the flash kernels; where a row is one segment, also what JAX has of its own."""
    make, *_, causal = KINDS[kind]
    segments, own = (jnp.asarray(x)[None] for x in ids)
    on_gpu = platform == "gpu"
    names: tuple[Backend, ...] = ("xla", "flash_gpu") if on_gpu else ("xla",)
    forms: dict[str, Callable[..., jax.Array]] = {
        name: partial(attention, segment_ids=segments, branch_ids=own, causal=causal, backend=name)
        for name in names
    }
    if make is one_segment:
        name = "cudnn" if on_gpu else "xla"
        forms["cuDNN" if on_gpu else "jax.nn"] = partial(
            jax.nn.dot_product_attention, is_causal=causal, implementation=name
        )
    return forms


def measure(kind: str, tokens: int, runs: int) -> Iterator[Measured]:
    """Every form on rows of this kind, the XLA form first: the others are compared with it."""
    make, heads, kv_heads, size, causal = KINDS[kind]
    ids = make(tokens)
    rng = np.random.default_rng(0)
    query, key, value, direction = (
        jnp.asarray(rng.normal(size=(1, tokens, count, size)), jnp.bfloat16)
        for count in (heads, kv_heads, kv_heads, heads)
    )
    products = 2 * seen_pairs(*(x[None] for x in ids), causal=causal) * heads * size
    found = None
    for name, form in forms_of(kind, ids, jax.default_backend()).items():
        forward = jax.jit(form)
        both = jax.jit(lambda *x, form=form: jax.vjp(form, *x[:3])[1](x[3]))
        result = forward(query, key, value), both(query, key, value, direction)
        seconds = (
            median_seconds(forward, (query, key, value), runs),
            median_seconds(both, (query, key, value, direction), runs),
        )
        found = found or result
        values, gradients = (difference(ours, base) for ours, base in zip(result, found, strict=True))
        yield Measured(name, seconds, (2.0 * products, 7.0 * products), (values, gradients))


def print_rows(kind: str, tokens: int, runs: int) -> None:
    slow = None
    for one in measure(kind, tokens, runs):
        slow = slow or one.seconds
        cells = [kind, f"{tokens:,}", one.form]
        for taken, base, flops in zip(one.seconds, slow, one.flops, strict=True):
            cells += [f"{taken * 1e3:.2f}", f"{base / taken:.2f}", f"{flops / taken / 1e12:.0f}"]
        cells += [f"{error:.1e}" for error in one.errors]
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of the attention back ends on a GPU.")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu":
        sys.stderr.write(f"error: this benchmark needs a GPU; JAX sees {device.platform}\n")
        return 1
    titles = ("row", "tokens", "form", "forward ms", "x", "TFLOP/s", "with backward ms", "x", "TFLOP/s")
    sys.stdout.write(f"{device.device_kind}, JAX {jax.__version__}\n\n")
    sys.stdout.write("| " + " | ".join([*titles, "error", "of gradients"]) + " |\n" + "|---" * 11 + "|\n")
    for tokens in arguments.tokens:
        for kind in KINDS:
            print_rows(kind, tokens, arguments.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
