"""Prompts -> groups: G scored samples of each prompt, drawn with the trainer's own weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.loader import RecordStream
from onethinker_jax.data_pipeline.processor import Example
from onethinker_jax.data_pipeline.records import Record
from onethinker_jax.responses import Sampler, Samples, score_request
from onethinker_jax.rewards.batch import score_batch
from onethinker_jax.rewards.client import RewardClient
from onethinker_jax.rewards.score import Score, Variant, max_accuracy


@dataclass(frozen=True)
class Group:
    """G samples of one prompt.  ``position`` is the record's place in the stream: it finds the prompt again."""

    position: int
    record: Record
    prompt: Example
    samples: Samples
    scores: list[Score]

    @property
    def rewards(self) -> list[float]:
        """The total reward of each sample."""
        return [score.overall for score in self.scores]

    def accuracy(self, variant: Variant) -> float:
        """Mean accuracy over the samples, 1 being the most the task gives: what the group filter looks at."""
        most = max_accuracy(self.record.problem_type, self.record.data_type, variant)
        return float(np.mean([score.accuracy for score in self.scores])) / most

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of a group that waits for the next step."""
        return {
            "position": self.position,
            "tokens": [ids.tolist() for ids in self.samples.tokens],
            "logprobs": [values.tolist() for values in self.samples.logprobs],
            "ended": self.samples.ended,
            "scores": [asdict(score) for score in self.scores],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], stream: RecordStream, sampler: Sampler) -> "Group":
        """The group again; its record and prompt come from the stream and the processor."""
        record = stream.at(saved["position"])
        tokens = [np.array(ids, np.int32) for ids in saved["tokens"]]
        samples = Samples(
            tokens,
            [np.array(values, np.float32) for values in saved["logprobs"]],
            list(saved["ended"]),
            [sampler.processor.decode(ids) for ids in tokens],
        )
        scores = [Score(**score) for score in saved["scores"]]
        return cls(saved["position"], record, sampler.prompt(record), samples, scores)


def roll_out(
    params: nnx.State,
    stream: RecordStream,
    count: int,
    sampler: Sampler,
    client: RewardClient,
    *,
    seed: int,
    step: int,
    variant: Variant,
) -> list[Group]:
    """The next ``count`` records of the stream as scored groups.

    Raises PackingError naming a record too long to sample, RewardUnavailable when the service is gone.
    """
    positions = [stream.position + offset for offset in range(count)]
    records = [stream.next() for _ in positions]
    prompts = [sampler.prompt(record) for record in records]
    samples = sampler(params, prompts, seed=seed, step=step)
    scores = score_samples(records, samples, client, variant)
    return [Group(*parts) for parts in zip(positions, records, prompts, samples, scores, strict=True)]


def score_samples(
    records: Sequence[Record], samples: Sequence[Samples], client: RewardClient, variant: Variant
) -> list[list[Score]]:
    """The score of each record's every sample, all asked for in one batch."""
    requests = [
        score_request(record, text)
        for record, of_one in zip(records, samples, strict=True)
        for text in of_one.texts
    ]
    scores = iter(score_batch(requests, client, variant=variant))
    return [[next(scores) for _ in of_one.texts] for of_one in samples]
