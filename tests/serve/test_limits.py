"""What the server refuses, and in which words; the decoding thread is not needed, or never answers."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.serve.app import Parts, make_app
from onethinker_jax.serve.arguments import Limits
from onethinker_jax.serve.engine import Engine
from tests.data_pipeline.making import write_image
from tests.serve.asking import Reply, asked
from tests.serve.serving import Running, data_url, image, image_url, user, video, video_url

KEY = b"a-key-of-some-length"


@pytest.fixture(scope="module")
def silent(running_server: Running) -> Parts:
    """The parts of a server whose decoding thread does not run."""
    parts = running_server.parts
    engine = parts.engine
    return replace(parts, engine=Engine(engine.batch, engine._tokens, engine._mesh))


def with_limits(parts: Parts, **limits: Any) -> Any:
    arguments = parts.arguments
    return make_app(replace(parts, arguments=replace(arguments, limits=replace(arguments.limits, **limits))))


@pytest.fixture(scope="module")
def app(silent: Parts) -> Any:
    return make_app(silent)


def chat(app: Any, messages: Any = None, **fields: Any) -> Reply:
    return asked(app, body={"messages": messages if messages is not None else user("Hello?"), **fields})


@pytest.mark.parametrize(
    ("fields", "status", "field", "said"),
    [
        ({"temprature": 1}, 400, "temprature", "is no field that is known here; did you mean 'temperature'?"),
        ({"temperature": -1}, 400, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, 400, "temperature", "valid number"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"n": 9}, 400, "n", "9 answers, more than the 8 allowed"),
        ({"n": True}, 400, "n", "valid integer"),
        ({"max_tokens": 41}, 400, "max_tokens", "max_tokens: 41, more than the 40 allowed"),
        ({"max_completion_tokens": 10**30}, 400, "max_tokens", "more than the 40 allowed"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 400, None, "say different things"),
        ({"stop": ["a"] * 17}, 400, "stop", "at most 16"),
        ({"stop": [""]}, 400, "stop[0]", "at least 1 character"),
        ({"seed": 2**63}, 400, "seed", "less than"),
        ({"top_logprobs": 3}, 400, None, "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "less than or equal to 20"),
        ({"stream_options": {"include_usage": True}}, 400, None, "needs stream"),
        ({"response_format": {"type": "json_object"}}, 400, None, "response_format is not supported"),
        ({"tools": [{"type": "function"}]}, 400, None, "tools is not supported"),
        ({"logit_bias": {"5": 1}}, 400, None, "logit_bias is not supported"),
        ({"model": "gpt"}, 404, "model", "there is no model 'gpt'; there is 'tiny'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_fields_that_cannot_be(app: Any, fields: Any, status: int, field: str | None, said: str) -> None:
    got = chat(app, **fields)
    assert got.status == status
    assert said in got.error["message"] and got.error["param"] == field
    assert "\n" not in got.error["message"]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "messages: list should have at least 1 item"),
        ([{"role": "user", "content": ""}], "messages[0].content: is empty"),
        ([{"role": "tool", "content": "a"}], "messages[0].role: input should be 'system'"),
        ([*user("a"), {"role": "assistant", "content": "b"}], "the last message must be the user's"),
        ([{"role": "assistant", "content": "b"}, *user("a")], "must be the user's"),
        ([*user("a"), {"role": "system", "content": "b"}, *user("a")], "a system turn must be the first"),
        (user("a <|im_end|> b"), "holds the reserved token <|im_end|>"),
        (user("a \\<image> b"), "a backslash before <image>, which no prompt can hold"),
        (user({"type": "input_audio", "input_audio": {}}), "'input_audio' found using 'type' does not match"),
        (user("word " * 400), "tokens, more than the 256 allowed"),
        (user("a" * 10_000), "10000 characters, more than 256 tokens can hold"),
        ([{"role": "system", "content": [image(image_url())]}, *user("a")], "media belong to the user's"),
        (user(*[image(image_url())] * 4), "4 images, more than the 3 allowed"),
        (user(image("data:image/png;base64,????")), "is not base64"),
        (user(image("data:image/png,abc")), "must be data:TYPE;base64"),
        (user(image("data:image/png;base64,")), "is empty"),
        (user(image(data_url(b"no picture"))), "messages[0].content[0]: not a readable image"),
        (user(video(data_url(b"no film"))), "messages[0].content[0]: not a readable video"),
        (user(image(image_url(512, 512))), "512 x 512 pixels, more than the 65536 allowed"),
        (user(image(image_url(8, 4096))), "differ by more than 200 times"),
        (user(image("http://example.com/a.png")), "http(s) addresses are not fetched here"),
        (user(image("ftp://example.com/a.png")), "must be a data URL or a file:// URL"),
        (user(image("")), "must be a data URL"),
        (user(image("x" * 5000)), "an address of 5000 characters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_messages_that_cannot_be(app: Any, messages: Any, said: str) -> None:
    got = chat(app, messages)
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert said in got.error["message"] and "\n" not in got.error["message"]


def test_too_long_a_video_is_not_decoded(silent: Parts, app: Any, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(type(silent.maker.processor.media), "video", lambda *_, **__: pytest.fail("decoded"))
    got = chat(app, user(video(video_url(tmp_path, 9)), "What?"))
    assert got.status == 400 and "9.0 seconds, more than the 8 allowed" in got.error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10_000, b'{"messages": "\\ud800"}']
)
def test_bodies_that_are_no_request(app: Any, body: bytes) -> None:
    got = asked(app, body=body)
    assert got.status == 400 and got.error["message"]


def test_bodies_are_bounded_and_json(app: Any) -> None:
    """By what they say of themselves before a byte is read, and by what comes."""
    said = asked(app, headers={"content-length": str(2**20 + 1)}, parts=[])
    assert said.status == 413 and said.error["code"] == "too_large"
    assert asked(app, parts=[b" " * 2**19] * 3).status == 413
    assert asked(app, headers={"content-type": "text/plain"}).status == 415
    assert asked(app, headers={"content-encoding": "gzip"}).status == 415


def test_paths_and_methods(app: Any) -> None:
    for path, method, status in (
        ("/v1/completions", "POST", 404),
        ("/v1/chat/completions", "GET", 405),
        ("/v1/models", "POST", 405),
        ("/", "GET", 404),
    ):
        got = asked(app, path, method=method)
        assert got.status == status and got.error["message"]
    assert asked(app, "/v1/models/other", method="GET").status == 404
    assert (
        asked(app, "/tokenize", {"prompt": "a", "messages": user("a")}).error["message"]
        == "give prompt or messages"
    )
    assert asked(app, "/tokenize", {"prompt": "a" * 9000}).status == 400


def test_one_more_request_than_allowed(silent: Parts) -> None:
    app = with_limits(silent, requests=2)
    silent.metrics.under_way += 2
    try:
        got = chat(app)
    finally:
        silent.metrics.under_way -= 2
    assert (got.status, got.error["code"], got.headers["retry-after"]) == (429, "server_busy", "2")


@pytest.mark.parametrize("parts", [None, [b'{"messages": ']], ids=["no answer", "a body that never ends"])
def test_a_deadline(silent: Parts, parts: Any) -> None:
    """What waits for a slot is dropped, and what is read for ever is not."""
    app = with_limits(silent, seconds=0.2)
    got = asked(app, body={"messages": user("Hello?")}, parts=parts)
    assert (got.status, got.error["code"]) == (504, "deadline")
    assert silent.metrics.under_way == 0


def test_the_key(silent: Parts) -> None:
    app = make_app(replace(silent, api_key=KEY))
    wrong = ["", "Bearer", "Bearer wrong", f"Basic {KEY.decode()}", f"Bearer {KEY.decode()}x", "Bearer é"]
    for value in wrong:
        got = asked(app, "/v1/models", method="GET", headers={"authorization": value})
        assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
        assert KEY.decode() not in got.body.decode()
    for path in ("/metrics", "/tokenize", "/v1/chat/completions", "/nowhere"):
        assert asked(app, path).status == 401
    right = {"authorization": f"Bearer {KEY.decode()}"}
    assert asked(app, "/v1/models", method="GET", headers=right).status == 200
    assert asked(app, "/metrics", method="GET", headers=right).status == 200


def test_only_this_machine_is_named(silent: Parts) -> None:
    """A page that a browser shows cannot have its name point here and read answers."""
    app = make_app(silent)
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1:8000"):
        assert asked(app, "/v1/models", method="GET", headers={"host": host}).status == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert asked(app, "/v1/models", method="GET", headers={"host": host}).status == 200
    assert not any(
        name.startswith("access-control") for name in asked(app, "/v1/models", method="GET").headers
    )


OUTSIDE = (
    *(
        "/etc/passwd",
        "{folder}/../secret.png",
        "{folder}/%2e%2e/secret.png",
        "{folder}/link.png",
        "{folder}/sub",
    ),
    *("{folder}", "{folder}/none.png", "{folder}/pipe", "secret.png", "//other{folder}/in.png"),
    *("{folder}/in.png%00", "{folder}/in.png?a", "/proc/self/environ"),
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_files_outside_the_folder(silent: Parts, app: Any, name: str) -> None:
    """Whether they are there or not is not told."""
    folder = silent.arguments.media_folder
    assert folder is not None
    secret = folder.parent / "secret.png"
    if not secret.exists():
        write_image(secret)
        write_image(folder / "in.png")
        (folder / "link.png").symlink_to(secret)
        (folder / "sub").mkdir()
        os.mkfifo(folder / "pipe")
    got = chat(app, user(image("file://" + name.format(folder=folder)), "What?"))
    assert got.status == 400
    assert got.error["message"] == "messages[0].content[0]: no such file in the server's folder of media"


def test_health_says_when_the_device_fails(running_server: Running, silent: Parts, app: Any) -> None:
    assert asked(make_app(running_server.parts), "/health", method="GET").status == 200
    assert asked(app, "/health", method="GET").status == 503, "its thread does not run"


@pytest.mark.parametrize(
    "limits", [{"requests": 0}, {"seconds": 0}, {"images": -1}, {"pixels": float("inf")}]
)
def test_limits_that_cannot_be(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"limits.{next(iter(limits))}"):
        Limits(**limits)
