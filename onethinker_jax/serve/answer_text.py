"""The text of an answer while its tokens come: whole characters only, and nothing of a stop string."""

import codecs
from collections.abc import Sequence

from onethinker_jax.data_pipeline.processor.token_bytes import TokenBytes


class AnswerText:
    """Takes tokens, gives text. All that it gives, put together, is the answer's text up to its stop string.

    That is the one which a token completes first; of several that one token completes, the one that begins first.

    What may be the beginning of a stop string, or of a character, is held back until it is known.
    """

    def __init__(self, tokens: TokenBytes, stops: Sequence[str] = ()):
        self.stopped = False
        """Whether a stop string was found; nothing comes after it."""
        self._tokens, self._stops = tokens, stops
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def add(self, token: int) -> str:
        """The text that is certain now and was not before."""
        return self._given(self._characters.decode(self._tokens.written(token)))

    def end(self) -> str:
        """What is held back when no more tokens come. Bytes that form no character become U+FFFD."""
        text = self._given(self._characters.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return text

    def _given(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            text, self._held, self.stopped = self._held[: min(found)], "", True
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of the text that the stop string begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
