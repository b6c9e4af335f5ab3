"""What the model reads: fixed-shape token and patch arrays, and the host code that computes their indices.

Everything here is numpy on the host; the two dataclasses are pytrees only so that they pass through
`jax.jit`. Image sizes and frame counts never reach the device as shapes: they become index arrays
(`patch_geometry` for the vision tower, `mrope_positions` for the decoder), equal to what transformers'
Qwen3-VL computes inside its forward pass. `qwen3_vl.py` has the legend of the axis letters.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

HostOrDevice = Any  # np.ndarray as the host makes it, jax.Array inside a compiled function


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisionInputs:
    """The patches of B rows, padded to P; a merged patch (2 x 2 patches) becomes one visual token.

    Patches hold raw pixel values: the model computes (x / 255 - 0.5) / 0.5. Their order is Hugging
    Face's: media in order of appearance, frame by frame, merge block by merge block; within a patch
    channel, then time (2), then 16 x 16 pixels.
    """

    patches: HostOrDevice  # uint8 [B, P, patch_values], of `VisionConfig`: 3 x 2 x 16 x 16 when released
    frame_ids: HostOrDevice  # int32 [B, P], 1.. one a frame (an attention segment), 0 padding
    coords: HostOrDevice  # int32 [B, P, 2], row and column in the frame, for the rotary
    embed_index: HostOrDevice  # int32 [B, P, 4], corners in the position embedding table
    embed_weight: HostOrDevice  # float32 [B, P, 4], their bilinear weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelInputs:
    """B rows of T tokens, each row holding one or several examples.

    A query sees a key iff both have the same nonzero segment, the key is at or before the query in the
    row, and the key's branch is 0 or the query's own.
    """

    tokens: HostOrDevice  # int32 [B, T]
    positions: HostOrDevice  # int32 [B, 3, T], M-RoPE time, height, width
    segment_ids: HostOrDevice  # int32 [B, T], 1.. one a packed example, 0 padding
    branch_ids: HostOrDevice  # int32 [B, T], 0 seen by all of the segment, b > 0 by branch b only
    visual_index: HostOrDevice  # int32 [B, T], number of the row's merged patch (0 .. M - 1), -1 for text
    vision: VisionInputs | None


@lru_cache(maxsize=512)
def _frame_geometry(height: int, width: int, merge: int, side: int) -> tuple[np.ndarray, ...]:
    """Coordinates, corner indices and weights of one frame's patches, in merge-block order."""
    index = np.arange(height * width, dtype=np.int32)
    inner, block = index % (merge * merge), index // (merge * merge)
    row = block // (width // merge) * merge + inner // merge
    column = block % (width // merge) * merge + inner % merge

    def corners(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        # Aligned corners: the first and last patch fall on the first and last entry of the table. Float32
        # and this order of operations give transformers' weights to the bit.
        source = position.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
        floor = np.floor(source)
        low = floor.astype(np.int32)
        high_weight = source - floor
        taps = np.stack([low, np.minimum(low + 1, side - 1)], axis=1)
        return taps, np.stack([1 - high_weight, 1 - (1 - high_weight)], axis=1)

    row_taps, row_weights = corners(row, height)
    column_taps, column_weights = corners(column, width)
    embed_index = (row_taps[:, :, None] * side + column_taps[:, None, :]).reshape(-1, 4)
    embed_weight = (row_weights[:, :, None] * column_weights[:, None, :]).reshape(-1, 4)
    arrays = (np.stack([row, column], axis=1), embed_index, embed_weight)
    for array in arrays:
        array.flags.writeable = False  # shared by every caller through the cache
    return arrays


def patch_geometry(
    grids: np.ndarray, merge: int, grid_side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Index arrays of the vision tower for concatenated media.

    Args:
        grids: int [n, 3], (frames after temporal patching, patch rows, patch columns) of each medium.
        merge: side of a merge block, in patches; rows and columns must be multiples of it.
        grid_side: side of the square position embedding table (48 for the released models).

    Returns:
        frame_ids int32 [P] (1.. numbering frames through all media), coords int32 [P, 2],
        embed_index int32 [P, 4], embed_weight float32 [P, 4] (the four corners of a bilinear
        interpolation with aligned corners: top left, top right, bottom left, bottom right).

    Raises ValueError when a grid is not positive, or its rows or columns are no multiple of `merge`.
    """
    grids = np.asarray(grids, np.int64).reshape(-1, 3)
    if (grids < 1).any() or (grids[:, 1:] % merge).any():
        raise ValueError(f"grids must be positive, rows and columns multiples of {merge}: {grids.tolist()}")
    if len(grids) == 0:
        return (
            np.zeros(0, np.int32),
            np.zeros((0, 2), np.int32),
            np.zeros((0, 4), np.int32),
            np.zeros((0, 4), np.float32),
        )
    frame_sizes = np.repeat(grids[:, 1] * grids[:, 2], grids[:, 0])
    frame_ids = np.repeat(np.arange(1, len(frame_sizes) + 1, dtype=np.int32), frame_sizes)
    parts = []
    for frames, height, width in grids.tolist():
        parts.extend([_frame_geometry(height, width, merge, grid_side)] * frames)
    coords, embed_index, embed_weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return frame_ids, coords, embed_index, embed_weight


def mrope_positions(
    tokens: np.ndarray,
    image_grids: np.ndarray | None,
    video_grids: np.ndarray | None,
    *,
    image_token_id: int,
    video_token_id: int,
    vision_start_token_id: int,
    merge: int,
) -> np.ndarray:
    """M-RoPE positions of one unpadded sequence, as `Qwen3VLModel.get_rope_index` of transformers.

    Text advances all three axes by one a token. A frame's visual tokens share one time, spread their row
    and column over the other two axes, and advance the position by max(rows, columns) in merged patches.
    Every frame of a video is a span of its own (its time is in the text before it).

    Args:
        tokens: int [T], placeholders already expanded.
        image_grids: int [n, 3] or None, grids of the images in order of appearance.
        video_grids: int [n, 3] or None, the same of the videos, whole (they are split here).
        image_token_id: the placeholder of an image's merged patch.
        video_token_id: that of a video's.
        vision_start_token_id: the marker before an image, and before each frame of a video.
        merge: side of a merge block, in patches.

    Returns:
        int32 [3, T]. The first generated token's position is its maximum plus one.

    Raises ValueError when placeholder spans and grids do not match, or a span does not follow a vision start.
    """
    tokens = np.asarray(tokens)
    length = tokens.shape[0]
    kind = np.where(tokens == image_token_id, 1, np.where(tokens == video_token_id, 2, 0)).astype(np.int8)
    starts, ends = _placeholder_runs(kind)
    spans = _span_grids(kind[starts], image_grids, video_grids)
    rows, columns = spans[:, 1] // merge, spans[:, 2] // merge
    lengths = spans[:, 0] * rows * columns
    if (lengths != ends - starts).any():
        raise ValueError(
            f"placeholder spans of {(ends - starts).tolist()} tokens, grids need {lengths.tolist()}"
        )
    if (starts == 0).any() or (tokens[starts - 1] != vision_start_token_id).any():
        raise ValueError("a placeholder span does not follow a vision start token")

    # shift[j]: by how much positions run behind (or ahead of) plain counting at token j.
    advance = np.maximum(rows, columns) - lengths
    shift = np.zeros(length + 1, np.int64)
    shift[ends] = advance
    base = np.arange(length) + np.cumsum(shift[:-1])
    positions = np.broadcast_to(base, (3, length)).astype(np.int32)
    if len(starts):
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        per_frame, width = np.repeat(rows * columns, lengths), np.repeat(columns, lengths)
        origin = np.repeat(base[starts], lengths)
        visual = np.flatnonzero(kind)
        positions[0, visual] = origin + within // per_frame
        positions[1, visual] = origin + within % per_frame // width
        positions[2, visual] = origin + within % width
    return positions


def _placeholder_runs(kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of one kind of placeholder begin and end; `kind` is int8 [T], 0 where a token is text."""
    length = len(kind)
    change = np.flatnonzero(np.diff(kind, prepend=np.int8(0), append=np.int8(0)))
    # Boundaries between runs; a run of placeholders starts at every boundary where the kind is not text.
    starts = change[kind[np.minimum(change, length - 1)] > 0] if length else change
    starts = starts[starts < length]
    return starts, change[np.searchsorted(change, starts, side="right")]


def _span_grids(
    run_kinds: np.ndarray, image_grids: np.ndarray | None, video_grids: np.ndarray | None
) -> np.ndarray:
    """int64 [runs, 3], the grid of the image (kind 1) or the video's frame (kind 2) of each run of placeholders.

    Raises ValueError: other numbers of runs than of images or frames.
    """
    images = np.zeros((0, 3), np.int64) if image_grids is None else np.asarray(image_grids, np.int64)
    videos = np.zeros((0, 3), np.int64) if video_grids is None else np.asarray(video_grids, np.int64)
    images, videos = images.reshape(-1, 3), videos.reshape(-1, 3)
    frames = np.repeat(videos, videos[:, 0], axis=0)
    frames[:, 0] = 1
    for code, name, grids in ((1, "image", images), (2, "video frame", frames)):
        found = int((run_kinds == code).sum())
        if found != len(grids):
            raise ValueError(f"{found} {name} placeholder spans for {len(grids)} {name} grids")
    spans = np.zeros((len(run_kinds), 3), np.int64)
    spans[run_kinds == 1], spans[run_kinds == 2] = images, frames
    return spans
