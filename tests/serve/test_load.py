"""Many clients at once, some slow, some that hang up: each answer is the one that it has alone, and none is doubled."""

import asyncio
import gc
from typing import Any

import openai
import pytest

from benchmarks.serve import Load, alone, make_questions, under_load
from tests.serve.serving import Running
from tests.serve.test_fuzz import check_as_before, resident
from tests.waiting import HANG_S


def loaded(running: Running, clients: int, *requests: int) -> list[Load]:
    """Loads of these numbers of requests, one after the other."""

    async def run() -> list[Load]:
        options: dict[str, Any] = {"base_url": running.server.url, "api_key": "none", "max_retries": 0}
        async with openai.AsyncOpenAI(**options, timeout=HANG_S) as client:
            questions = make_questions(tokens=24)
            expected, _ = await alone(client, "tiny", questions)
            assert len(set(expected)) == len(expected)
            return [
                await under_load(client, "tiny", questions, expected, clients=clients, requests=count)
                for count in requests
            ]

    return asyncio.run(run())


def test_nothing_is_lost_mixed_up_or_doubled(running_server: Running) -> None:
    (load,) = loaded(running_server, 64, 96)
    assert load.wrong == []
    assert load.through == 96 and load.given_up > 3 and load.tokens > 500
    check_as_before(running_server)


@pytest.mark.slow
def test_memory_is_flat_over_five_thousand_requests(running_server: Running) -> None:
    """Of 64 clients: after the first 1,000 requests the process, clients included, grows no more."""
    loads = loaded(running_server, 64, 1000)
    gc.collect()
    before = resident()
    loads += loaded(running_server, 64, 4000)
    gc.collect()
    assert resident() - before < 48
    assert all(load.wrong == [] for load in loads)
    assert sum(load.through for load in loads) == 5000
    check_as_before(running_server)
