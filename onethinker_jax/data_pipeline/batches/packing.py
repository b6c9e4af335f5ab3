"""Examples -> batches of fixed shape: B rows of T tokens and P patches.

Several examples share a row as segments that do not see each other; what is left of a row is padding.
For reinforcement learning the samples of a group share their prompt in a row: the prompt is branch 0,
each sample a branch of its own, so that a long prompt (and its images) is computed once, not G times.
Segment s of a row has the ids s + 1; frame ids and visual indices count through the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import jax
import numpy as np

from onethinker_jax.data_pipeline.batches.bin_packing import PackingError, check_size, first_fit
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.model.inputs import ModelInputs, VisionInputs

__all__ = [
    "Batch",
    "GroupBatch",
    "GroupPart",
    "GroupSize",
    "PackingError",
    "assign_groups",
    "check_fits",
    "empty_batch",
    "first_fit",
    "pack_assigned",
    "pack_groups",
    "pack_rows",
    "packing_efficiency",
    "stack_prompts",
]

# Visual tokens are merged from 2 x 2 patches in all of the family.
_PATCHES_A_TOKEN = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows to train on. The target of token t is token t + 1 of the same segment and branch."""

    inputs: ModelInputs
    targets: jax.Array | np.ndarray  # int32 [B, T], 0 where there is none
    target_mask: jax.Array | np.ndarray  # bool [B, T], where the target counts in the loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GroupBatch:
    """Rows of sampled completions, with the way back from each target to the sample it belongs to."""

    batch: Batch
    sample_index: jax.Array | np.ndarray  # int32 [B, T], completion number in the call, -1 none
    sample_offset: jax.Array | np.ndarray  # int32 [B, T], the target's token number in it, -1 none


@dataclass(frozen=True)
class GroupSize:
    """What a prompt and its completions take of a row, apart."""

    tokens: int  # of the prompt
    patches: int
    completions: tuple[int, ...]  # tokens of each; 0: it is left out


@dataclass(frozen=True)
class GroupPart:
    """A prompt with as many of its completions as share a row."""

    group: int
    completions: tuple[int, ...]  # numbers of them in the group
    tokens: int  # that the part takes of a row


def packing_efficiency(batch: Batch) -> tuple[float, float]:
    """Packing efficiencies of tokens and of patches: shares of the capacity in use, 0 of no patches."""
    vision = batch.inputs.vision
    patches = 0.0 if vision is None else float(np.mean(np.asarray(vision.frame_ids) > 0))
    return float(np.mean(np.asarray(batch.inputs.segment_ids) > 0)), patches


def pack_rows(
    examples: Sequence[Example], *, rows: int, tokens: int, patches: int
) -> tuple[Batch, list[Example]]:
    """Packs examples into `rows` rows, each into the first row with capacity for its tokens and patches.

    Args:
        examples: in order of preference; none may be larger than a row.
        rows: B of the batch.
        tokens: T of the batch.
        patches: P of the batch; with 0 the batch has no vision inputs.

    Returns:
        The batch, and the examples left over, in order.

    Raises PackingError: an example has more tokens than T or more patches than P.
    """
    assigned, left = first_fit([_size(e) for e in examples], rows=rows, tokens=tokens, patches=patches)
    batch = pack_assigned(examples, assigned, rows=rows, tokens=tokens, patches=patches)
    return batch, [examples[number] for number in left]


def pack_assigned(
    examples: Sequence[Example],
    assigned: Sequence[tuple[int, int]],
    *,
    rows: int,
    tokens: int,
    patches: int,
) -> Batch:
    """A batch of the examples whose (row, number) is in `assigned`, as a `Packer` gives them."""
    canvas = _Canvas(rows, tokens, patches)
    for row, number in assigned:
        canvas.add_example(row, examples[number])
    return canvas.batch()


def empty_batch(*, rows: int, tokens: int, patches: int, patch_values: int) -> Batch:
    """A batch of padding alone; `patch_values` is the config's, the numbers of one patch."""
    canvas = _Canvas(rows, tokens, patches)
    canvas.patches = np.zeros((rows, patches, patch_values), np.uint8)
    return canvas.batch()


def stack_prompts(
    examples: Sequence[Example], *, tokens: int, patches: int
) -> tuple[ModelInputs, np.ndarray]:
    """One prompt a row, at its left end: inputs of B = len(examples) rows, and lengths int32 [B].

    Raises PackingError: a prompt has more tokens than T or more patches than P.
    """
    canvas = _Canvas(len(examples), tokens, patches)
    for row, example in enumerate(examples):
        check_fits(example, tokens=tokens, patches=patches)
        canvas.add_example(row, example)
    return canvas.batch().inputs, np.array([len(e.tokens) for e in examples], np.int32)


def pack_groups(
    groups: Sequence[tuple[Example, Sequence[np.ndarray]]], *, rows: int, tokens: int, patches: int
) -> list[GroupBatch]:
    """Packs prompts with their sampled completions, each prompt once for as many completions as fit a row.

    A segment holds the prompt without its last token as branch 0, then for each completion a branch of
    that last token and the completion without its own last token, which has no next token to predict.
    The branch's tokens predict the completion, at positions that continue the prompt's. A group too long
    for a row is split over several rows, each with the prompt. The largest group is packed first.

    Args:
        groups: (prompt, completions), completions int [n] token ids; empty ones are left out.
        rows: B of each batch.
        tokens: T of each batch.
        patches: P of each batch.

    Returns:
        As many batches as are needed; the last one may have capacity left. `sample_index` numbers the
        completions of all groups in order (empty ones are counted), `sample_offset` the token in each.

    Raises PackingError: a prompt with one of its completions is larger than a row.
    """
    sizes = [
        GroupSize(len(prompt.tokens), len(prompt.patches), tuple(len(c) for c in completions))
        for prompt, completions in groups
    ]
    first = np.cumsum([0, *(len(completions) for _, completions in groups)])
    batches = []
    for assigned in assign_groups(sizes, rows=rows, tokens=tokens, patches=patches):
        canvas = _Canvas(rows, tokens, patches)
        for row, part in assigned:
            prompt, completions = groups[part.group]
            numbered = [
                (int(first[part.group]) + n, np.asarray(completions[n], np.int32)) for n in part.completions
            ]
            canvas.add_group(row, prompt, numbered)
        batches.append(GroupBatch(canvas.batch(), canvas.sample_index, canvas.sample_offset))
    return batches


def assign_groups(
    groups: Sequence[GroupSize], *, rows: int, tokens: int, patches: int
) -> list[list[tuple[int, GroupPart]]]:
    """Which part of which group goes into which row of which batch: how `pack_groups` packs groups of these sizes.

    Raises PackingError: a prompt with one of its completions is larger than a row.
    """
    parts: list[tuple[GroupPart, int]] = []  # and its patches
    for number, group in enumerate(groups):
        shared = group.tokens - 1
        part, used = [], shared
        for completion, length in enumerate(group.completions):
            if length == 0:
                continue
            check_size(shared + length, group.patches, tokens, patches)
            if part and used + length > tokens:
                parts.append((GroupPart(number, tuple(part), used), group.patches))
                part, used = [], shared
            part.append(completion)
            used += length
        if part:
            parts.append((GroupPart(number, tuple(part), used), group.patches))
    parts.sort(key=lambda p: p[0].tokens, reverse=True)  # stable: the same groups give the same rows

    batches = []
    while parts:
        sizes = [(part.tokens, of_prompt) for part, of_prompt in parts]
        assigned, left = first_fit(sizes, rows=rows, tokens=tokens, patches=patches)
        batches.append([(row, parts[number][0]) for row, number in assigned])
        parts = [parts[number] for number in left]
    return batches


def check_fits(example: Example, *, tokens: int, patches: int) -> None:
    """Raises PackingError, naming size and limit, if the example is larger than a row."""
    check_size(*_size(example), tokens, patches)


def _size(example: Example) -> tuple[int, int]:
    return len(example.tokens), len(example.patches)


class _Canvas:
    """Arrays of a batch being filled, row by row from the left."""

    def __init__(self, rows: int, tokens: int, patches: int):
        if rows < 1 or tokens < 1 or patches < 0 or patches % _PATCHES_A_TOKEN:
            raise ValueError(
                f"need rows and tokens >= 1 and patches a multiple of {_PATCHES_A_TOKEN}, "
                f"got {rows}, {tokens}, {patches}"
            )
        self.tokens = np.zeros((rows, tokens), np.int32)
        self.positions = np.zeros((rows, 3, tokens), np.int32)
        self.segment_ids = np.zeros((rows, tokens), np.int32)
        self.branch_ids = np.zeros((rows, tokens), np.int32)
        self.visual_index = np.full((rows, tokens), -1, np.int32)
        self.targets = np.zeros((rows, tokens), np.int32)
        self.target_mask = np.zeros((rows, tokens), bool)
        self.sample_index = np.full((rows, tokens), -1, np.int32)
        self.sample_offset = np.full((rows, tokens), -1, np.int32)
        self.patches: np.ndarray | None = None  # made with the first example, which knows a patch's size
        self.patch_capacity = patches
        self.frame_ids = np.zeros((rows, patches), np.int32)
        self.coords = np.zeros((rows, patches, 2), np.int32)
        self.embed_index = np.zeros((rows, patches, 4), np.int32)
        self.embed_weight = np.zeros((rows, patches, 4), np.float32)
        self.used = [0] * rows  # tokens
        self.used_patches = [0] * rows
        self.used_frames = [0] * rows
        self.segments = [0] * rows

    def add_example(self, row: int, example: Example) -> None:
        """Appends a whole example as one segment, targets where its loss mask says."""
        self.segments[row] += 1
        start = self.used[row]
        first_visual = self._add_patches(row, example)
        end = self._add_tokens(row, example, len(example.tokens), first_visual)
        self.targets[row, start : end - 1] = example.tokens[1:]
        self.target_mask[row, start : end - 1] = example.loss_mask[1:]

    def add_group(self, row: int, prompt: Example, completions: list[tuple[int, np.ndarray]]) -> None:
        """Appends a prompt and, each in a branch, its (sample number, completion)s as one segment."""
        self.segments[row] += 1
        first_visual = self._add_patches(row, prompt)
        self._add_tokens(row, prompt, len(prompt.tokens) - 1, first_visual)
        for branch, (sample, completion) in enumerate(completions, 1):
            start, length = self.used[row], len(completion)
            cells = slice(start, start + length)
            self.tokens[row, start] = prompt.tokens[-1]
            self.tokens[row, start + 1 : start + length] = completion[:-1]
            self.positions[row, :, start] = prompt.positions[:, -1]
            self.positions[row, :, start + 1 : start + length] = prompt.next_position + np.arange(length - 1)
            self.segment_ids[row, cells] = self.segments[row]
            self.branch_ids[row, cells] = branch
            self.targets[row, cells] = completion
            self.target_mask[row, cells] = True
            self.sample_index[row, cells] = sample
            self.sample_offset[row, cells] = np.arange(length)
            self.used[row] += length

    def _add_tokens(self, row: int, example: Example, count: int, first_visual: int) -> int:
        start, end = self.used[row], self.used[row] + count
        self.tokens[row, start:end] = example.tokens[:count]
        self.positions[row, :, start:end] = example.positions[:, :count]
        self.segment_ids[row, start:end] = self.segments[row]
        visual = example.visual_index[:count]
        self.visual_index[row, start:end] = np.where(visual >= 0, visual + first_visual, -1)
        self.used[row] = end
        return end

    def _add_patches(self, row: int, example: Example) -> int:
        """Appends an example's patches; returns the row's number of its first merged patch."""
        start, count = self.used_patches[row], len(example.patches)
        if self.patches is None:  # also by an example without media: its empty patches have the size
            self.patches = np.zeros((*self.frame_ids.shape, example.patches.shape[1]), np.uint8)
        if count:
            cells = slice(start, start + count)
            self.patches[row, cells] = example.patches
            self.frame_ids[row, cells] = example.frame_ids + self.used_frames[row]
            self.coords[row, cells] = example.coords
            self.embed_index[row, cells] = example.embed_index
            self.embed_weight[row, cells] = example.embed_weight
            self.used_patches[row] += count
            self.used_frames[row] += int(example.frame_ids[-1])
        return start // _PATCHES_A_TOKEN

    def batch(self) -> Batch:
        vision = None
        if self.patch_capacity:
            if self.patches is None:
                raise ValueError(
                    "no example says how many numbers a patch has: empty_batch makes an empty batch"
                )
            vision = VisionInputs(**{f.name: getattr(self, f.name) for f in fields(VisionInputs)})
        inputs = ModelInputs(
            tokens=self.tokens,
            positions=self.positions,
            segment_ids=self.segment_ids,
            branch_ids=self.branch_ids,
            visual_index=self.visual_index,
            vision=vision,
        )
        return Batch(inputs, self.targets, self.target_mask)
