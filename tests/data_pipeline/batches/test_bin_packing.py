"""Both packing strategies keep to the budgets; the better one fills rows better and lets nobody wait for ever."""

import itertools
import random

import pytest

from onethinker_jax.data_pipeline.batches.bin_packing import STRATEGIES, PackingError, best_fit, first_fit

SHAPE = {"rows": 3, "tokens": 100, "patches": 64}


def sizes(count: int, seed: int, patches: int = 64) -> list[tuple[int, int]]:
    dice = random.Random(seed)
    return [(dice.randint(5, 90), 4 * dice.randint(0, patches // 8)) for _ in range(count)]


def packing_efficiency(items, assigned, tokens: int, rows: int) -> float:
    return sum(items[number][0] for _, number in assigned) / (tokens * rows)


@pytest.mark.parametrize("pack", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("patches", [0, 64, 10_000])
def test_rows_hold_what_they_may(pack, patches):
    shape = {**SHAPE, "patches": patches}
    for seed, count in itertools.product(range(5), (0, 1, 4, 40)):
        items = sizes(count, seed, patches)
        assigned, left = pack(items, **shape)
        packed = [number for _, number in assigned]
        assert sorted([*packed, *left]) == list(range(count)) and left == sorted(left)
        for row in range(3):
            inside = [items[number] for r, number in assigned if r == row]
            assert sum(t for t, _ in inside) <= 100 and sum(p for _, p in inside) <= patches
        if count:
            assert 0 in packed, "the one that waits longest goes first"
        assert pack(items, **shape) == (assigned, left)


@pytest.mark.parametrize("pack", STRATEGIES.values(), ids=STRATEGIES)
def test_larger_than_a_row(pack):
    with pytest.raises(PackingError, match="101 tokens do not fit in a row of 100"):
        pack([(3, 4), (101, 4)], **SHAPE)
    with pytest.raises(PackingError, match="68 patches do not fit in a row of 64"):
        pack([(3, 68)], **SHAPE)


def test_best_fit_finds_the_best_subset():
    """As trying all subsets does, for one row."""
    for seed in range(20):
        items = sizes(9, seed)
        assigned, _ = best_fit(items, rows=1, tokens=100, patches=64)
        subsets = itertools.chain.from_iterable(itertools.combinations(range(1, 9), n) for n in range(9))
        best = max(
            sum(t for t, _ in chosen) / 100 + sum(p for _, p in chosen) / 64
            for chosen in ([items[0], *(items[i] for i in rest)] for rest in subsets)
            if sum(t for t, _ in chosen) <= 100 and sum(p for _, p in chosen) <= 64
        )
        found = [items[number] for _, number in assigned]
        assert sum(t for t, _ in found) / 100 + sum(p for _, p in found) / 64 == pytest.approx(best)


def test_odd_patch_numbers_are_rounded_up():
    """A row of 9,001 patches is counted in steps of 71; what fits in steps fits."""
    dice = random.Random(0)
    items = [(dice.randint(100, 900), dice.randint(0, 3000)) for _ in range(30)]
    assigned, _ = best_fit([(5, 9001), *items], rows=4, tokens=3000, patches=9001)
    assert (0, 0) in assigned
    for row in range(4):
        assert sum(([(5, 9001), *items][n])[1] for r, n in assigned if r == row) <= 9001
    assert len(assigned) > 8


def test_best_fit_is_fuller():
    """Over a stream, with a window of 40, as the loader draws."""
    efficiencies = {}
    for pack in (first_fit, best_fit):
        stream = iter([(1 + tokens // 4, patches // 8 * 4) for tokens, patches in sizes(2000, 1)])
        waiting = list(itertools.islice(stream, 40))
        found = []
        for _ in range(40):
            assigned, left = pack(waiting, **SHAPE)
            found.append(packing_efficiency(waiting, assigned, 100, 3))
            waiting = [waiting[i] for i in left]
            waiting += itertools.islice(stream, 40 - len(waiting))
        efficiencies[pack.__name__] = sum(found) / len(found)
    assert efficiencies["best_fit"] > 0.99 and efficiencies["best_fit"] > efficiencies["first_fit"] + 0.02, (
        efficiencies
    )
