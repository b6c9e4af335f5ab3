"""The rows that the real packers make of examples and of groups of given lengths."""

import math
from collections.abc import Iterator, Sequence

from onethinker_jax.data_pipeline.batches.bin_packing import STRATEGIES, BatchShape
from onethinker_jax.data_pipeline.batches.packing import GroupSize, assign_groups
from onethinker_jax.train.config.data import DataSettings
from onethinker_jax.train.cost.attention_layout import AttentionLayout, Row, RowLayouts, frames_of

_PIXELS_A_PATCH = 16**2


def empty_layout(shape: BatchShape) -> AttentionLayout:
    """No row yet, of batches of this shape."""
    return AttentionLayout(RowLayouts(shape.tokens), RowLayouts(shape.patches))


def largest_frame(data: DataSettings, patches: int) -> int:
    """Patches of the largest image or frame that a row of `patches` can hold."""
    return min(math.ceil(max(data.image_max_pixels, data.video_max_pixels) / _PIXELS_A_PATCH), patches)


class ConversationBatches:
    """Batches of SFT, as `TrainingBatches` packs them from its window, of lengths that come again and again."""

    def __init__(self, sizes: Sequence[tuple[int, int]], shape: BatchShape, data: DataSettings):
        self._sizes, self._shape, self._data = sizes, shape, data
        self._taken = 0
        self._ready: list[tuple[int, int]] = []

    def next(self) -> AttentionLayout:
        """The layout of the next batch's rows."""
        shape = self._shape
        while len(self._ready) < self._data.window:
            self._ready.append(self._sizes[self._taken % len(self._sizes)])
            self._taken += 1
        assigned, left = STRATEGIES[self._data.packing_strategy](
            self._ready, rows=shape.rows, tokens=shape.tokens, patches=shape.patches
        )
        text: list[Row] = [()] * shape.rows
        patches: list[Row] = [()] * shape.rows
        frame = largest_frame(self._data, shape.patches)
        for row, number in assigned:
            tokens, of_media = self._ready[number]
            text[row] += ((tokens,),)
            patches[row] += frames_of(of_media, frame)
        self._ready = [self._ready[number] for number in left]
        layout = empty_layout(shape)
        layout.text.add(text)
        layout.patches.add(patches)
        return layout


def group_batches(
    groups: Sequence[GroupSize], shape: BatchShape, data: DataSettings
) -> Iterator[AttentionLayout]:
    """The layouts of RL's micro-batches, as `pack_groups` packs these groups. Raises PackingError as it does."""
    frame = largest_frame(data, shape.patches)
    sizes = {"rows": shape.rows, "tokens": shape.tokens, "patches": shape.patches}
    for assigned in assign_groups(groups, **sizes):
        text: list[Row] = [()] * shape.rows
        patches: list[Row] = [()] * shape.rows
        for row, part in assigned:
            group = groups[part.group]
            text[row] += ((group.tokens - 1, *(group.completions[n] for n in part.completions)),)
            patches[row] += frames_of(group.patches, frame)
        layout = empty_layout(shape)
        layout.text.add(text)
        layout.patches.add(patches)
        yield layout
