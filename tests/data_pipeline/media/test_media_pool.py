"""Workers that die or hang are replaced and named; the cache of frames is exact, bounded and shared."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.media.decoding import MediaError, load_image, load_video
from onethinker_jax.data_pipeline.media.reading import frame_cache
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_pool import ATTEMPTS, MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from tests.data_pipeline.making import begin_and_hang, picture, write_image, write_video
from tests.waiting import HANG_S, wait_until

BOUNDS = PixelBounds(32, 4096, 96 * 64)
TIMES = [i / 8 for i in range(40)]


@pytest.fixture(scope="module")
def pool() -> Iterator[MediaPool]:
    with MediaPool(2, time_limit=HANG_S) as pool:
        yield pool


def process_of(pool: MediaPool) -> subprocess.Popen:
    (process,) = [worker.process for worker in pool._workers if worker.process is not None]
    return process


def test_the_pool_gives_what_the_functions_give(pool, tmp_path):
    image = write_image(tmp_path / "a.png", 70, 90)
    video = write_video(tmp_path / "a.mp4", TIMES)
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(lambda _: pool.call(load_image, image, bounds=BOUNDS), range(6)))
    assert all(np.array_equal(found, load_image(image, bounds=BOUNDS)) for found in images)
    there, here = pool.call(load_video, video, fps=2, max_frames=9), load_video(video, fps=2, max_frames=9)
    np.testing.assert_array_equal(there.frames, here.frames)
    np.testing.assert_array_equal(there.timestamps, here.timestamps)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(MediaError, match=r"bad\.png: not a readable image"):
        pool.call(load_image, tmp_path / "bad.png")
    with pytest.raises(MediaError, match="needs more than 8 GiB to decode"):
        pool.call(bytearray, 2**40)
    with pytest.raises(RuntimeError, match=r"(?s)a media worker failed:.*ValueError: fps must be positive"):
        pool.call(load_video, video, fps=0, max_frames=9)
    assert pool.replaced == 0


def test_workers_that_die_or_hang_are_replaced(tmp_path):
    path = write_image(tmp_path / "a.png")
    with MediaPool(1, time_limit=HANG_S) as pool:
        pool.call(load_image, path)
        first = process_of(pool)
        os.kill(first.pid, signal.SIGABRT)  # as a decoder that finds its memory broken
        with pytest.raises(MediaError, match=r"a\.png: the process that decodes it died \(SIGABRT\)"):
            pool.call(load_image, path)
        np.testing.assert_array_equal(pool.call(load_image, path), load_image(path))
        second = process_of(pool)
        assert second.pid != first.pid and pool.replaced == 1

        os.kill(second.pid, signal.SIGSTOP)  # as one that hangs inside a decoder
        pool.time_limit = 0.2
        with pytest.raises(MediaError, match=r"a\.png: not decoded within 0\.2 s"):
            pool.call(load_image, path)
        assert second.poll() is not None
        pool.time_limit = HANG_S
        np.testing.assert_array_equal(pool.call(load_image, path), load_image(path))
        assert pool.replaced == 2
        last = process_of(pool)
    assert last.poll() is not None, "a closed pool leaves a process"


def test_a_killed_worker_says_nothing_of_its_file(pool, tmp_path):
    """The kernel kills one of them where memory is short; another reads the file."""
    path = write_image(tmp_path / "a.png")
    pool.call(load_image, path)
    before = pool.replaced
    for worker in pool._workers:
        if worker.process is not None:
            worker.process.kill()
    np.testing.assert_array_equal(pool.call(load_image, path), load_image(path))
    assert pool.replaced == before + 1


def test_a_file_that_has_every_worker_killed_is_bad(pool, tmp_path):
    begun = tmp_path / "begun"

    def kill() -> None:
        for _ in range(ATTEMPTS):
            wait_until(begun.exists)
            begun.unlink()
            for worker in pool._workers:
                if worker.process is not None:
                    worker.process.kill()

    killer, before = threading.Thread(target=kill), pool.replaced
    killer.start()
    with pytest.raises(MediaError, match=r"begun: the process that decodes it died \(SIGKILL\)"):
        pool.call(begin_and_hang, begun)
    killer.join()
    assert pool.replaced >= before + ATTEMPTS
    assert pool.call(abs, -3) == 3


def test_a_pool_needs_workers_and_time():
    for workers, limit in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            MediaPool(workers, time_limit=limit)


def test_reading_through_the_cache_changes_nothing(tmp_path, monkeypatch):
    image, video = write_image(tmp_path / "a.png", 70, 90), write_video(tmp_path / "a.mp4", TIMES)
    cache = FrameCache(tmp_path / "cache", 10**7)
    plain, cached = MediaReader(), MediaReader(cache=cache)
    sampling = {"fps": 2.0, "max_frames": 9}
    for _ in range(2):
        np.testing.assert_array_equal(cached.image(image, BOUNDS), plain.image(image, BOUNDS))
        one, two = (reader.video(video, BOUNDS, **sampling) for reader in (plain, cached))
        np.testing.assert_array_equal(one.frames, two.frames)
        np.testing.assert_array_equal(one.timestamps, two.timestamps)
        assert (one.duration, one.source_fps, one.path) == (two.duration, two.source_fps, two.path)
    assert (cache.hits, cache.misses) == (2, 2)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    cached.video(copy, BOUNDS, **sampling)  # the same content under another name
    assert cache.hits == 3
    cached.video(video, BOUNDS, fps=1.0, max_frames=9)
    cached.video(video, PixelBounds(32, 1024, 4096), **sampling)
    write_image(image, 70, 90, seed=1)  # other content under the same name
    os.utime(image, ns=(1, 1))
    np.testing.assert_array_equal(cached.image(image, BOUNDS), plain.image(image, BOUNDS))
    assert (cache.hits, cache.misses) == (3, 5)
    monkeypatch.setattr(frame_cache, "_LIBRARIES", "another version")
    cached.video(video, BOUNDS, **sampling)
    assert cache.misses == 6
    with pytest.raises(MediaError, match=r"none\.png: cannot be read"):
        cached.image(tmp_path / "none.png", BOUNDS)


def entry(seed: int) -> dict[str, np.ndarray]:
    return {"pixels": picture(20, 30, seed)}


def test_the_least_recently_used_entries_go(tmp_path):
    cache = FrameCache(tmp_path, 10**9)
    cache.put("aa0", entry(0))
    size = cache.size
    cache = FrameCache(tmp_path, 4 * size + size // 2)
    for number in (1, 2, 3):
        cache.put(f"aa{number}", entry(number))
    for age, key in enumerate(["aa2", "aa0", "aa1", "aa3"]):  # last used in this order, 3 the longest ago
        os.utime(tmp_path / "aa" / f"{key}.npz", (1e9 - age, 1e9 - age))
    assert cache.get("aa3") is not None  # now it is the newest, and 1 the oldest
    cache.put("bb0", entry(4))
    kept = {path.stem for path in tmp_path.glob("??/*.npz")}
    assert kept == {"aa0", "aa2", "aa3", "bb0"} and cache.size <= cache.max_bytes
    found = cache.get("bb0")
    assert found is not None
    np.testing.assert_array_equal(found["pixels"], entry(4)["pixels"])
    FrameCache(tmp_path / "tiny", 10).put("aa0", entry(0))
    assert not list((tmp_path / "tiny").rglob("*.npz"))


def test_damaged_entries_and_full_disks_cost_only_time(tmp_path, monkeypatch, caplog):
    cache = FrameCache(tmp_path, 10**9)
    for number, damage in enumerate((b"", b"rubbish", None)):
        key = f"aa{number}"
        cache.put(key, entry(0))
        path = tmp_path / "aa" / f"{key}.npz"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255  # one byte: the check sum tells
        path.write_bytes(data if damage is None else damage)
        assert cache.get(key) is None and not path.exists()
    assert caplog.text.count("it is damaged") == 3

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for _ in range(3):
        cache.put("bb0", entry(0))
    assert caplog.text.count("frames are not cached") == 1 and not list((tmp_path / "writing").iterdir())


def test_what_a_dead_process_was_writing_is_cleared(tmp_path):
    cache = FrameCache(tmp_path, 10**9)
    old, young = tmp_path / "writing" / "old", tmp_path / "writing" / "young"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    cache.max_bytes = 2500
    for number in range(3):
        cache.put(f"aa{number}", entry(number))
    assert not old.exists() and young.exists()


WRITER = """
import sys
import numpy as np
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
cache = FrameCache(sys.argv[1], 60_000)
for number in range(60):
    key = f"{number % 40:02d}x"
    found = cache.get(key)
    if found is None:
        cache.put(key, {"pixels": np.full(2000, number % 40, np.uint8)})
    else:
        assert (found["pixels"] == number % 40).all()
"""


def test_processes_share_one_bound(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait(timeout=HANG_S) for writer in writers] == [0, 0, 0]
    cache = FrameCache(tmp_path, 60_000)
    assert 0 < cache.size <= 60_000
    assert int((tmp_path / "total").read_text()) == cache.size
    for path in tmp_path.glob("??/*.npz"):
        assert cache.get(path.stem) is not None


def test_the_reader_decodes_in_its_pool(pool, tmp_path):
    video = write_video(tmp_path / "a.mp4", TIMES)
    reader = MediaReader(pool=pool, cache=FrameCache(tmp_path / "cache", 10**7), time_limit=HANG_S)
    for _ in range(2):
        found = reader.video(Path(video), BOUNDS, fps=2.0, max_frames=9)
        np.testing.assert_array_equal(
            found.frames, MediaReader().video(video, BOUNDS, fps=2.0, max_frames=9).frames
        )
    image = write_image(tmp_path / "a.png")
    np.testing.assert_array_equal(reader.image(image, BOUNDS), MediaReader().image(image, BOUNDS))
