"""Malformed requests: none is a 5xx, none leaves anything behind, and the server answers as before."""

import gc
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.data_pipeline.making import write_video
from tests.serve.fuzzing import malformed
from tests.serve.serving import Running, user
from tests.waiting import HANG_S, wait_until


def resident() -> float:
    """MiB of this process, in which the server is."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def statuses(running: Running, film: bytes, seeds: range) -> Counter[int]:
    found: Counter[int] = Counter()
    with httpx2.Client(base_url=running.root, timeout=HANG_S) as client:
        for seed in seeds:
            method, path, headers, body = malformed(seed, film)
            reply = client.request(method, path, headers=headers, content=body)
            assert reply.status_code < 500, (seed, reply.text)
            if reply.status_code >= 400 and method != "HEAD":
                said = reply.json()["error"]
                assert said["message"] and len(reply.content) < 2000, seed
            found[reply.status_code] += 1
    return found


def check_as_before(running: Running) -> None:
    batch, metrics = running.parts.engine.batch, running.parts.metrics
    wait_until(lambda: (batch.running, batch.waiting, metrics.under_way) == (0, 0, 0))
    got = running.client().chat.completions.create(model="tiny", messages=user("Hello?"), max_tokens=2)
    assert got.choices[0].finish_reason in ("stop", "length")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = write_video(tmp_path_factory.mktemp("film") / "a.mp4", [0, 0.5, 1], size=(32, 32))
    return path.read_bytes()


def test_malformed_requests(running_server: Running, film: bytes) -> None:
    found = statuses(running_server, film, range(300))
    assert {400, 404, 405, 415, 421} <= set(found) and found[400] > 150
    check_as_before(running_server)


@pytest.mark.slow
def test_ten_thousand_malformed_requests(running_server: Running, film: bytes) -> None:
    """And memory does not grow: of the last 8,000, after what the first 2,000 have filled."""
    found = statuses(running_server, film, range(1000, 3000))
    gc.collect()
    before = resident()
    found += statuses(running_server, film, range(3000, 11_000))
    gc.collect()
    assert found.total() == 10_000 and resident() - before < 32
    check_as_before(running_server)
