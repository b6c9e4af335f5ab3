"""Malformed requests of every kind, by a seed: bytes that are no request, and requests in which something is off."""

import base64
import copy
import json
import random
from collections.abc import Callable
from typing import Any

from tests.serve.serving import data_url, image, image_url, user, video

Wire = tuple[str, str, dict[str, str], bytes]  # method, path, headers, body

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1e308, -1e308, 2**63, -(2**70), 0.5, "", " ", "\0", "\ud83d", "é" * 500),
    *([], {}, [[]], [None], {"": None}, {"url": "x"}, "data:", "data:;base64,", "file:///etc/passwd"),
    *(
        "http://127.0.0.1/",
        "<image>",
        "\\<video>",
        "<|im_start|>",
        "<think>",
        "\u202e",
        [{}] * 20,
        "a" * 5000,
    ),
]
PATHS = (
    *["/v1/chat/completions"] * 5,
    *("/tokenize", "/v1/models", "/v1/completions", "/health", "/metrics", "/", "/../x", "/%00"),
)
METHODS = (*["POST"] * 5, "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")
PICTURE = base64.b64decode(image_url(32, 32).partition(",")[2])


def malformed(seed: int, film: bytes) -> Wire:
    """One request; a few of them are fine by chance."""
    rng = random.Random(seed)
    kinds: list[Callable[[random.Random, bytes], Wire]] = [
        _bytes,
        _cut,
        _changed,
        _changed,
        _changed,
        _media,
        _framing,
    ]
    return rng.choice(kinds)(rng, film)


def _valid(rng: random.Random) -> dict[str, Any]:
    parts: list[Any] = [rng.choice(["Hello?", "What is this?", "\u2713 1 + 1"])]
    if rng.random() < 0.3:
        parts.append(image(image_url(32, 32)))
    request: dict[str, Any] = {"messages": user(*parts), "max_tokens": rng.randint(1, 3)}
    others = {"n": 2, "temperature": 0.5, "stop": ["x"], "seed": 3, "stream": True, "model": "tiny"}
    request |= {name: value for name, value in others.items() if rng.random() < 0.3}
    return request


def _post(body: bytes, **headers: str) -> Wire:
    return "POST", "/v1/chat/completions", {"content-type": "application/json", **headers}, body


def _bytes(rng: random.Random, _: bytes) -> Wire:
    return _post(
        rng.choice([rng.randbytes(rng.randint(0, 200)), b"[" * rng.randint(1, 5000), b'{"messages":' * 50])
    )


def _cut(rng: random.Random, _: bytes) -> Wire:
    body = json.dumps(_valid(rng)).encode()
    at = rng.randrange(len(body))
    return _post(rng.choice([body[:at], body[at:], body[:at] + rng.randbytes(3) + body[at + 3 :]]))


def _changed(rng: random.Random, _: bytes) -> Wire:
    """A valid request with up to three of its values, keys or items replaced."""
    request: Any = _valid(rng)
    for _time in range(rng.randint(1, 3)):
        places = list(_places(request))
        holder, key = rng.choice(places)
        how = rng.random()
        if how < 0.7:
            holder[key] = copy.deepcopy(rng.choice(JUNK))
        elif isinstance(holder, dict):
            holder[rng.choice(["x", "", "type", "role", "url", "tools", "\0"])] = holder.pop(key)
        else:
            holder.extend(copy.deepcopy(rng.choice(JUNK)) for _ in range(rng.randint(1, 5)))
    path = rng.choice(["/v1/chat/completions"] * 4 + ["/tokenize"])
    return "POST", path, {"content-type": "application/json"}, json.dumps(request).encode()


def _places(value: Any) -> Any:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _media(rng: random.Random, film: bytes) -> Wire:
    """Files with bytes that are other ones, missing or too many."""
    is_film = rng.random() < 0.3
    content = bytearray(film if is_film else PICTURE)
    for _time in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    content = content[: rng.randint(0, len(content))] if rng.random() < 0.4 else content
    url = data_url(bytes(content) + rng.randbytes(rng.choice([0, 0, 9])))
    part = video(url) if is_film or rng.random() < 0.1 else image(url)
    return _post(json.dumps({"messages": user(part, "?"), "max_tokens": 1}).encode())


def _framing(rng: random.Random, _: bytes) -> Wire:
    body = json.dumps(_valid(rng)).encode()
    headers = rng.choice(
        [
            {
                "content-type": rng.choice(
                    ["", "text/plain", "application/json; charset=x", "multipart/form-data"]
                )
            },
            {"content-type": "application/json", "content-encoding": rng.choice(["gzip", "br", "x"])},
            {"content-type": "application/json", "host": rng.choice(["a.example", "[", "", "localhost:x"])},
            {
                "content-type": "application/json",
                "authorization": rng.choice(["Bearer", "x" * 3000, "Basic Og=="]),
            },
            {"content-type": "application/json", "x": "y" * rng.choice([10, 5000])},
        ]
    )
    return rng.choice(METHODS), rng.choice(PATHS), headers, body
