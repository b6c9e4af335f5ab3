"""Answers of a model on this process's devices: prompts read a bounded number ahead, sampled by continuous batching.

A video's prompt takes 75 MB of memory with 128 frames: memory holds those that are read ahead, not more for more
records. What a question is answered beside can move its last bits of rounding, and with them a token. So questions are
answered in groups, each from an empty sampler: a group's answers depend on nothing outside of it.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import jax
from flax import nnx

from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.in_order import in_order
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.answers.answerers import Answer, Question
from onethinker_jax.evaluate.answers.failures import ONCE, Failed, Tries
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.sampler_settings import PROMPTS_AHEAD

Prompt = Example | Failed


@contextmanager
def read_prompts(
    records: Sequence[Record],
    make: Callable[[Record], Example],
    *,
    workers: int,
    tries: Tries,
    ahead: int = 0,
) -> Iterator[Iterator[Prompt]]:
    """The records' prompts in order, made by threads ahead of demand; or why one cannot be made.

    `workers` processes decode media, and as many prompts (at least one) are made at once; memory keeps the greater
    number of these and `ahead`. With `tries.end`, and where `make` raises what concerns all, the error is raised at
    the record's turn.
    """
    threads = max(workers, 1)
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="prompts") as pool,
        closing(
            in_order(
                pool, lambda record: tries.of(record, lambda: make(record)), records, max(threads, ahead)
            )
        ) as made,
    ):
        yield (prompt for _, prompt in made)


@dataclass(frozen=True)
class LocalModel:
    """An `Answerer` of a sampler and its parameters."""

    sampler: Sampler
    params: nnx.State
    seed: int = 0
    together: int | None = None
    prompts_ahead: int = PROMPTS_AHEAD
    """Prompts of a group that the sampler chooses the largest from."""
    read_ahead: int = 0
    """Prompts that are read beyond those, of the next group too, while the sampler finishes one."""
    tries: Tries = ONCE
    settings: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, questions: Sequence[Question]) -> Generator[Sequence[Answer], None, None]:
        """Answers for all samples of each question; keyed by (seed, the question's number, the sample's).

        The questions are whole groups. Raises PackingError, MediaError or RecordError where a failure ends the work.
        """
        records = [question.record for question in questions]
        with (
            jax.set_mesh(self.sampler.mesh),
            read_prompts(
                records,
                self.sampler.prompt,
                workers=self.sampler.processor.media.workers,
                tries=self.tries,
                ahead=self.read_ahead,
            ) as prompts,
        ):
            for group in _groups(questions, self.together):
                yield from self._answer(group, islice(prompts, len(group)))

    def _answer(self, group: Sequence[Question], prompts: Iterator[Prompt]) -> Iterator[list[Answer]]:
        failed: list[Answer] = []

        def numbered() -> Iterator[Example | None]:
            """The prompt of every number up to the group's last; None for one that is not asked, or cannot be."""
            following = 0
            for question, prompt in zip(group, prompts, strict=True):
                for _ in range(question.number - following):
                    yield None
                following = question.number + 1
                if isinstance(prompt, Failed):
                    samples = range(self.sampler.settings.group_size)
                    failed.extend(Answer(question.number, sample, failed=prompt.reason) for sample in samples)
                yield None if isinstance(prompt, Failed) else prompt

        parts = self.sampler.parts(self.params, numbered(), seed=self.seed, step=0, ahead=self.prompts_ahead)
        for numbers, samples in parts:
            answers = [
                answer
                for number, one in zip(numbers, samples, strict=True)
                for answer in _answers(number, one)
            ]
            yield failed + answers
            failed.clear()
        if failed:
            yield failed


def _groups(questions: Sequence[Question], together: int | None) -> Iterator[Sequence[Question]]:
    """The questions of each group, in order."""
    if together is None:
        if questions:
            yield questions
        return
    group: list[Question] = []
    for question in questions:
        if group and question.number // together != group[0].number // together:
            yield group
            group = []
        group.append(question)
    if group:
        yield group


def _answers(number: int, samples: Samples) -> Iterator[Answer]:
    for sample, (text, tokens, ended) in enumerate(
        zip(samples.texts, samples.tokens, samples.ended, strict=True)
    ):
        yield Answer(number, sample, text, tokens=len(tokens), cut_off=not ended)
