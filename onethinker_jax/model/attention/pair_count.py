"""How many pairs of a query and a key attention has: those that see each other, and those that the kernels compute.

Segments (packed examples, the frames of a video) do not see each other, nor do branches (the samples of a prompt). The
first count is the model's own work; the second one adds what a kernel computes and masks, since it skips whole blocks
only. Both are made on the host, of ids in NumPy arrays. `qwen3_vl.py` has the legend of the axis letters.
"""

import numpy as np
from jaxtyping import Int

from onethinker_jax.model.attention.flash import Kernels, module_of
from onethinker_jax.model.attention.flash_blocks import BRANCHES, Part, block_meetings

Ids = Int[np.ndarray, "B T"]


def seen_pairs(segments: Ids, branches: Ids, *, causal: bool) -> int:
    """Pairs that see each other, over all rows, as `attention.attention` defines it.

    Counted by runs of equal ids. Of n tokens of one branch n² pairs see each other, causally n (n + 1) / 2; each token
    of a branch above 0 also sees those of branch 0, causally the earlier ones.
    """
    length, runs = _runs(segments, branches)
    row, segment, branch = runs
    groups = np.unique(
        (row * (segment.max(initial=0) + 1) + segment) * BRANCHES + branch, return_inverse=True
    )[1]
    own = np.bincount(groups, length).astype(np.int64)
    pairs = int((own * (own + 1) // 2 if causal else own * own).sum())
    order = np.lexsort((np.arange(len(row)), segment, row))
    row, segment, branch, length = (x[order] for x in (row, segment, branch, length))
    prefix = np.cumsum(np.where(branch == 0, length, 0))
    first = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(segment, prepend=-1))
    part = np.repeat(np.arange(len(first)), np.diff(first, append=len(row)))
    before = np.concatenate([[0], prefix])[first]
    whole = np.diff(before, append=prefix[-1:] if len(prefix) else 0)
    seen = prefix - before[part] if causal else whole[part]
    return pairs + int((seen * length)[branch > 0].sum())


def computed_pairs(
    kernels: Kernels, part: Part, segments: Ids, branches: Ids, *, causal: bool, itemsize: int = 2
) -> int:
    """Pairs that a kernel computes for one head, over all rows: whole blocks, those of padding included.

    `itemsize`: bytes of a number of the queries.
    """
    query_block, key_block = module_of(kernels).block_sizes(part, segments.shape[1], itemsize)
    missing = ((0, 0), (0, -segments.shape[1] % max(query_block, key_block)))
    count = 0
    for row in range(len(segments)):  # or the meetings of all rows would be held at once
        ids = (np.pad(x[row : row + 1], missing) for x in (segments, branches))
        meetings = block_meetings(*ids, query_block=query_block, key_block=key_block, causal=causal)
        count += int(meetings.sum())
        if kernels == "tpu":
            count += _lonely_blocks(meetings, part, query_block)
    return count * query_block * key_block


def _lonely_blocks(meetings: np.ndarray, part: Part, query_block: int) -> int:
    """The blocks of one row that accumulate and meet none, of `meetings` [1, query blocks, key blocks].

    A TPU's work list has a pair for each of them; one of gradients for each of its runs over the queries.
    """
    if part == "forward":
        return int((~meetings.any(2)).sum())
    chunk = module_of("tpu").most_queries(query_block) // query_block
    runs = np.split(meetings, range(chunk, meetings.shape[1], chunk), 1)
    return sum(int((~run.any(1)).sum()) for run in runs)


def _runs(segments: Ids, branches: Ids) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Lengths of the runs of tokens of one row, segment and branch, in order, and these ids; padding is left out."""
    shape = segments.shape
    row = np.broadcast_to(np.arange(shape[0])[:, None], shape)
    flat = [np.asarray(x, np.int64).reshape(-1) for x in (row, segments, branches)]
    changes = [np.diff(x, prepend=-1) != 0 for x in flat]
    starts = np.flatnonzero(changes[0] | changes[1] | changes[2])
    length = np.diff(starts, append=flat[0].size)
    row, segment, branch = (x[starts] for x in flat)
    real = segment > 0
    return length[real], (row[real], segment[real], branch[real])
