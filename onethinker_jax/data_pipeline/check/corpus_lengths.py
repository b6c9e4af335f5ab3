"""How long a corpus' records are for a model, by task, and the settings of training that they fit."""

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.table import Table

from onethinker_jax.data_pipeline.processor.processor import Lengths, Processor
from onethinker_jax.data_pipeline.processor.record_lengths import Limit
from onethinker_jax.data_pipeline.records.record import Record, task_of


class CorpusLengths:
    """Tokens and patches of records, eight bytes a record: of conversations that SFT trains on, and of prompts."""

    def __init__(self, processor: Processor, *, max_new_tokens: int):
        """`max_new_tokens`: the most tokens of an answer; the rows of RL have capacity for them beside a prompt."""
        self._processor, self._answer = processor, max_new_tokens
        self._found: dict[tuple[bool, str], array] = {}  # (conversation, task) -> tokens, patches, tokens, …

    def of(self, record: Record) -> Lengths:
        """A record's: of its whole conversation if it has messages, else of its prompt.

        Raises MediaError or RecordError. Thread-safe.
        """
        return self._processor.lengths(record, training=record.messages is not None)

    def add(self, record: Record, lengths: Lengths) -> None:
        """Counts a record."""
        key = record.messages is not None, str(task_of(record))
        self._found.setdefault(key, array("I")).extend((lengths.tokens, lengths.patches))

    def table(self) -> Table:
        """A row a task: smallest, median, 95% and largest of tokens and of patches."""
        table = Table(
            "task", "of", "records", *(f"{what} {name}" for what in ("tokens", "patches") for name in _NAMES)
        )
        for column in table.columns[2:]:
            column.justify = "right"
        for conversations, task, lengths in self._by_task():
            cells = [f"{value:,.0f}" for side in (0, 1) for value in _spread(lengths[:, side]).values()]
            table.add_row(task, "messages" if conversations else "prompts", f"{len(lengths):,}", *cells)
        return table

    def to_json(self) -> list[dict[str, Any]]:
        """The table's rows."""
        return [
            {
                "task": task,
                "of": "messages" if conversations else "prompts",
                "records": len(lengths),
                **{what: _spread(lengths[:, side]) for side, what in enumerate(("tokens", "patches"))},
            }
            for conversations, task, lengths in self._by_task()
        ]

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line a record, as `plan --lengths` reads them; a prompt's responses are not known."""
        for conversations, _, lengths in self._by_task():
            more = {} if conversations else {"responses": []}
            for tokens, patches in lengths.tolist():
                yield {"tokens": tokens, "patches": patches, **more}

    def settings(self) -> dict[str, str]:
        """Flags of `train` that all records fit, ready to be pasted, by what they are for."""
        found = {}
        for conversations in (True, False):
            parts = [lengths for of, _, lengths in self._by_task() if of is conversations]
            if not parts:
                continue
            lengths = np.concatenate(parts)
            for purpose, limits in _limits(self._answer).items():
                if (purpose == "SFT") is conversations:
                    flags = [f"{limit.flag} {limit.value(lengths)}" for limit in limits]
                    found[purpose] = " ".join(
                        flags + ([f"--rl.rollout.max-new-tokens {self._answer}"] * (purpose == "RL"))
                    )
        return found

    def _by_task(self) -> Iterator[tuple[bool, str, np.ndarray]]:
        for (conversations, task), values in sorted(self._found.items()):
            yield conversations, task, np.array(values, np.int64).reshape(-1, 2)


_NAMES = ("min", "median", "95%", "max")


def _spread(values: np.ndarray) -> dict[str, float]:
    return dict(zip(_NAMES, np.quantile(values, (0, 0.5, 0.95, 1)).tolist(), strict=True))


def _limits(answer: int) -> dict[str, list[Limit]]:
    return {
        "SFT": [Limit("--sft.batch.tokens", "tokens", 0), Limit("--sft.batch.patches", "patches", 0)],
        "RL": [
            Limit("--rl.rollout.prompt-tokens", "tokens", 0),
            Limit("--rl.rollout.prompt-patches", "patches", 0),
            Limit("--rl.batch.tokens", "tokens", 0, beside=answer),
            Limit("--rl.batch.patches", "patches", 0),
        ],
        "held-out answers": [
            Limit("--evaluation.sampler.prompt-tokens", "tokens", 0),
            Limit("--evaluation.sampler.prompt-patches", "patches", 0),
        ],
    }
