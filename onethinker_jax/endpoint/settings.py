"""Which endpoint is asked, and how."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """How an endpoint is asked. Raises ValueError naming a setting that makes no sense."""

    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key; a server without keys needs none."""
    extra_body: str = ""
    """JSON object put into every request, for what the endpoint has beyond the API."""
    concurrency: int = 16
    """Requests under way at once, at most."""
    requests_per_minute: float = float("inf")
    """Requests begun in a minute, at most."""
    tokens_per_minute: float = float("inf")
    """The most tokens a minute, of prompts and answers. Until an answer's tokens are known the mean counts."""
    timeout: float = 300.0
    """Seconds that one request may take, from its first byte to the answer's last."""
    retries: int = 6
    """Further tries of a request that fails by the network, the server or a limit."""
    backoff: float = 1.0
    """Seconds before the first further try, doubled each time; never less than a server's Retry-After."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")
        for name in ("retries", "backoff"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more")
        if not isinstance(self.extra(), dict):
            raise ValueError(f"extra_body {self.extra_body!r} must be a JSON object")

    def extra(self) -> Any:
        """`extra_body` read."""
        try:
            return json.loads(self.extra_body or "{}")
        except ValueError as error:
            raise ValueError(f"extra_body {self.extra_body!r} is not JSON ({error})") from None

    def endpoint(self, **more: Any) -> "EndpointSettings":
        """The endpoint that is asked in this way; `more`: what `EndpointSettings` has beyond, or another value."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(RequestSettings)}
        return EndpointSettings(**{**own, **more})


@dataclass(frozen=True, kw_only=True)
class EndpointSettings(RequestSettings):
    """Which endpoint, what is asked of it, and how. Raises ValueError naming a setting that makes no sense."""

    base_url: str
    """The address of an OpenAI-compatible API: https://host/v1."""
    model: str
    """Its name at the endpoint."""
    temperature: float = 1.0
    """The temperature of the samples; 0: greedy."""
    top_p: float = 1.0
    """The fewest likeliest tokens whose probabilities sum to this are kept; 1: all."""
    max_tokens: int = 4096
    """The most tokens of one answer; 0: the limit is not sent, or goes by another name in extra_body."""

    def __post_init__(self) -> None:
        if error := url_error(self.base_url):
            raise ValueError(f"base_url {error}")
        if not self.model:
            raise ValueError("model must not be empty")
        super().__post_init__()
        for name in ("temperature", "max_tokens"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} must be in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class JudgeRequests(RequestSettings):
    """A judge behind an endpoint, and how it is asked: what the judges of evaluation and of rewards have in common.

    Raises ValueError naming a setting that makes no sense.
    """

    url: str = ""
    """The address of its API: https://host/v1; without one nothing is judged."""
    model: str = ""
    """Its name at the endpoint."""
    temperature: float = 0.0
    """The temperature of its first answer; where that cannot be read it is asked again, warmer by 0.5 each time."""
    top_p: float = 1.0
    """The fewest likeliest tokens whose probabilities sum to this are kept; 1: all."""
    max_tokens: int = 2048
    """The most tokens of one answer, its reasoning included; 0: the limit is not sent."""
    tries: int = 3
    """How often it is asked for an answer that can be read."""
    retries: int = 4
    """Further tries of a request that fails by the network, the server or a limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.url) != bool(self.model):
            raise ValueError("url and model of a judge come together")
        if self.tries < 1:
            raise ValueError(f"tries {self.tries} must be at least 1")
        if self.url:
            if error := url_error(self.url):
                raise ValueError(f"url {error}")
            self.as_endpoint()

    def as_endpoint(self) -> EndpointSettings:
        """The endpoint. Raises ValueError naming a setting that makes no sense."""
        return self.endpoint(
            base_url=self.url,
            model=self.model,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
        )


def url_error(url: str) -> str | None:
    """What is wrong with the address of an API, None if nothing."""
    try:
        address = urlsplit(url)
        found = address.scheme in ("http", "https") and address.hostname
    except ValueError:
        found = None
    return None if found else f"{url!r} must look like https://host/v1"
