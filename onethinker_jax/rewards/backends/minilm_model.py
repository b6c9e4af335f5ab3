"""BERT as a sentence encoder in numpy: token ids -> the mean of the last hidden states of each text (arXiv 1810.04805).

No text is padded: the tokens of all texts stand one behind the other in the dense layers, and texts of one length
attend together. So a vector depends on its own text alone, up to the rounding of a product of another size.

Letters: N tokens of all texts, B texts of one length T, H heads, D head size, W width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import erf

from onethinker_jax.model.safetensors_files import WeightsError, find_tensors
from onethinker_jax.rewards.backends.types import BackendError

MAX_SCORES = 2**24
"""Attention scores in memory at once, 64 MB of float32; more only where a single text needs them."""
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
_UNUSED = ("pooler.", "embeddings.position_ids")
_NORM = ("weight", "bias")


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object. Raises BackendError naming a file that is missing or holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackendError(f"the sentence encoder is incomplete: there is no file {file}") from None
    except (OSError, ValueError) as error:
        raise BackendError(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BackendError(f"{file} must hold a JSON object")
    return value


@dataclass(frozen=True)
class BertConfig:
    """The sizes in a directory's `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def read(cls, directory: Path) -> BertConfig:
        """Raises BackendError for a missing file or size, and naming another architecture."""
        file = directory / "config.json"
        values = read_object(file)
        for name, wanted in _FIXED.items():
            default = None if name == "model_type" else wanted
            if (found := values.get(name, default)) != wanted:
                raise BackendError(f"{file} describes {name} {found!r}: only {wanted!r} is computed here")
        try:
            return cls(**{name: values[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise BackendError(f"{file} lacks {error.args[0]}") from None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the network needs, by its published name."""
        wide, inner = self.hidden_size, self.intermediate_size
        found: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, wide),
            "embeddings.position_embeddings.weight": (self.max_position_embeddings, wide),
            "embeddings.token_type_embeddings.weight": (self.type_vocab_size, wide),
        }
        found |= {f"embeddings.LayerNorm.{name}": (wide,) for name in _NORM}
        square = (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        )
        sizes = dict.fromkeys(square, (wide, wide))
        sizes |= {"intermediate.dense": (inner, wide), "output.dense": (wide, inner)}
        for layer in range(self.num_hidden_layers):
            prefix = f"encoder.layer.{layer}."
            for name, size in sizes.items():
                found |= {f"{prefix}{name}.weight": size, f"{prefix}{name}.bias": size[:1]}
            for name in ("attention.output", "output"):
                found |= {f"{prefix}{name}.LayerNorm.{kind}": (wide,) for kind in _NORM}
        return found


class Bert:
    """The network. Its weights are float32, whatever the files hold."""

    def __init__(self, config: BertConfig, weights: dict[str, np.ndarray]) -> None:
        """`weights` has the names and shapes of `config.shapes()`."""
        self.config = config
        self._word = weights["embeddings.word_embeddings.weight"]
        # All tokens are of the first type, so that its vector is a part of each position's.
        self._position = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _pair(weights, "embeddings.LayerNorm")
        self._layers = [
            _Layer(weights, f"encoder.layer.{n}.", config) for n in range(config.num_hidden_layers)
        ]

    @classmethod
    def load(cls, directory: Path) -> Bert:
        """Raises BackendError for files or tensors that do not fit."""
        config = BertConfig.read(directory)
        try:
            stored = find_tensors(directory)
        except (WeightsError, FileNotFoundError) as error:
            raise BackendError(f"the sentence encoder's weights cannot be read: {error}") from None
        shapes = config.shapes()
        for name, shape in shapes.items():
            if name not in stored:
                raise BackendError(f"{directory}: its weights lack {name}, which its config.json asks for")
            if stored[name].shape != shape:
                raise BackendError(f"{directory}: {name} is {stored[name].shape}, by its config.json {shape}")
        others = [name for name in stored if name not in shapes and not name.startswith(_UNUSED)]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise BackendError(f"{directory}: its weights hold {others[0]}{more}, which BERT has no use for")
        return cls(config, {name: stored[name].read().astype(np.float32) for name in shapes})

    def mean_states(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, none empty, in order of length -> float32 [texts, W]."""
        lengths = np.array([len(row) for row in rows])
        ids = np.concatenate([np.asarray(row, np.int64) for row in rows])
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(len(ids)) - np.repeat(starts, lengths)
        x = _normalised(self._word[ids] + self._position[positions], self._norm, self.config.layer_norm_eps)
        spans = list(_spans(rows, self.config.num_attention_heads))
        for layer in self._layers:
            x = layer(x, spans)
        return np.add.reduceat(x, starts, axis=0) / lengths[:, None].astype(np.float32)


class _Layer:
    """Attention and feed-forward, each added to its input and normalised after."""

    def __init__(self, weights: dict[str, np.ndarray], prefix: str, config: BertConfig) -> None:
        parts = [_pair(weights, f"{prefix}attention.self.{name}") for name in ("query", "key", "value")]
        self._qkv = (
            np.ascontiguousarray(np.concatenate([weight for weight, _ in parts]).T),
            np.concatenate([bias for _, bias in parts]),
        )
        self._out, self._up, self._down = (
            (np.ascontiguousarray(weight.T), bias)
            for weight, bias in (
                _pair(weights, f"{prefix}{name}")
                for name in ("attention.output.dense", "intermediate.dense", "output.dense")
            )
        )
        self._norms = [_pair(weights, f"{prefix}{name}.LayerNorm") for name in ("attention.output", "output")]
        self._heads, self._eps = config.num_attention_heads, config.layer_norm_eps

    def __call__(self, x: np.ndarray, spans: Sequence[tuple[slice, int]]) -> np.ndarray:
        """[N, W] in and out."""
        x = _normalised(x + _dense(self._attention(x, spans), self._out), self._norms[0], self._eps)
        inner = _gelu(_dense(x, self._up))
        return _normalised(x + _dense(inner, self._down), self._norms[1], self._eps)

    def _attention(self, x: np.ndarray, spans: Sequence[tuple[slice, int]]) -> np.ndarray:
        qkv = _dense(x, self._qkv)
        mixed = np.empty_like(x)
        size = x.shape[1] // self._heads
        for tokens, length in spans:
            # [3, B, H, T, D]
            q, k, v = qkv[tokens].reshape(-1, length, 3, self._heads, size).transpose(2, 0, 3, 1, 4)
            scores = (q * np.float32(size**-0.5)) @ k.swapaxes(-1, -2)
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(-1, keepdims=True)
            mixed[tokens] = (scores @ v).transpose(0, 2, 1, 3).reshape(-1, x.shape[1])
        return mixed


def _spans(rows: Sequence[Sequence[int]], heads: int) -> Iterator[tuple[slice, int]]:
    """The tokens of texts of one length, and that length; no more texts than `MAX_SCORES` allows."""
    start = 0
    for length, group in groupby(map(len, rows)):
        left, most = sum(1 for _ in group), max(1, MAX_SCORES // (heads * length**2))
        while left:
            count = min(left, most)
            yield slice(start, start + count * length), length
            start, left = start + count * length, left - count


def _pair(weights: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _dense(x: np.ndarray, layer: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """[N, inputs] -> [N, outputs]; the weight is [inputs, outputs]."""
    product = x @ layer[0]
    product += layer[1]
    return product


def _normalised(x: np.ndarray, layer: tuple[np.ndarray, np.ndarray], eps: float) -> np.ndarray:
    """LayerNorm over the last axis, in place."""
    x -= x.mean(-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(eps))
    x *= layer[0]
    x += layer[1]
    return x


def _gelu(x: np.ndarray) -> np.ndarray:
    """X · Φ(x) by the error function, in place."""
    gate = erf(x * np.float32(0.5**0.5))
    gate += 1
    gate *= 0.5
    x *= gate
    return x
