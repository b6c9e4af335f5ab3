"""What clients receive: chat completions and their chunks, as OpenAI's API writes them."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onethinker_jax.data_pipeline.processor.token_bytes import TokenBytes
from onethinker_jax.serve.engine import Piece, TokenLogprob

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not."""


@dataclass(frozen=True)
class Reply:
    """The reply to one chat request: whole, or in chunks."""

    model: str
    opening: str  # what the chat template wrote of the answer, such as <think>
    tokens: TokenBytes
    logprobs: bool
    samples: int
    prompt_tokens: int
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: Mapping[int, Sequence[Piece]]) -> dict[str, Any]:
        """A completion of all answers' pieces, by sample."""
        choices = [
            {
                "index": sample,
                "message": {
                    "role": "assistant",
                    "content": self.opening + "".join(piece.text for piece in pieces[sample]),
                    "refusal": None,
                },
                "logprobs": self._logprobs(pieces[sample]),
                "finish_reason": pieces[sample][-1].finish_reason,
            }
            for sample in range(self.samples)
        ]
        usage = self._usage(sum(map(len, pieces.values())))
        return {**self._head("chat.completion"), "choices": choices, "usage": usage}

    def begun(self, sample: int) -> dict[str, Any]:
        """The first chunk of an answer."""
        return self._chunk(sample, {"role": "assistant", "content": self.opening}, None, None)

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """The chunk of a piece; None where there is nothing to be said."""
        logprobs = self._logprobs([piece])
        said = piece.text or (logprobs or {}).get("content")
        if not said and piece.finish_reason is None:
            return None
        delta = {"content": piece.text} if said else {}
        return self._chunk(piece.sample, delta, logprobs, piece.finish_reason)

    def counted(self, tokens: int) -> dict[str, Any]:
        """The last chunk where the usage was asked for; `tokens` were drawn of all answers."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage(tokens)}

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self.prompt_tokens + tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": tokens, "total_tokens": total}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, sample: int, delta: dict[str, str], logprobs: Any, reason: str | None) -> dict[str, Any]:
        choice = {"index": sample, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **usage}

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": [self._entry(piece.logprob) for piece in pieces if piece.logprob], "refusal": None}

    def _entry(self, one: TokenLogprob) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in one.top]
        return {**self._token(one.token, one.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self.tokens.named(token).decode("utf-8", "replace"),
            "logprob": max(logprob, LEAST_LOGPROB),
            "bytes": list(
                self.tokens.written(token)
            ),  # none of a special token, which is left out of the text
        }
