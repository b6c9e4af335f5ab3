"""A real server process: what it computes, what it refuses, and how it ends."""

import hashlib
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from onethinker_jax.rewards import RewardSettings, metrics, score_response
from onethinker_jax.rewards.backends.grabcut import GrabCut
from onethinker_jax.rewards.backends.types import MaskJob, MaskPrompt
from onethinker_jax.rewards.batch import ScoreRequest, score_batch
from onethinker_jax.rewards.client.client import (
    RewardClient,
    RewardRequestError,
    RewardUnavailable,
    TextItem,
)
from onethinker_jax.rewards.client.server_process import start_server
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc
from tests.places import ROOT
from tests.waiting import HANG_S, wait_until

ITEMS = [
    TextItem("what moves?", "a red circle moves to the left", "the red circle is moving left"),
    TextItem("what moves?", "a red circle moves to the left", "nothing"),
    TextItem("", "图 \ud800", ""),
]


def run_server(*arguments, **options):
    command = [sys.executable, "-m", "onethinker_jax.rewards.server", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def refused(*arguments):
    """Status and stderr of a server that is expected to end by itself."""
    process = run_server(*arguments)
    _, errors = process.communicate(timeout=HANG_S)
    return process.returncode, errors


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sidecar")
    with start_server(folder / "reward.sock", folder / "server.log") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with RewardClient(server.address, timeout=HANG_S) as client:
        yield client


def drawing(center, *, size=(120, 160), radius=20, seed=0):
    """A noisy grey frame with a green disc, uint8 [H, W, 3], and the disc's mask."""
    frame = np.random.default_rng(seed).normal(120, 10, (*size, 3)).clip(0, 255).astype(np.uint8)
    disc = cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1).astype(bool)
    frame[disc] = (40, 180, 60)
    return frame, disc


def box_around(center, radius=23, size=(120, 160)):
    x, y = center
    edges = (x - radius) / size[1], (y - radius) / size[0], (x + radius) / size[1], (y + radius) / size[0]
    return tuple(1000.0 * edge for edge in edges)


def test_scores_are_the_local_ones(client):
    local = [metrics.mean_rouge(item.answer, item.reference) for item in ITEMS]
    assert client.score_text(ITEMS) == local
    assert client.score_text([]) == []
    assert client.score_text(ITEMS * 200) == local * 200  # more than one call


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_batch_scores_as_its_members_do(client, variant):
    requests = [
        ScoreRequest(
            "<think>x</think><answer>a red dog</answer>", "a red cat", "what?", "open-ended", "image"
        ),
        ScoreRequest("a red dog", "<answer>a red cat</answer>", "what?", "open-ended", "image"),
        ScoreRequest(
            "<think>x</think><answer>B</answer>", "<answer>B</answer>", "which?", "multiple choice", "image"
        ),
        ScoreRequest("", "a red cat", "what?", "open-ended", "video"),
    ]
    wanted = [
        score_response(
            request.response,
            request.ground_truth,
            problem_type=request.problem_type,
            data_type=request.data_type,
            variant=variant,
        )
        for request in requests
    ]
    assert score_batch(requests, client, settings=RewardSettings(variant=variant)) == wanted
    assert score_batch([], client, settings=RewardSettings(variant=variant)) == []


def test_callers_at_once_get_their_own_scores(client):
    def score(number):
        item = TextItem("", " ".join("abcdefgh"[: 1 + number % 8]), "a")
        return client.score_text([item])[0]

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(score, range(96)))
    assert found == [metrics.mean_rouge("a", " ".join("abcdefgh"[: 1 + number % 8])) for number in range(96)]


def test_mask_of_a_drawn_shape(client):
    frame, disc = drawing((70, 50))
    mask = client.segment_image(frame, box_around((70, 50)), [(437, 416)], [(100, 100)])
    assert mask.shape == disc.shape
    assert mask.dtype == bool
    assert metrics.mask_iou(mask, disc) > 0.8
    prompt = MaskPrompt(box_around((70, 50)), ((437, 416),), ((100, 100),))
    assert np.array_equal([mask], GrabCut().segment([MaskJob(frame[None], prompt)])[0])


def test_mask_follows_a_shape_both_ways(client):
    centers = [(30 + 14 * index, 60) for index in range(7)]
    drawings = [drawing(center, seed=index) for index, center in enumerate(centers)]
    masks = client.segment_video(np.stack([frame for frame, _ in drawings]), 3, box_around(centers[3]))
    assert masks.shape == (7, 120, 160)
    assert min(metrics.mask_iou(mask, disc) for mask, (_, disc) in zip(masks, drawings, strict=True)) > 0.8


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (700, 500)])
def test_any_box_gives_a_mask(client, size):
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    for box in [(0, 0, 1000, 1000), (-50, -50, 2000, 2000), (990, 990, 1000, 1000), (0, 0, 1, 1)]:
        assert client.segment_image(frame, box).shape == size
    assert not client.segment_image(frame, (500, 500, 500, 600)).any()
    assert not client.segment_image(frame, (600, 600, 500, 500)).any()


def test_malformed_requests_are_refused(server, client):
    frame, _ = drawing((70, 50))
    with pytest.raises(RewardRequestError, match="four finite numbers"):
        client.segment_image(frame, (0, 0, float("nan"), 10))
    with pytest.raises(RewardRequestError, match="two"):
        client.segment_image(frame, (0, 0, 10, 10), [(1, 2, 3)])
    with pytest.raises(RewardRequestError, match="uint8"):
        client.segment_image(frame.astype(np.float32), (0, 0, 10, 10))
    with pytest.raises(RewardRequestError, match="key frame 5"):
        client.segment_video(frame[None], 5, (0, 0, 10, 10))
    digest = hashlib.sha256(frame.tobytes()).digest()
    good = reward_pb2.SegmentItem(
        frames=reward_pb2.Frames(count=1, height=120, width=160, sha256=digest),
        prompt=reward_pb2.Prompt(box=reward_pb2.Box(x1=0, y1=0, x2=500, y2=500)),
    )
    other_size, boxless, none, two, hashless = (reward_pb2.SegmentItem() for _ in range(5))
    for item in (other_size, boxless, none, two, hashless):
        item.CopyFrom(good)
    other_size.frames.width = 80
    boxless.prompt.ClearField("box")
    none.frames.count = 0
    two.frames.count, two.frames.height = 2, 60
    hashless.frames.sha256 = b""
    client.segment_image(frame, (0, 0, 500, 500))  # the server has the frame from here on
    with grpc.insecure_channel(server.address) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        items = reward_pb2.SegmentItems(items=[good, other_size, boxless, none, two, hashless, good])
        responses = list(stub.SegmentImage(iter([reward_pb2.SegmentRequest(items=items)])))
        results = [response.result for response in responses]
        kinds = [result.WhichOneof("result") for result in results]
        assert kinds == ["masks", *["error"] * 5, "masks"]  # one bad item does not fail the others
        assert "take 28800 bytes, those of the hash are 57600" in results[1].error.message
        assert {result.error.code for result in results[1:-1]} == {reward_pb2.ItemError.INVALID_ARGUMENT}
        chunk = reward_pb2.SegmentRequest(chunk=reward_pb2.MediaChunk(sha256=digest, data=b"1"))
        for call, request in (
            (stub.ScoreText, reward_pb2.ScoreTextRequest()),
            (lambda part: list(stub.SegmentVideo(iter([part]))), reward_pb2.SegmentRequest()),
            (lambda part: list(stub.SegmentVideo(iter([part]))), chunk),
            (lambda _: list(stub.SegmentVideo(iter([]))), None),
        ):
            with pytest.raises(grpc.RpcError) as failure:
                call(request)
            assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        too_many = reward_pb2.ScoreTextRequest(items=[reward_pb2.TextItem()] * 1025)
        with pytest.raises(grpc.RpcError, match="1025 items, the limit is 1024"):
            stub.ScoreText(too_many)


def test_health_reflection_and_description(server):
    with grpc.insecure_channel(server.address) as channel:
        checks: Any = health_pb2_grpc.HealthStub(channel)
        status = checks.Check(health_pb2.HealthCheckRequest(service="onethinker.rewards.v1.RewardService"))
        assert status.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reflected: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        reply = next(reflected.ServerReflectionInfo(iter([request])))
        names = {service.name for service in reply.list_services_response.service}
        assert {"onethinker.rewards.v1.RewardService", "grpc.health.v1.Health"} <= names
        description = reward_pb2_grpc.RewardServiceStub(channel).Describe(reward_pb2.DescribeRequest())
        assert (description.text_backend, description.mask_backend) == ("rouge", "grabcut")


def test_busy_socket_is_refused_and_the_server_there_goes_on(server, client):
    status, errors = refused("--address", server.address)
    assert status == 1
    assert errors.startswith(f"error: the address {server.address} is busy")
    assert errors.count("\n") == 1
    assert client.score_text(ITEMS[:1])
    with (
        pytest.raises(RewardUnavailable, match="is busy"),
        start_server(server.address.removeprefix("unix:"), server.log_path.with_name("other.log")),
    ):
        pass


def test_addresses_that_are_refused(tmp_path):
    plain_file = tmp_path / "file"
    plain_file.write_text("keep")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cases = {
            "0.0.0.0:50051": "needs TLS",
            "example.com:50051": "needs TLS",
            "[::]:50051": "needs TLS",
            "nonsense": "neither unix:/path nor host:port",
            "unix:": "needs a path",
            f"unix:{plain_file}": "not a socket",
            f"unix:{tmp_path}/{'x' * 120}.sock": "the limit is 107",
            f"unix:{tmp_path}/no/such/folder.sock": "No such file",
            f"127.0.0.1:{taken.getsockname()[1]}": "is busy",
        }
        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(lambda address: refused("--address", address), cases))
    for (address, wanted), (status, errors) in zip(cases.items(), results, strict=True):
        assert status == 1, address
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, errors
        assert wanted in lines[0], errors
        assert "Traceback" not in errors
    assert plain_file.read_text() == "keep"
    status, errors = refused("--address", f"unix:{tmp_path}/s", "--text-backend", "oracle")
    assert (status, errors) == (
        1,
        "error: unknown text backend 'oracle': one of rouge, minilm, polar, judge\n",
    )


def test_killed_server_gives_a_clear_error_and_its_socket_is_taken_over(tmp_path):
    with start_server(tmp_path / "s.sock", tmp_path / "log") as running:
        client = RewardClient(running.address, timeout=HANG_S)
        assert client.describe().process_id == running.process.pid
        running.process.kill()
        running.process.wait()
        client.timeout = 1.5
        with pytest.raises(RewardUnavailable, match=rf"{running.address} gave no answer within 1\.5 s: "):
            client.score_text(ITEMS[:1])
        assert (tmp_path / "s.sock").exists()  # left by the kill, until whoever started the server ends
    assert not list(tmp_path.glob("s.sock*"))
    with (
        start_server(tmp_path / "s.sock", tmp_path / "log") as running,
        RewardClient(running.address) as client,
    ):
        assert client.score_text(ITEMS[:1])


def test_a_restarted_server_is_found_again_within_the_deadline(tmp_path):
    with start_server(tmp_path / "s.sock", tmp_path / "log") as first:
        client = RewardClient(first.address, timeout=HANG_S)
        before = client.score_text(ITEMS)
        first.process.kill()
        first.process.wait()
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(client.score_text, ITEMS)
            with start_server(tmp_path / "s.sock", tmp_path / "log"):
                assert pending.result() == before


def test_garbage_and_a_hung_server_end_at_the_deadline(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "hung.sock"))
        silent.listen()
        with RewardClient(f"unix:{tmp_path}/hung.sock", timeout=1.0) as client:
            with pytest.raises(RewardUnavailable, match=r"hung\.sock"):
                client.score_text(ITEMS[:1])
            with pytest.raises(RewardUnavailable, match=r"was not ready in 0\.5 s"):
                client.wait_ready(0.5)


def test_a_signal_to_any_thread_ends_it(tmp_path):
    script = (
        "import logging, signal, sys, threading\n"
        "from onethinker_jax.rewards.server import __main__ as server\n"
        "serving = threading.Event()\n"
        "class Listen(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if record.getMessage().startswith('serving'): serving.set()\n"
        "logging.getLogger('onethinker_jax').addHandler(Listen())\n"
        "def end():\n"
        "    serving.wait()\n"
        "    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)\n"
        "threading.Thread(target=end).start()\n"
        "sys.exit(server.main(['--address', f'unix:{sys.argv[1]}']))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "s.sock")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert result.returncode == 0, result.stderr
    assert "stopped" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "s.sock").exists()


def test_the_server_ends_with_its_parent(tmp_path):
    script = (
        "import sys, threading\n"
        "from onethinker_jax.rewards.client.server_process import start_server\n"
        f"with start_server({str(tmp_path / 's.sock')!r}, {str(tmp_path / 'log')!r}) as running:\n"
        "    sys.stdout.write(f'{running.process.pid}\\n'); sys.stdout.flush(); threading.Event().wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert os.getsid(child) == child  # a session of its own: the terminal's Ctrl-C does not reach it
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not (tmp_path / "s.sock").exists())


def test_a_long_path_and_a_server_that_cannot_start(tmp_path):
    folder = tmp_path / ("long" * 30)
    with start_server(folder / "reward.sock", folder / "server.log") as running:
        assert len(running.address) < 107
        with RewardClient(running.address) as client:
            assert client.score_text(ITEMS[1:2]) == [0.0]
    assert not Path(running.address.removeprefix("unix:")).parent.exists()
    with (
        pytest.raises(RewardUnavailable, match="unknown mask backend 'sam9'"),
        start_server(tmp_path / "s.sock", tmp_path / "log", mask_backend="sam9"),
    ):
        pass
