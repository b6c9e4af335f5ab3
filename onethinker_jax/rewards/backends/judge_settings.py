"""Which verifier the text back end `judge` asks, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onethinker_jax.endpoint.settings import JudgeRequests

VerdictForm = Literal["verdict", "score"]


@dataclass(frozen=True, kw_only=True)
class VerifierSettings(JudgeRequests):
    """A verifier behind an OpenAI-compatible endpoint. Raises ValueError naming a setting that makes no sense."""

    form: VerdictForm = "verdict"
    """"verdict": right (1) or wrong (0), by yes or no, or by A, B (wrong) and C (no whole answer); "score": a number of
    0 to 1."""
    prompt: Path | None = None
    """File with the user's turn, {question}, {reference} and {answer} in it once each; by default our own."""
    cache: Path | None = None
    """File with the verifier's answers, found again by content; by default they are kept in memory."""
    timeout: float = 60.0
    """Seconds that one request may take."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("verdict", "score"):
            raise ValueError(f"form {self.form!r} must be verdict or score")
