"""The media cache: least recently used out first, nothing that is in use, and never more than its bytes."""

import asyncio
import hashlib

import pytest

from onethinker_jax.rewards.server.media_cache import CacheFull, MediaCache, MediaHold
from tests.waiting import HANG_S


def medium(number: int, size: int = 10) -> tuple[bytes, bytes]:
    data = bytes([number]) * size
    return hashlib.sha256(data).digest(), data


def upload(held: MediaHold, number: int, size: int = 10) -> bytes:
    digest, data = medium(number, size)
    begun = held.begin(digest, size)
    assert begun is not None
    assert not begun.add(data[:3])
    assert begun.add(data[3:])
    held.finish(begun)
    return digest


def test_the_longest_unused_goes_first_and_what_is_in_use_stays() -> None:
    cache = MediaCache(30)
    with cache.hold() as held:
        one, two, three = (upload(held, number) for number in (1, 2, 3))
        assert bytes(held.media[two]) == medium(2)[1]
        with cache.hold() as other, pytest.raises(CacheFull, match="30 of 30 are in use"):
            other.begin(medium(4)[0], 10)
    with cache.hold() as held:
        assert held.take(one)  # now two is the longest unused
        upload(held, 4)
        assert not held.take(two)
        assert held.take(three)
    assert (cache.used, cache.uploads, cache.evictions, cache.hits) == (30, 4, 1, 2)


def test_an_upload_that_does_not_end_gives_its_room_back() -> None:
    cache = MediaCache(30)
    digest, data = medium(1, 20)
    with cache.hold() as held:
        begun = held.begin(digest, 20)
        assert begun is not None
        assert cache.used == 20
        with pytest.raises(ValueError, match="its frames take 20"):
            begun.add(data + b"1")
    assert cache.used == 0
    with cache.hold() as held:
        begun = held.begin(digest, 20)
        assert begun is not None
        assert begun.add(b"x" * 20)
        with pytest.raises(ValueError, match="the bytes have the hash"):
            held.finish(begun)
    with cache.hold() as held:
        assert not held.take(digest)
    assert cache.used == 0


def test_one_call_waits_for_the_upload_of_another() -> None:
    async def both() -> None:
        cache = MediaCache(30)
        digest, _ = medium(1)
        with cache.hold() as first, cache.hold() as second:
            begun = first.begin(digest, 10)
            assert begun is not None
            assert second.begin(digest, 10) is None
            waiting = asyncio.ensure_future(cache.wait_for_upload([digest]))
            await asyncio.sleep(0)
            assert not waiting.done()
            begun.add(medium(1)[1])
            first.finish(begun)
            await asyncio.wait_for(waiting, HANG_S)
            assert second.take(digest)
        assert cache.used == 10

    asyncio.run(both())
