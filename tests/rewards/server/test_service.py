"""A real server process under load and under attack: what is lost, what is doubled, and who is refused."""

import contextlib
import os
import re
import signal
import socket
import subprocess
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
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onethinker_jax.rewards.client.addresses import AddressError, channel_target, is_local
from onethinker_jax.rewards.client.client import (
    MaskItem,
    RewardClient,
    RewardGivenUp,
    RewardRequestError,
    RewardUnavailable,
    TextItem,
)
from onethinker_jax.rewards.client.security import TOKEN_VARIABLE, SecurityError, read_token
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc
from tests.rewards.server.trial_server import Process, batches, trial_server, wait_for_batch
from tests.waiting import HANG_S, wait_until

DEPTH = r'reward_queue_depth\{queue="text"\}'
TOKEN = "a-token-of-this-test-0123456789"
WHOLE = (0, 0, 1000, 1000)
MASK_ITEM = MaskItem(np.zeros((1, 8, 8, 3), np.uint8), WHOLE)


def item(answer: object) -> TextItem:
    return TextItem("", "", str(answer))


class Gate:
    """An item that keeps its batch, and so the one replica, until the gate is opened."""

    def __init__(self, folder: Path, number: int) -> None:
        self.file = folder / f"gate{number}"
        self.answer = f"until {self.file} {number}"
        self.item = item(self.answer)

    def open(self) -> None:
        self.file.touch()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()  # or whoever waits for a score would for ever, when a test fails


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


def test_killed_in_the_middle_of_a_batch_and_restarted(tmp_path: Path) -> None:
    flags = ["--address", f"unix:{tmp_path}/s.sock"]
    texts = [*map(item, range(1, 31))]
    with (
        Gate(tmp_path, 31) as gate,
        RewardClient(f"unix:{tmp_path}/s.sock", timeout=HANG_S) as client,
        ThreadPoolExecutor(1) as pool,
        trial_server(*flags, output=tmp_path / "output", log=tmp_path / "log") as first,
    ):
        undisturbed = client.score_text(texts)
        answers = pool.submit(client.score_text, [*texts, gate.item])
        wait_for_batch(tmp_path / "log", gate.answer)
        first.end(kill=True)
        gate.open()
        with trial_server(*flags, output=tmp_path / "second", log=tmp_path / "log") as second:
            assert answers.result() == [*undisturbed, 31.0]
            assert client.describe().process_id == second.popen.pid


def test_a_server_that_hangs_is_left_out_and_scales_are_not_mixed(tmp_path: Path) -> None:
    one, two = f"unix:{tmp_path}/1.sock", f"unix:{tmp_path}/2.sock"
    with (
        trial_server(
            "--address",
            one,
            "--stall-s",
            "0.2",
            "--grace-s",
            "0.2",
            output=tmp_path / "1",
            log=tmp_path / "log",
        ) as first,
        trial_server("--address", two, output=tmp_path / "2", log=tmp_path / "log") as second,
        RewardClient([one, two], timeout=HANG_S) as both,
    ):

        def answering() -> set[int]:
            return {both.describe().process_id for _ in range(8)}

        wait_until(lambda: answering() == {first.popen.pid, second.popen.pid})  # in turn
        with grpc.insecure_channel(one) as channel:
            service: Any = reward_pb2_grpc.RewardServiceStub(channel)
            hung = service.ScoreText.future(
                reward_pb2.ScoreTextRequest(items=[reward_pb2.TextItem(answer="hang 1")])
            )
            wait_for_batch(tmp_path / "log", "hang 1")
            with (
                RewardClient(one, timeout=0.5) as hasty,
                pytest.raises(RewardUnavailable, match=r"gave no answer within 0\.5 s: "),
            ):
                hasty.score_text([item(1)])
            checks: Any = health_pb2_grpc.HealthStub(channel)
            wait_until(
                lambda: (
                    checks.Check(health_pb2.HealthCheckRequest()).status
                    != health_pb2.HealthCheckResponse.SERVING
                )
            )
            hung.cancel()
        wait_until(lambda: answering() == {second.popen.pid})  # once the client's watch has told it
        assert both.score_text([item(number) for number in range(300)]) == list(range(300))
        assert first.end() == 0  # a back end that hangs does not keep the process
        with (
            trial_server("--address", one, output=tmp_path / "3"),
            RewardClient([one, two], timeout=HANG_S) as mixed,
            pytest.raises(RewardUnavailable, match="two scales are not mixed"),
        ):
            wait_until(lambda: not mixed.score_text([item(1)]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_calls_under_way_end(tmp_path: Path, number: signal.Signals) -> None:
    address, log = f"unix:{tmp_path}/s.sock", tmp_path / "log"
    with (
        trial_server(
            "--address", address, "--grace-s", "100000", output=tmp_path / "output", log=log
        ) as process,
        RewardClient(address, timeout=HANG_S) as client,
        grpc.insecure_channel(address) as channel,
        ThreadPoolExecutor(1) as pool,
        Gate(tmp_path, 7) as gate,
    ):
        checks: Any = health_pb2_grpc.HealthStub(channel)
        watch = checks.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        pending = pool.submit(client.score_text, [gate.item])
        wait_for_batch(log, gate.answer)
        process.popen.send_signal(number)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        gate.open()
        assert pending.result() == [7]
        assert process.popen.wait(HANG_S) == 0  # the watchers do not hold it for all of the grace
    assert "Traceback" not in (tmp_path / "output").read_text()
    assert not (tmp_path / "s.sock").exists()


def test_a_back_end_that_cannot_be_made(tmp_path: Path) -> None:
    arguments = ["--address", f"unix:{tmp_path}/s.sock", "--text-backend", "trial", "--replicas", "2"]
    refused = Process(arguments, tmp_path / "output", None)
    assert refused.popen.wait(HANG_S) == 1
    wanted = "error: cannot make the back end trial: it needs a file to write to\n"
    assert (tmp_path / "output").read_text() == wanted


def test_several_addresses_of_one_client() -> None:
    assert channel_target(["unix:/a", "unix:///b"]) == "unix:/a,/b"
    assert channel_target(["10.0.0.1:1", "10.0.0.2:2"]) == "ipv4:10.0.0.1:1,10.0.0.2:2"
    assert channel_target(["[::1]:1", "[::2]:2"]) == "ipv6:[::1]:1,[::2]:2"
    assert channel_target(["rewards.example:50051"]) == "dns:///rewards.example:50051"
    for wrong in ([], ["a:1", "b:1"], ["unix:/a", "127.0.0.1:1"], ["[::1]:1", "127.0.0.1:1"], ["a"]):
        with pytest.raises(AddressError):
            channel_target(wrong)
    assert [is_local(address) for address in ("unix:/a", "127.9.9.9:1", "[::1]:1", "localhost:1")] == [
        True
    ] * 4
    assert [is_local(address) for address in ("0.0.0.0:1", "[::]:1", "a.example:1", "10.0.0.1:1")] == [
        False
    ] * 4


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of its own authority for the name reward.test, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", "/CN=reward.test", "-addext", "subjectAltName=DNS:reward.test"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


def test_beyond_this_machine(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    authorities, key = certificate
    tls = ["--tls-certificate", str(authorities), "--tls-key", str(key)]
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    plain_environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    for number, flags in enumerate(([], tls, ["--token-file", str(token_file)])):
        refused = Process(
            ["--address", "0.0.0.0:0", *flags], tmp_path / f"refused{number}", plain_environment
        )
        assert refused.popen.wait(HANG_S) == 1
        assert re.fullmatch(r"error: refusing to listen on 0\.0\.0\.0:0: .*\n", refused.output.read_text())
    environment = {**plain_environment, TOKEN_VARIABLE: TOKEN}
    with trial_server(
        "--address", "0.0.0.0:0", *tls, output=tmp_path / "output", environment=environment
    ) as process:
        port = process.said(r"serving \w+ and \w+ on 0\.0\.0\.0:(\d+)")
        for address in (f"127.0.0.1:{port}", f"localhost:{port}"):
            with RewardClient(
                address, timeout=HANG_S, authorities=authorities, token=TOKEN, server_name="reward.test"
            ) as client:
                assert client.score_text([TextItem("", "a dog", "a dog")]) == [1.0]
        for token, wanted in ((None, "UNAUTHENTICATED"), (TOKEN + "x", "UNAUTHENTICATED")):
            with (
                RewardClient(
                    f"127.0.0.1:{port}", authorities=authorities, token=token, server_name="reward.test"
                ) as client,
                pytest.raises(RewardUnavailable, match=wanted),
            ):
                client.wait_ready()  # health needs no token
                client.segment_image(np.zeros((4, 4, 3), np.uint8), WHOLE)
        for how in ({}, {"authorities": authorities}):  # without TLS; the certificate is another host's
            assert "s: UNAVAILABLE" in cause_of_no_answer(f"127.0.0.1:{port}", **how)
        send_garbage(int(port))
        with RewardClient(
            f"127.0.0.1:{port}",
            timeout=HANG_S,
            authorities=authorities,
            token=TOKEN,
            server_name="reward.test",
        ) as client:
            assert client.score_text([TextItem("", "a dog", "a cat")])[0] < 1
        assert process.end() == 0
    written = (tmp_path / "output").read_text()
    assert TOKEN not in written
    assert "Traceback" not in written
    with pytest.raises(SecurityError, match="beyond this machine the service needs TLS and a token"):
        RewardClient("10.0.0.1:50051", token=TOKEN)


def cause_of_no_answer(address: str, **how: Any) -> str:
    """What a client says of it. Of one whose time is over within an attempt nothing is known: it gets more time."""
    said = "DEADLINE_EXCEEDED"
    for timeout in (2, 20, 200):
        if "DEADLINE_EXCEEDED" in said:
            with (
                RewardClient(address, timeout=timeout, token=TOKEN, **how) as client,
                pytest.raises(RewardUnavailable) as caught,
            ):
                client.score_text([TextItem("", "a", "a")])
            said = str(caught.value)
    return said


def test_garbage_on_the_port(tmp_path: Path) -> None:
    with trial_server("--address", "127.0.0.1:0", output=tmp_path / "output") as process:
        port = process.said(r"on 127\.0\.0\.1:(\d+)")
        send_garbage(int(port))
        with RewardClient(f"127.0.0.1:{port}", timeout=HANG_S) as client:
            assert client.score_text([TextItem("", "a dog", "a dog")]) == [1.0]
        assert process.end() == 0
    assert "Traceback" not in (tmp_path / "output").read_text()


def send_garbage(port: int) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(100_000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99,
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_S) as connection:
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            except TimeoutError:
                raise
            except OSError:
                pass  # it hung up, at whatever point


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}2\n")
    assert read_token(tmp_path / "token") == f"{TOKEN}2"
    for bad in ("short", "", "with a space in the token", "mit Umlaut äöü 0123456789"):
        (tmp_path / "token").write_text(bad)
        with pytest.raises(SecurityError, match="needs a token of 16 or more"):
            read_token(tmp_path / "token")
    with pytest.raises(SecurityError, match=r"cannot read the token file .*none: No such file"):
        read_token(tmp_path / "none")
