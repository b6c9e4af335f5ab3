"""What simulated steps say of each program of a plan."""

from dataclasses import dataclass

from onethinker_jax.model.attention.kv_cache import KVCache
from onethinker_jax.model.generation.generate import GenerationShape
from onethinker_jax.train.cost.attention_layout import AttentionLayout
from onethinker_jax.train.cost.program_cost import device_bytes
from onethinker_jax.train.simulation.expected_step import ExpectedRL, ExpectedUpdates


@dataclass(frozen=True)
class Expected:
    """How a program runs at given lengths, beside how it runs at full ones."""

    runs: float  # a step
    layout: AttentionLayout | None = None
    share: float = 1.0  # of a full run's FLOPs, attention's aside, and bytes: of smaller shapes
    cache: float | None = None  # the share of the KV cache that a token reads; None: no cache is read
    useful: float = 1.0  # the share of a full run's model FLOPs that serve a token
    facts: str = ""  # of the simulation


def expected_updates(given: ExpectedUpdates, rows: int) -> Expected:
    """The programs that run once a micro-batch of `rows` rows."""
    text, patches = given.layout.text.efficiency, given.layout.patches.efficiency
    facts = (
        f"{given.runs:,.1f} micro-batches of {rows} rows, packing efficiency {text:.0%} of tokens and {patches:.0%} of "
        "patches"
    )
    return Expected(given.runs, given.layout, facts=facts)


def expected_decoding(given: ExpectedRL, shape: GenerationShape, cache: KVCache) -> Expected:
    """Decode steps in blocks of full length; and the mean of what a token reads of the cache."""
    decoded, steps = given.decoded, given.updates.steps
    rows = decoded.row_steps / (shape.prompt_slots * max(decoded.steps, 1))
    parts = ((cache.prefix, decoded.prefix_columns), (cache.suffix, decoded.suffix_columns))
    read = sum(
        device_bytes(part) * columns / (shape.prompt_slots * part.capacity * max(decoded.steps, 1))
        for part, columns in parts
    )
    return Expected(
        decoded.steps / shape.decode_block / steps,
        share=rows,
        cache=read / device_bytes(cache),
        useful=rows * decoded.occupancy(shape),
        facts=f"{decoded.tokens / steps:,.0f} tokens of {given.prompts.text.rows.total() / steps:,.0f} prompts "
        f"are drawn in {decoded.steps / steps:,.0f} decode steps, in which {decoded.occupancy(shape):.0%} of the "
        "sample slots are occupied",
    )


def expected_prefills(given: ExpectedRL, shape: GenerationShape, *, chunks: bool) -> Expected:
    """Prefills, or their `chunks`; a smaller bucket costs its share of the longest one's tokens."""
    longest, steps = shape.prompt_buckets[-1][0], given.updates.steps
    found = given.decoded.prefills.items()
    if chunks:
        runs = sum(count * len(shape.chunk_starts(*sizes)) for sizes, count in found)
        return Expected(runs / steps)
    runs = given.decoded.prefills.total()
    share = sum(count * tokens for (tokens, _), count in found) / (runs * longest)
    return Expected(runs / steps, given.prompts, share)
