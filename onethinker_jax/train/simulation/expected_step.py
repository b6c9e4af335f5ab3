"""A step of each stage at given lengths: how often each program runs, how full its rows are, what it decodes."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from onethinker_jax.data_pipeline.batches.packing import GroupSize
from onethinker_jax.model.generation.generate import GenerationShape
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.attention_layout import AttentionLayout, RowLayouts, frames_of
from onethinker_jax.train.simulation.decoded import Decoded, decode
from onethinker_jax.train.simulation.given_lengths import STEPS, GivenLengths, LengthsError, Sizes
from onethinker_jax.train.simulation.packed_rows import (
    ConversationBatches,
    empty_layout,
    group_batches,
    largest_frame,
)


@dataclass
class ExpectedUpdates:
    """The micro-batches of simulated steps."""

    layout: AttentionLayout
    steps: int = 0
    micro_batches: int = 0

    def add(self, layout: AttentionLayout) -> None:
        """Counts a micro-batch."""
        self.micro_batches += 1
        self.layout.text.rows.update(layout.text.rows)
        self.layout.patches.rows.update(layout.patches.rows)

    @property
    def runs(self) -> float:
        """Micro-batches a step."""
        return self.micro_batches / max(self.steps, 1)


@dataclass
class ExpectedRL:
    """Simulated steps of RL."""

    updates: ExpectedUpdates
    prompts: AttentionLayout  # those drawn, a row each
    decoded: Decoded = field(default_factory=Decoded)


def largest_sizes(config: TrainConfig) -> Sizes:
    """The lengths at which everything is at its limit."""
    sft, rollout = config.sft.batch, config.rl.rollout
    return Sizes(
        (sft.tokens, sft.patches),
        (rollout.prompt_tokens, rollout.prompt_patches),
        rollout.max_new_tokens,
        rollout.group_size,
    )


def expected_sft(config: TrainConfig, given: GivenLengths) -> ExpectedUpdates:
    """SFT's micro-batches."""
    shape, accumulate = config.sft.batch, config.sft.accumulate
    batches = ConversationBatches(given.conversations, shape, config.data)
    found = ExpectedUpdates(empty_layout(shape))
    tokens = sum(size for size, _ in given.conversations)
    lasting = tokens // (shape.rows * shape.tokens * accumulate)
    for _ in range(min(max(lasting, 1), STEPS)):
        found.steps += 1
        for _ in range(accumulate):
            found.add(batches.next())
    return found


def expected_rl(config: TrainConfig, given: GivenLengths, shape: GenerationShape | None) -> ExpectedRL:
    """RL's micro-batches, and what the sampler does, unless `shape` is None.

    Raises LengthsError where groups have another number of samples, or too few of them are kept; PackingError.
    """
    rl = config.rl
    for group in given.groups:
        if len(group.completions) != rl.rollout.group_size:
            raise LengthsError(
                f"--lengths: a prompt has {len(group.completions)} responses, but rl.rollout.group_size is "
                f"{rl.rollout.group_size}"
            )
    prompts = AttentionLayout(RowLayouts(rl.rollout.prompt_tokens), RowLayouts(rl.rollout.prompt_patches))
    found = ExpectedRL(ExpectedUpdates(empty_layout(rl.batch)), prompts)
    coming = itertools.cycle(zip(given.groups, given.kept, strict=True))
    waiting: list[GroupSize] = []
    steps = given.steps or min(max(len(given.groups) // rl.prompts_per_step, 1), STEPS)
    for _ in range(steps):
        waiting = _fill(waiting, coming, config, shape, found)
        trained, waiting = waiting[: rl.prompts_per_step], waiting[rl.prompts_per_step :]
        size = rl.prompts_per_step // rl.num_minibatches
        for first in range(0, rl.prompts_per_step, size):
            part = [_counted(group, rl) for group in trained[first : first + size]]
            for layout in group_batches(part, rl.batch, config.data):
                found.updates.add(layout)
        found.updates.steps += 1
    return found


def _fill(
    kept: list[GroupSize],
    coming: Iterator[tuple[GroupSize, bool]],
    config: TrainConfig,
    shape: GenerationShape | None,
    found: ExpectedRL,
) -> list[GroupSize]:
    """The groups of a step and those that wait for the next, drawn in rounds as `Rollouts` draws them."""
    rl, frame = config.rl, largest_frame(config.data, config.rl.rollout.prompt_patches)
    rounds, kept = 0, list(kept)
    while len(kept) < rl.prompts_per_step:
        if rounds == rl.max_generation_rounds:
            raise LengthsError(
                f"--lengths: only {len(kept)} of {rl.prompts_per_step} groups of a step are kept after {rounds} rounds"
            )
        drawn = list(itertools.islice(coming, rl.prompts_per_step))
        found.prompts.text.add(((group.tokens,),) for group, _ in drawn)
        found.prompts.patches.add(frames_of(group.patches, frame) for group, _ in drawn)
        if shape is not None:
            decode([group for group, _ in drawn], shape, rl.rollout.max_new_tokens, found.decoded)
        kept += [group for group, passed in drawn if passed]
        rounds += 1
    return kept


def _counted(group: GroupSize, rl: RLSettings) -> GroupSize:
    """The group as the loss counts it: with `loss.overlong` "mask" without the samples that were cut off."""
    if rl.loss.overlong != "mask":
        return group
    most = rl.rollout.max_new_tokens
    return replace(group, completions=tuple(0 if one >= most else one for one in group.completions))
