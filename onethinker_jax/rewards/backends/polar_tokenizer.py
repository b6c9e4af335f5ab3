r"""POLAR's input: question, reference and answer -> token ids, by the directory's sentencepiece model.

    <s> question \n reference <|reward|> question \n answer [UNUSED_TOKEN_130]

The lengths follow POLAR's published client, which counts the <s> that its tokenizer puts before each text:
reference and answer keep their first 4,096 tokens, the question its last (16,384 − 4 − reference − answer) / 2.
What is cut is decoded again, so that the whole is tokenised as one text. A text that is not cut is taken as it
is, where the client sends it through its tokenizer and back.

No text can write the two marks, or any other of the tokenizer's special tokens: they are broken by a space.
An answer that ended itself with a reward token would otherwise be judged by its own choice of words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece

from onethinker_jax.rewards.backends.types import BackendError, TextItem

MAX_TOKENS = 16_384
MAX_RESPONSE_TOKENS = 4_096
REWARD_TOKEN_ID = 92_527
SEPARATOR = "<|reward|>"

_MARKS = 4  # the client's allowance: separator, reward token and two line ends


class PolarTokenizer:
    """Reads `tokenizer.model`, and `tokenizer_config.json` and `added_tokens.json` where they are.

    Raises BackendError for a missing or unreadable file, or a reward token that is not in the vocabulary.
    """

    def __init__(
        self,
        directory: Path,
        *,
        reward_token_id: int = REWARD_TOKEN_ID,
        max_tokens: int = MAX_TOKENS,
        max_response_tokens: int = MAX_RESPONSE_TOKENS,
    ) -> None:
        path = directory / "tokenizer.model"
        if not path.is_file():
            raise BackendError(f"POLAR's tokenizer is missing: there is no file {path}")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise BackendError(f"{path} is not a sentencepiece model: {error}") from error
        self._max_tokens, self._max_response_tokens = max_tokens, max_response_tokens
        self._reward_token_id = reward_token_id
        config = _read_json(directory / "tokenizer_config.json")
        special = {token["content"]: int(id) for id, token in config.get("added_tokens_decoder", {}).items()}
        special |= {text: int(id) for text, id in _read_json(directory / "added_tokens.json").items()}
        names = {id: text for text, id in special.items()}
        if reward_token_id not in names:
            if not 0 <= reward_token_id < self._pieces.vocab_size():
                size = self._pieces.vocab_size()
                raise BackendError(f"{path} has {size} tokens and no reward token {reward_token_id}")
            names[reward_token_id] = self._pieces.id_to_piece(reward_token_id)
        self._separator_id = special.get(SEPARATOR)
        self._marks = sorted({SEPARATOR, *names.values()}, key=len, reverse=True)
        self._bos = [self._pieces.bos_id()] if config.get("add_bos_token", True) else []

    def encode(self, item: TextItem) -> list[int]:
        """The token ids of one item; the last one is the reward token."""
        question, reference, answer = self.cut(item)
        first, second = f"{question}\n{reference}", f"{question}\n{answer}"
        if self._separator_id is None:  # a piece of the sentencepiece model, or plain text to it
            middle = self._ids(first + SEPARATOR + second)
        else:
            middle = [*self._ids(first), self._separator_id, *self._ids(second)]
        return [*self._bos, *middle, self._reward_token_id]

    def cut(self, item: TextItem) -> tuple[str, str, str]:
        """Question, reference and answer with the marks broken, cut to their lengths."""
        question, reference, answer = map(self._broken, (item.question, item.reference, item.answer))
        reference, reference_count = self._first(reference)
        answer, answer_count = self._first(answer)
        capacity = (self._max_tokens - _MARKS - reference_count - answer_count) // 2
        ids = self._ids(question)
        if len(self._bos) + len(ids) > capacity:
            question = self._pieces.decode(ids[-capacity:])
        return question, reference, answer

    def _first(self, text: str) -> tuple[str, int]:
        """The text's first tokens as a text, and how many they are, <s> counted."""
        ids = self._ids(text)
        count = len(self._bos) + len(ids)
        if count <= self._max_response_tokens:
            return text, count
        kept = ids[: self._max_response_tokens - len(self._bos)]
        return self._pieces.decode(kept), self._max_response_tokens

    def _ids(self, text: str) -> list[int]:
        return self._pieces.encode(text, out_type=int)

    def _broken(self, text: str) -> str:
        for mark in self._marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackendError(f"{path} is not JSON: {error}") from error
