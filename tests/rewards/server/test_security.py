"""A server beyond this machine: TLS, tokens, and whatever else arrives at its port."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.rewards.client.client import (
    RewardClient,
    RewardUnavailable,
    TextItem,
)
from onethinker_jax.rewards.client.security import TOKEN_VARIABLE, SecurityError
from tests.certificates import make_certificate
from tests.rewards.server.trial_server import Process, trial_server
from tests.waiting import HANG_S

TOKEN = "a-token-of-this-test-0123456789"
WHOLE = (0, 0, 1000, 1000)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of its own authority for the name reward.test, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "reward.test", "DNS:reward.test")


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
