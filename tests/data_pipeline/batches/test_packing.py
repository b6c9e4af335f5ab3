"""Packed rows hold exactly their examples: nothing lost, nothing crossing, every index pointing home."""

from typing import Any

import jax
import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.packing import (
    PackingError,
    empty_batch,
    pack_groups,
    pack_rows,
    packing_efficiency,
    stack_prompts,
)
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.model.inputs import ModelInputs, patch_geometry

T, P = 96, 64


def example(rng: np.random.Generator, *, text: int | None = None, media: int | None = None) -> Example:
    """A made-up example of text and images whose patches and tokens are told apart by their values."""
    count = int(rng.integers(0, 3)) if media is None else media
    grids = np.array([(1, 2 * rng.integers(1, 3), 2 * rng.integers(1, 3)) for _ in range(count)], np.int32)
    grids = grids.reshape(-1, 3)
    frame_ids, coords, embed_index, embed_weight = patch_geometry(grids, 2, 8)
    length = int(rng.integers(6, 30)) if text is None else text
    visual = len(frame_ids) // 4
    tokens = rng.integers(1, 1000, length + visual).astype(np.int32)
    visual_index = np.full(length + visual, -1, np.int32)
    visual_index[2 : 2 + visual] = np.arange(visual)
    loss_mask = np.zeros(length + visual, bool)
    loss_mask[-3:] = True
    positions = np.broadcast_to(np.arange(length + visual, dtype=np.int32), (3, length + visual))
    return Example(
        tokens=tokens,
        positions=positions,
        loss_mask=loss_mask,
        visual_index=visual_index,
        patches=rng.integers(0, 256, (len(frame_ids), 1536)).astype(np.uint8),
        grids=grids,
        frame_ids=frame_ids,
        coords=coords,
        embed_index=embed_index,
        embed_weight=embed_weight,
        next_position=length + visual,
    )


def merged(inputs: ModelInputs, row: int, index: Any) -> np.ndarray:
    """The patches behind visual indices of a row, uint8 [n, 4, 1536]."""
    assert inputs.vision is not None
    return np.asarray(inputs.vision.patches)[row].reshape(-1, 4, 1536)[index]


def segments(inputs: ModelInputs) -> list[tuple[int, np.ndarray]]:
    """(row, token positions) of every segment."""
    ids = np.asarray(inputs.segment_ids)
    return [
        (row, np.flatnonzero(ids[row] == s)) for row in range(len(ids)) for s in range(1, ids[row].max() + 1)
    ]


def test_rows_hold_exactly_their_examples():
    rng = np.random.default_rng(0)
    examples = [example(rng) for _ in range(40)]
    batch, left = pack_rows(examples, rows=6, tokens=T, patches=P)
    assert 0 < len(left) < 40
    gone = {id(e) for e in left}
    packed = {e.tokens.tobytes(): e for e in examples if id(e) not in gone}
    inputs, vision = batch.inputs, batch.inputs.vision
    assert vision is not None
    found = segments(inputs)
    assert len(found) == len(packed)
    for row, cells in found:
        assert (np.diff(cells) == 1).all()
        original = packed.pop(inputs.tokens[row, cells].tobytes())
        np.testing.assert_array_equal(inputs.positions[row][:, cells], original.positions)
        index = inputs.visual_index[row, cells]
        visual = index[index >= 0]
        assert ((index >= 0) == (original.visual_index >= 0)).all()
        np.testing.assert_array_equal(merged(inputs, row, visual), original.patches.reshape(-1, 4, 1536))
        if len(visual):
            own = slice(4 * visual[0], 4 * visual[-1] + 4)
            for name in ("coords", "embed_index", "embed_weight"):
                np.testing.assert_array_equal(getattr(vision, name)[row, own], getattr(original, name))
            np.testing.assert_array_equal(np.diff(vision.frame_ids[row, own]), np.diff(original.frame_ids))
        # Targets are the next token of the same segment, and count where the loss mask says.
        np.testing.assert_array_equal(batch.targets[row, cells[:-1]], original.tokens[1:])
        np.testing.assert_array_equal(batch.target_mask[row, cells[:-1]], original.loss_mask[1:])
        assert not batch.target_mask[row, cells[-1]]
    assert not batch.target_mask[inputs.segment_ids == 0].any()
    assert (inputs.visual_index[inputs.segment_ids == 0] == -1).all()
    for frames in vision.frame_ids:  # numbered without gaps, padding at the end
        used = frames[frames > 0]
        assert set(np.diff(used)) <= {0, 1} and (frames[len(used) :] == 0).all()
    tokens_efficiency, patches_efficiency = packing_efficiency(batch)
    assert tokens_efficiency > 0.8 and 0 < patches_efficiency <= 1
    assert not inputs.branch_ids.any()


def test_left_over_keeps_its_order():
    rng = np.random.default_rng(1)
    examples = [example(rng, text=60, media=0) for _ in range(5)]
    _, left = pack_rows(examples, rows=2, tokens=T, patches=P)
    assert [id(e) for e in left] == [id(e) for e in examples[2:]]


def test_too_large_is_an_error():
    rng = np.random.default_rng(2)
    long, wide = example(rng, text=97, media=0), example(rng, media=30)
    with pytest.raises(PackingError, match="97 tokens do not fit in a row of 96"):
        pack_rows([long], rows=1, tokens=T, patches=P)
    with pytest.raises(PackingError, match=f"{len(wide.patches)} patches do not fit in a row of 64"):
        stack_prompts([wide], tokens=999, patches=P)
    with pytest.raises(PackingError, match="101 tokens do not fit"):
        pack_groups([(example(rng, text=92, media=0), [np.ones(10, int)])], rows=1, tokens=T, patches=P)
    with pytest.raises(ValueError, match="multiple of 4"):
        pack_rows([], rows=1, tokens=8, patches=6)


def test_shapes_do_not_depend_on_content():
    rng = np.random.default_rng(3)
    batches = [
        empty_batch(rows=2, tokens=T, patches=P, patch_values=1536),
        *(pack_rows([example(rng, media=n)], rows=2, tokens=T, patches=P)[0] for n in (0, 2)),
    ]
    assert len({str(jax.tree.map(lambda a: (a.shape, a.dtype), batch)) for batch in batches}) == 1
    text_only, _ = pack_rows([example(rng, media=0)], rows=2, tokens=T, patches=0)
    assert text_only.inputs.vision is None and packing_efficiency(text_only)[1] == 0


def test_stacked_prompts():
    rng = np.random.default_rng(4)
    prompts = [example(rng) for _ in range(3)]
    inputs, lengths = stack_prompts(prompts, tokens=T, patches=P)
    assert lengths.tolist() == [len(p.tokens) for p in prompts] and lengths.dtype == np.int32
    for row, prompt in enumerate(prompts):
        np.testing.assert_array_equal(inputs.tokens[row, : lengths[row]], prompt.tokens)
        assert (inputs.segment_ids[row] == (np.arange(T) < lengths[row])).all()


def test_groups_share_their_prompt():
    rng = np.random.default_rng(5)
    groups = []
    for number in range(7):
        sizes = [(5, 9, 1), (40, 45, 30, 20), (0, 7), (0,)][number % 4]
        completions = [rng.integers(1, 1000, n) for n in sizes]
        groups.append((example(rng, text=12), completions))
    batches = pack_groups(groups, rows=2, tokens=T, patches=P)
    flat = [completion for _, completions in groups for completion in completions]
    prompts = [prompt for prompt, completions in groups for _ in completions]
    written = {number: np.full(len(c), -1) for number, c in enumerate(flat)}
    for group_batch in batches:
        batch, inputs = group_batch.batch, group_batch.batch.inputs
        index, offset = group_batch.sample_index, group_batch.sample_offset
        np.testing.assert_array_equal(index >= 0, batch.target_mask)
        for row, cells in segments(inputs):
            branch = inputs.branch_ids[row, cells]
            shared = cells[branch == 0]
            assert (np.diff(branch) >= 0).all() and branch.max() >= 1
            for b in range(1, branch.max() + 1):
                own = cells[branch == b]
                number = int(index[row, own[0]])
                prompt, completion = prompts[number], flat[number]
                assert (index[row, own] == number).all()
                np.testing.assert_array_equal(offset[row, own], np.arange(len(completion)))
                written[number][:] = batch.targets[row, own]
                # What this branch reads, prompt first, is the plain sequence with its plain positions.
                read = np.concatenate([shared, own])
                plain = np.concatenate([prompt.tokens, completion])[:-1]
                np.testing.assert_array_equal(inputs.tokens[row, read], plain)
                tail = prompt.next_position + np.arange(len(completion) - 1)
                positions = np.concatenate([prompt.positions, np.broadcast_to(tail, (3, len(tail)))], axis=1)
                np.testing.assert_array_equal(inputs.positions[row][:, read], positions)
                visual = inputs.visual_index[row, shared]
                np.testing.assert_array_equal(
                    merged(inputs, row, visual[visual >= 0]), prompt.patches.reshape(-1, 4, 1536)
                )
    for number, completion in enumerate(flat):
        np.testing.assert_array_equal(written[number], completion)
    again = pack_groups(groups, rows=2, tokens=T, patches=P)
    assert len(again) == len(batches)
    jax.tree.map(np.testing.assert_array_equal, again, batches)
    assert pack_groups([], rows=2, tokens=T, patches=P) == []


def test_an_empty_batch_has_patches_of_the_size_it_is_told():
    batch = empty_batch(rows=2, tokens=8, patches=4, patch_values=384)
    assert batch.inputs.vision is not None and batch.inputs.vision.patches.shape == (2, 4, 384)
    assert not batch.target_mask.any() and not batch.inputs.vision.frame_ids.any()
    with pytest.raises(ValueError, match="empty_batch"):
        pack_rows([], rows=2, tokens=8, patches=4)
