"""Servers that are killed, that hang, that are told to end, that cannot begin."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onethinker_jax.rewards.client.client import (
    RewardClient,
    RewardUnavailable,
)
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc
from tests.rewards.server.trial_server import Gate, Process, item, trial_server, wait_for_batch
from tests.waiting import HANG_S, wait_until


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
