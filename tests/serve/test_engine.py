"""What happens when the device, a decoder or a client fails in the middle: the request is lost, never the server."""

import json
import logging
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from onethinker_jax.command_line import UsageError, parse
from onethinker_jax.serve.__main__ import main
from onethinker_jax.serve.arguments import Arguments
from tests.certificates import make_certificate
from tests.places import ROOT
from tests.serve.serving import Running, data_url, image, image_url, user
from tests.waiting import HANG_S, wait_until


def ask(running: Running, text: str = "Hello?", **settings: Any) -> Any:
    return running.client().chat.completions.create(model="tiny", messages=user(text), **settings)


def test_an_error_of_the_device(running_server: Running, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Requests under way get a 500 or an error as their last event; the next one is answered; then it is not well."""
    engine = running_server.parts.engine
    expected = ask(running_server, temperature=0).choices[0].message.content
    step, fails = engine.batch.step, [False, True, True, True]

    def failing() -> Any:
        if (engine.batch.running or engine.batch.waiting) and fails and fails.pop(0):
            raise RuntimeError("the device is out of memory")
        return step()

    monkeypatch.setattr(engine.batch, "step", failing)
    stream = ask(running_server, temperature=0, stream=True)
    with pytest.raises(openai.APIError, match="the device failed"):
        list(stream)
    assert engine.healthy and "out of memory" in caplog.text
    with pytest.raises(openai.InternalServerError, match="the device failed"):
        ask(running_server)
    assert engine.healthy
    with pytest.raises(openai.InternalServerError):
        ask(running_server)
    assert not engine.healthy
    assert httpx2.get(f"{running_server.root}/health").status_code == 503
    assert ask(running_server, temperature=0).choices[0].message.content == expected
    assert engine.healthy
    assert httpx2.get(f"{running_server.root}/health").status_code == 200


def test_an_error_of_ours_is_a_500(running_server: Running, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a bug, and a secret")

    with monkeypatch.context() as patch:
        patch.setattr(type(running_server.parts.maker), "_made", broken)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(running_server)
    assert "secret" not in str(caught.value) and "a bug" in caplog.text
    assert ask(running_server, max_tokens=2).usage.completion_tokens <= 2


def test_a_decoder_that_dies_is_replaced(running_server: Running) -> None:
    """Its process is killed, and another reads the picture of the request."""
    pool, client = running_server.parts.maker.processor.media.pool, running_server.client()  # pyright: ignore
    messages = user(image(image_url()), "What?")
    before = client.chat.completions.create(model="tiny", messages=messages, temperature=0)
    (worker,) = pool._workers
    os.kill(worker.process.pid, signal.SIGKILL)
    replaced = pool.replaced
    after = client.chat.completions.create(model="tiny", messages=messages, temperature=0)
    assert pool.replaced == replaced + 1
    assert after.choices == before.choices


def test_damaged_files_are_named(running_server: Running) -> None:
    client = running_server.client()
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].content\[1\]: not a readable image"):
        client.chat.completions.create(
            model="tiny", messages=user("a", image(data_url(b"\x89PNG\r\n\x1a\n??")))
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "70000"], "port 70000 is not in 0 to 65535"),
        (
            ["--host", "0.0.0.0"],
            "beyond this machine: it takes --api-key-file, --tls-certificate and --tls-key",
        ),
        (["--host", "example.com"], "beyond this machine"),
        (["--tls-key", "a.pem"], "tls_certificate and tls_key come together"),
        (["--limits.seconds", "0"], "limits.seconds 0.0 must be above 0"),
        (["--media-workers", "0"], "media are decoded apart"),
        (["--mesh.data", "3"], "prompt_slots 8 is not a multiple of the mesh's 3 parts"),
    ],
)
def test_flags_that_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", "\\(")) as caught:
        parse(Arguments, ["model", *words], prog="serve", description=None)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be(tmp_path: Path, model: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        logging.root, "handlers", []
    )  # the command adds one that writes to this test's stderr
    key = tmp_path / "key"
    key.write_text("short\n")
    (tmp_path / "a.pem").write_text("no certificate")
    tls = ["--tls-certificate", str(tmp_path / "a.pem"), "--tls-key", str(tmp_path / "a.pem")]
    for words, status, said in (
        (
            [str(model), "--api-key-file", str(key)],
            2,
            f"--api-key-file {key}: needs a key of 16 or more ASCII",
        ),
        ([str(model), "--api-key-file", str(tmp_path / "none")], 2, "none: No such file"),
        ([str(model), "--media-folder", str(key)], 2, f"--media-folder {key}: there is no such folder"),
        ([str(model), *tls], 2, f"--tls-certificate {tmp_path / 'a.pem'}, --tls-key"),
        ([str(tmp_path / "none")], 1, "none: no such directory"),
    ):
        assert main(words) == status
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and said in error


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "IP:127.0.0.1")


@pytest.fixture
def command(model: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[tuple[Any, str]]:
    """The command itself, beyond loopback, and its address."""
    (tmp_path / "key").write_text("the-key-of-this-server\n")
    words = [*("--host", "0.0.0.0", "--port", "0", "--prompt-slots", "2", "--prompt-buckets", "1")]
    words += [*("--prompt-tokens", "128", "--prompt-patches", "0", "--max-new-tokens", "3000")]
    words += ["--api-key-file", str(tmp_path / "key"), "--tls-certificate", str(certificate[0])]
    words += ["--tls-key", str(certificate[1])]
    process = subprocess.Popen(
        [sys.executable, "-m", "onethinker_jax.serve", str(model), *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " slots" in line:
            break
    assert lines and " slots" in lines[-1], lines
    port = lines[-1].partition("/v1")[0].rpartition(":")[2]
    yield process, f"https://127.0.0.1:{port}"
    if process.poll() is None:
        process.kill()
    process.wait(HANG_S)
    process.stderr.close()


def test_beyond_this_machine_and_a_graceful_end(
    command: tuple[Any, str], certificate: tuple[Path, Path]
) -> None:
    """With TLS and the key; after SIGTERM streams under way go on to their end, and nobody else is let in."""
    process, root = command
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    with httpx2.Client(verify=trust, timeout=HANG_S, base_url=root) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401
        key = {"Authorization": "Bearer the-key-of-this-server"}
        assert client.get("/v1/models", headers=key).json()["data"][0]["id"] == "model"
        body = {"messages": user("Long."), "stream": True, "n": 8, "temperature": 2, "seed": 1}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=key) as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if line)
            assert json.loads(first.removeprefix("data: "))["object"] == "chat.completion.chunk"
            process.send_signal(signal.SIGTERM)
            found = [line for line in lines if line]
        ends = [json.loads(line.removeprefix("data: "))["choices"] for line in found[:-1]]
        assert found[-1] == "data: [DONE]"
        assert sum(one["finish_reason"] is not None for choices in ends for one in choices) == 8
        assert process.wait(HANG_S) == 0
        with pytest.raises(httpx2.TransportError):
            client.get("/health")
    wait_until(lambda: process.poll() is not None)
