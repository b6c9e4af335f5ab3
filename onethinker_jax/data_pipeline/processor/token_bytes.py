"""The bytes that each token writes: what a text is put together from while its tokens come one by one.

`ChatTokenizer.decode` gives the same text for a whole answer. Of one token alone it cannot: a character may be spread
over several tokens, whose bytes are then no text.
"""

from functools import lru_cache

from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer, ProcessorError


class TokenBytes:
    """The bytes of a byte-level tokenizer's tokens."""

    def __init__(self, tokenizer: ChatTokenizer):
        """Raises ProcessorError where the tokenizer is not byte-level."""
        if tokenizer.decoder_type != "ByteLevel":
            raise ProcessorError(
                f"{tokenizer.path}: its tokens are decoded by {tokenizer.decoder_type}, not as bytes"
            )
        self._tokenizer, self._added = tokenizer, tokenizer.added_tokens()

    def written(self, token: int) -> bytes:
        """What a token adds to an answer's text; nothing where it is special, such as <|im_end|>, or unknown."""
        _, special = self._added.get(token, ("", False))
        return b"" if special else self.named(token)

    def named(self, token: int) -> bytes:
        """The same, special tokens by their names."""
        if token in self._added:
            return self._added[token][0].encode()
        name = self._tokenizer.token_name(token) or ""
        letters = _letters()
        if all(letter in letters for letter in name):
            return bytes(letters[letter] for letter in name)
        return name.encode()


@lru_cache
def _letters() -> dict[str, int]:
    """Letter -> byte, as GPT-2 writes bytes in a vocabulary.

    Printable ones stand for themselves, the others for U+0100, U+0101 and so on, in order.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + number): byte for number, byte in enumerate(others)}
