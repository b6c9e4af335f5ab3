"""The flags of a judge."""

from dataclasses import dataclass
from pathlib import Path

from onethinker_jax.endpoint.settings import JudgeRequests


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(JudgeRequests):
    """A judge behind an OpenAI-compatible endpoint: reads what no rule reads, and scores captions."""

    cache: Path | None = None
    """File with the judge's answers, which several evaluations may share; by default judge.sqlite in the out folder."""
    timeout: float = 120.0
    """Seconds that one request may take."""
