"""The flags of a judge."""

from dataclasses import dataclass
from pathlib import Path

from onethinker_jax.endpoint.settings import EndpointSettings, RequestSettings, url_error


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(RequestSettings):
    """A judge behind an OpenAI-compatible endpoint: reads what no rule reads, and scores captions."""

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
    """How often a question is asked whose answer cannot be read."""
    cache: Path | None = None
    """File with the judge's answers, which several evaluations may share; by default judge.sqlite in the out folder."""
    timeout: float = 120.0
    """Seconds that one request may take."""
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
