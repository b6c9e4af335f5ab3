"""Which verifier the text back end `judge` asks, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onethinker_jax.endpoint.settings import EndpointSettings, RequestSettings, url_error

VerdictForm = Literal["verdict", "score"]


@dataclass(frozen=True, kw_only=True)
class VerifierSettings(RequestSettings):
    """A verifier behind an OpenAI-compatible endpoint. Raises ValueError naming a setting that makes no sense."""

    url: str = ""
    """The address of its API: https://host/v1."""
    model: str = ""
    """Its name at the endpoint."""
    form: VerdictForm = "verdict"
    """"verdict": right (1) or wrong (0), by yes or no, or by A, B (wrong) and C (no whole answer); "score": a number of
    0 to 1."""
    prompt: Path | None = None
    """File with the user's turn, {question}, {reference} and {answer} in it once each; by default our own."""
    cache: Path | None = None
    """File with the verifier's answers, found again by content; by default they are kept in memory."""
    temperature: float = 0.0
    """The temperature of its first answer; where that cannot be read it is asked again, warmer by 0.5 each time."""
    top_p: float = 1.0
    """The fewest likeliest tokens whose probabilities sum to this are kept; 1: all."""
    max_tokens: int = 2048
    """The most tokens of one answer, its reasoning included; 0: the limit is not sent."""
    tries: int = 3
    """How often an item is asked about whose answer cannot be read."""
    timeout: float = 60.0
    """Seconds that one request may take."""
    retries: int = 4
    """Further tries of a request that fails by the network, the server or a limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.url) != bool(self.model):
            raise ValueError("url and model of a judge come together")
        if self.form not in ("verdict", "score"):
            raise ValueError(f"form {self.form!r} must be verdict or score")
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
