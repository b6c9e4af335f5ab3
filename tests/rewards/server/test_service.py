"""A real server process under load: what is lost, what is doubled, and who is refused."""

import contextlib
import re
import signal
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from onethinker_jax.rewards.client.client import (
    MaskItem,
    RewardClient,
    RewardGivenUp,
    RewardRequestError,
    RewardUnavailable,
    TextItem,
)
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc
from tests.rewards.server.trial_server import Gate, Process, batches, item, trial_server, wait_for_batch
from tests.waiting import HANG_S, wait_until

DEPTH = r'reward_queue_depth\{queue="text"\}'
WHOLE = (0, 0, 1000, 1000)
MASK_ITEM = MaskItem(np.zeros((1, 8, 8, 3), np.uint8), WHOLE)


class Server:
    """The module's server: trial texts, GrabCut masks, small limits, metrics."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.address, self.log, self.process = f"unix:{folder}/s.sock", folder / "log", process
        self.metrics_url = process.said(r"metrics on (\S+)")

    def metric(self, pattern: str) -> float:
        """The sum of the metrics whose name and labels match."""
        with urllib.request.urlopen(self.metrics_url, timeout=HANG_S) as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(pattern, line))


@contextlib.contextmanager
def silent(server: Server) -> Iterator[None]:
    """The server does nothing for the block; its connections stay."""
    server.process.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.popen.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    flags = ["--metrics-port", "0", "--max-message-bytes", str(2**20), "--max-wait-ms", "5"]
    flags += ["--max-waiting", "400", "--max-items", "200", "--cache-bytes", str(8 * 2**20)]
    with trial_server(
        "--address", f"unix:{folder}/s.sock", *flags, output=folder / "output", log=folder / "log"
    ) as process:
        yield Server(folder, process)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[RewardClient]:
    with RewardClient(server.address, timeout=HANG_S) as client:
        yield client


def test_sixty_four_callers_lose_and_double_nothing(server: Server) -> None:
    def call(caller: int) -> list[float]:
        numbers = range(1000 + 5 * caller, 1000 + 5 * caller + 5)
        with RewardClient(server.address, timeout=HANG_S) as client:
            return client.score_text([item(number) for number in numbers])

    with ThreadPoolExecutor(64) as pool:
        scores = list(pool.map(call, range(64)))
    assert scores == [[float(1000 + 5 * caller + k) for k in range(5)] for caller in range(64)]
    ran = Counter(answer for batch in batches(server.log) for answer in batch)
    assert {ran[str(number)] for number in range(1000, 1000 + 5 * 64)} == {1}
    assert max(map(len, batches(server.log))) > 5  # callers shared batches


def test_a_bad_item_fails_alone(server: Server, client: RewardClient, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool, Gate(tmp_path, 2000) as gate:
        first = pool.submit(client.score_text, [gate.item])
        wait_for_batch(server.log, gate.answer)
        good = pool.submit(client.score_text, [item(2001), item(2002)])
        raising = pool.submit(client.score_text, [item(2003), item("raise 2004")])
        endless = pool.submit(client.score_text, [item("nan 2005")])
        wait_until(lambda: server.metric(DEPTH) == 5)
        gate.open()
        assert first.result() == [2000]
        assert good.result() == [2001, 2002]
        with pytest.raises(RewardUnavailable, match="failed on item 1: RuntimeError: told to raise 2004"):
            raising.result()
        with pytest.raises(RewardUnavailable, match=r"failed on item 0: ValueError: .* score nan"):
            endless.result()
    wait_until(lambda: server.metric(r'reward_items_total\{outcome="internal",queue="text"\}') == 2)


def test_work_of_a_caller_that_is_gone_is_dropped(
    server: Server, client: RewardClient, tmp_path: Path
) -> None:
    dropped = server.metric(r'reward_items_total\{outcome="dropped",queue="text"\}')
    calls = r'reward_calls_total\{code="CANCELLED",method="ScoreText"\}'
    cancelled = server.metric(calls)
    items = [reward_pb2.TextItem(answer=str(number)) for number in (2101, 2102)]
    with (
        ThreadPoolExecutor(1) as pool,
        Gate(tmp_path, 2100) as gate,
        grpc.insecure_channel(server.address) as channel,
    ):
        service: Any = reward_pb2_grpc.RewardServiceStub(channel)
        first = pool.submit(client.score_text, [gate.item])
        wait_for_batch(server.log, gate.answer)
        gone = service.ScoreText.future(reward_pb2.ScoreTextRequest(items=items))
        wait_until(lambda: server.metric(DEPTH) == 2)
        gone.cancel()
        wait_until(lambda: server.metric(calls) == cancelled + 1)
        gate.open()
        assert first.result() == [2100]
    assert client.score_text([item(2103)]) == [2103]
    ran = {answer for batch in batches(server.log) for answer in batch}
    assert "2103" in ran
    assert not {"2101", "2102"} & ran
    # A batch is counted after its answers are given.
    wait_until(lambda: server.metric(r'reward_items_total\{outcome="dropped",queue="text"\}') == dropped + 2)


@pytest.mark.parametrize("others", [0, 100])
def test_a_client_that_gives_up_waits_no_longer(
    server: Server, client: RewardClient, tmp_path: Path, others: int
) -> None:
    """Neither for its one call nor for several; and it asks nothing more. Another client is not disturbed."""
    gone = server.metric(r'reward_calls_total\{code="CANCELLED",method="ScoreText"\}')
    with (
        Gate(tmp_path, 2300 + others) as gate,
        ThreadPoolExecutor(1) as pool,
        RewardClient(server.address, timeout=10 * HANG_S) as impatient,
    ):
        asked = pool.submit(impatient.score_text, [gate.item, *map(item, range(others))])
        wait_for_batch(server.log, gate.answer)
        impatient.give_up()
        with pytest.raises(RewardGivenUp, match="is not waited for any more"):
            asked.result(HANG_S)
        wait_until(lambda: server.metric(r'reward_calls_total\{code="CANCELLED",method="ScoreText"\}') > gone)
        for ask in (lambda: impatient.score_text([item(1)]), lambda: impatient.segment_images([MASK_ITEM])):
            with pytest.raises(RewardGivenUp):
                ask()
        gate.open()
        assert client.score_text([item(2302)]) == [2302]


def test_a_client_gives_up_masks_too(server: Server) -> None:
    """A client gives up masks of a service that has stopped answering; the pixels' stream is ended."""
    with RewardClient(server.address, timeout=10 * HANG_S) as impatient, ThreadPoolExecutor(1) as pool:
        impatient.describe()
        with silent(server):
            begun = threading.Event()
            method = impatient._service.SegmentImage
            impatient._service.SegmentImage = lambda *a, **b: (method(*a, **b), begun.set())[0]
            asked = pool.submit(impatient.segment_images, [MASK_ITEM])
            assert begun.wait(HANG_S)
            impatient.give_up()
            with pytest.raises(RewardGivenUp):
                asked.result(HANG_S)


def test_ctrl_c_waits_for_no_call(server: Server, tmp_path: Path) -> None:
    """The threads of one method's several calls would be waited for, each until its deadline."""
    with Gate(tmp_path, 2400) as gate, RewardClient(server.address, timeout=10 * HANG_S) as client:

        def interrupt() -> None:
            wait_for_batch(server.log, gate.answer)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # as a terminal's

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.score_text([gate.item, *map(item, range(100))])
        thread.join()


def test_a_full_queue_says_so_and_the_client_comes_back(
    server: Server, client: RewardClient, tmp_path: Path
) -> None:
    full = r'reward_calls_total\{code="RESOURCE_EXHAUSTED",method="ScoreText"\}'
    refused = server.metric(full)
    many = [reward_pb2.TextItem(answer=str(number)) for number in range(3000, 3200)]
    with (
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor(2) as pool,
        Gate(tmp_path, 2900) as gate,
    ):
        service: Any = reward_pb2_grpc.RewardServiceStub(channel)
        first = pool.submit(client.score_text, [gate.item])
        wait_for_batch(server.log, gate.answer)
        waiting = [service.ScoreText.future(reward_pb2.ScoreTextRequest(items=many)) for _ in range(2)]
        wait_until(lambda: server.metric(DEPTH) == 400)
        with pytest.raises(grpc.RpcError, match="the text queue has no room for 1 items") as failure:
            service.ScoreText(reward_pb2.ScoreTextRequest(items=many[:1]))
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        patient = pool.submit(client.score_text, [item(2901)])
        wait_until(lambda: server.metric(full) >= refused + 2)  # the client has been refused too
        gate.open()
        assert patient.result() == [2901]  # once there is room
        assert first.result() == [2900]
        assert [len(call.result().results) for call in waiting] == [200, 200]


def test_messages_beyond_the_limit(server: Server, client: RewardClient) -> None:
    huge = reward_pb2.TextItem(question="x" * 2**20, answer="1")
    with grpc.insecure_channel(server.address) as channel:
        service: Any = reward_pb2_grpc.RewardServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="larger than max") as failure:
            service.ScoreText(reward_pb2.ScoreTextRequest(items=[huge]))
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    long = [TextItem("图" * 65_536, "x" * 2**17, str(number)) for number in range(4000, 4012)]
    assert client.score_text(long) == list(range(4000, 4012))  # 3 MB, in several calls
    with pytest.raises(RewardRequestError, match="media take 9437184 bytes, the limit is 8388608"):
        client.segment_video(np.zeros((12, 512, 512, 3), np.uint8), 0, WHOLE)


def test_a_video_crosses_the_wire_once(server: Server, client: RewardClient) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (8, 256, 256, 3), dtype=np.uint8)  # 1.5 MiB
    uploads = server.metric(r'reward_media\{what="uploads"\}')
    with ThreadPoolExecutor(4) as pool:  # four callers at once: one uploads, the others wait for it
        masks = list(pool.map(lambda key: client.segment_video(frames, key, (0, 0, 9, 9)), range(4)))
    assert [mask.shape for mask in masks] == [(8, 256, 256)] * 4
    assert server.metric(r'reward_media\{what="uploads"\}') == uploads + 1
    hits = server.metric(r'reward_media\{what="hits"\}')
    items = [MaskItem(frames, (0, 0, 9, 9), key_frame=key) for key in range(4)]
    again = client.segment_videos([*items, MaskItem(frames[:1], WHOLE)])
    assert all(np.array_equal(a, b) for a, b in zip(again, masks, strict=False))
    assert again[4].shape == (1, 256, 256)
    assert (
        server.metric(r'reward_media\{what="uploads"\}') == uploads + 2
    )  # its first frame is another medium
    assert server.metric(r'reward_media\{what="hits"\}') == hits + 1
    for number in range(5):  # 7.5 MiB: the cache has no room for all of it
        client.segment_video(frames + np.uint8(number + 1), 0, (0, 0, 1, 1))
    assert server.metric(r'reward_media\{what="evictions"\}') > 0
    assert server.metric(r'reward_media\{what="bytes"\}') <= 8 * 2**20
    assert np.array_equal(client.segment_video(frames, 0, (0, 0, 9, 9)), masks[0])  # uploaded again
    assert server.metric(r'reward_media\{what="uploads"\}') == uploads + 8


def test_an_upload_of_other_bytes_is_refused(server: Server) -> None:
    frames = reward_pb2.Frames(count=1, height=2, width=2, sha256=b"h" * 32)
    prompt = reward_pb2.Prompt(box=reward_pb2.Box(x2=1000, y2=1000))
    items = reward_pb2.SegmentItems(items=[reward_pb2.SegmentItem(frames=frames, prompt=prompt)])
    for chunk, message in (
        (reward_pb2.MediaChunk(sha256=b"h" * 32, data=b"1" * 12), "the bytes have the hash"),
        (reward_pb2.MediaChunk(sha256=b"h" * 32, data=b"1" * 13), "13 bytes and more, its frames take 12"),
        (reward_pb2.MediaChunk(sha256=b"g" * 32, data=b"1"), "was due, not of 6767"),
        (None, "ended before the call was complete"),
    ):
        parts = [reward_pb2.SegmentRequest(items=items)]
        parts += [] if chunk is None else [reward_pb2.SegmentRequest(chunk=chunk)]
        with grpc.insecure_channel(server.address) as channel:
            service: Any = reward_pb2_grpc.RewardServiceStub(channel)
            with pytest.raises(grpc.RpcError, match=message) as failure:
                list(service.SegmentImage(iter(parts)))
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_metrics_count_the_calls(server: Server, client: RewardClient) -> None:
    ok = r'reward_calls_total\{code="OK",method="ScoreText"\}'
    calls, scored = server.metric(ok), server.metric(r'reward_items_total\{outcome="ok",queue="text"\}')
    assert client.score_text([item(number) for number in range(70)]) == list(range(70))
    assert server.metric(ok) == calls + 2
    wait_until(lambda: server.metric(r'reward_items_total\{outcome="ok",queue="text"\}') == scored + 70)
    assert server.metric(r'reward_call_seconds_count\{method="ScoreText"\}') >= calls + 2
    batched = r'reward_batch_items_sum\{queue="text"\}'
    assert server.metric(batched) <= sum(map(len, batches(server.log)))
    assert server.metric(batched) >= scored
    assert server.metric(r"reward_calls_under_way") == 0
