"""POLAR as a judge: how well an open-ended answer agrees with its reference (InternLM, arXiv 2507.05197).

Loads the published POLAR-1.8B and POLAR-7B directories without their remote code. Scores are unbounded; they
mean something relative to each other, for the same question and reference.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import torch

from onethinker_jax.rewards.backends.polar_model import PolarModel, load_polar
from onethinker_jax.rewards.backends.polar_tokenizer import PolarTokenizer
from onethinker_jax.rewards.backends.torch_device import torch_device
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, TextItem
from onethinker_jax.rewards.normalisation import normalise_scores

MAX_BATCH_TOKENS = 32_768
"""Tokens in one batch, padding included; a longer row is a batch by itself."""

log = logging.getLogger(__name__)


class Polar:
    """`TextBackend` by POLAR. Safe to call from several threads, which take turns.

    With a `normalisation` other than `raw`, a group is the items of one `score` call that share group,
    question and reference.
    """

    def __init__(
        self,
        model: PolarModel,
        tokenizer: PolarTokenizer,
        *,
        normalisation: str = "raw",
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._normalisation, self._max_batch_tokens = normalisation, max_batch_tokens
        self._turn = threading.Lock()

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Polar:
        """Loads the directory; raises BackendError for what is missing in it."""
        directory = settings.weights("polar")
        if not directory.is_dir():
            raise BackendError(f"the back end polar needs a directory, {directory} is a file")
        device, dtype = torch_device(settings)
        model = load_polar(directory, device, dtype)
        tokenizer = PolarTokenizer(directory, reward_token_id=model.config.reward_token_id)
        log.info("POLAR from %s on %s in %s: %s scores", directory, device, dtype, settings.normalisation)
        return cls(model, tokenizer, normalisation=settings.normalisation)

    def score(self, items: Sequence[TextItem]) -> list[float]:
        """One score an item, in order, normalised. Raises RuntimeError for a score that is not finite."""
        groups = [(item.group, item.question, item.reference) for item in items]
        return normalise_scores(self.raw_scores(items), groups, self._normalisation)

    def raw_scores(self, items: Sequence[TextItem]) -> list[float]:
        """The model's own score of each item, in order. Equal inputs are computed once."""
        rows = [tuple(self._tokenizer.encode(item)) for item in items]
        scores: dict[tuple[int, ...], float] = {}
        with self._turn:
            for batch in batches(sorted(set(rows), key=lambda row: (-len(row), row)), self._max_batch_tokens):
                scores.update(zip(batch, self._run(batch), strict=True))
        return [scores[row] for row in rows]

    def _run(self, batch: Sequence[tuple[int, ...]]) -> list[float]:
        device = self._model.v_head.weight.device
        longest = max(map(len, batch))
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)
        lengths = torch.tensor([len(row) for row in batch])
        for row, ids in zip(tokens, batch, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        real = torch.arange(longest) < lengths[:, None]
        with torch.no_grad():
            scores = self._model(tokens.to(device), real.to(device)).cpu()
        if not scores.isfinite().all():
            kind = self._model.model.norm.weight.dtype
            raise RuntimeError(f"POLAR gave a score that is not finite in {kind}: try another dtype")
        return scores.tolist()


def batches(rows: Sequence[tuple[int, ...]], max_tokens: int) -> Iterator[Sequence[tuple[int, ...]]]:
    """Cuts rows in order of falling length into batches of at most `max_tokens`, padding included."""
    start = 0
    while start < len(rows):
        count = max(1, max_tokens // len(rows[start]))
        yield rows[start : start + count]
        start += count
