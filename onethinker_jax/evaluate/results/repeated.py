"""Several answers to each problem: pass@k and the majority's answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def best_of(values: Sequence[float], k: int) -> float:
    """The expected best of k different ones of n values: pass@k, where they are 0 or 1.

    Unbiased (Chen et al. 2021): with c ones it is 1 - C(n - c, k) / C(n, k). Raises ValueError unless 1 <= k <= n.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"the best of {k} of {n} values is not defined")
    whole = math.comb(n, k)
    # The i'th smallest is the best of k where all others are among the i - 1 smaller ones.
    return sum(value * (math.comb(i, k - 1) / whole) for i, value in enumerate(sorted(values)))


def majority(answers: Sequence[str | None]) -> int:
    """The index of the first answer among those that occur most often; of equally many, those seen first.

    Unread answers, None, have no vote unless all are unread.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0
    most = max(votes.values())
    return next(i for i, answer in enumerate(answers) if answer is not None and votes[answer] == most)


def pass_at(samples: int) -> list[int]:
    """The k that pass@k is given for, of problems with `samples` answers each: 1, 2, 4 … and `samples`."""
    powers = [1 << step for step in range(samples.bit_length()) if 1 << step < samples]
    return [*powers, samples]
