"""Requests that join a batch while others decode: the samples of each are those that its prompt has alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model.generation.continuous_batching import ContinuousBatching
from onethinker_jax.model.generation.running_batch import NewTokens, RunningBatch, SampleRequest
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.train.log.compilation_watch import count_compilations
from tests.model import tiny
from tests.model.generation.making import prompts_of, shape_of

EXAMPLES = [tiny.example(kind, 7) for kind in tiny.KINDS]
NEW = 20
BUCKETS = ((48, 0), (48, 48), (tiny.TOKENS, 0), (tiny.TOKENS, tiny.PATCHES))
ENDS = (3, 40, 77)
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.7, "seed": 3, "top_p": 0.8},
    {"temperature": 1.3, "seed": 2**32 - 1, "top_k": 5},
    {"temperature": 2.0, "seed": 11, "min_p": 0.3, "top_p": 0.99},
    {"temperature": 1.0, "seed": 4, "samples": 5},
]


@pytest.fixture(scope="module")
def model(pairs) -> Any:
    return pairs("tied").model


@pytest.fixture(scope="module")
def batch(model) -> RunningBatch[tiny.Sample]:
    made = batch_of(model)
    made.warm_up()
    return made


def batch_of(model: Any, **changes: Any) -> RunningBatch[tiny.Sample]:
    def stack(
        chosen: Sequence[tiny.Sample], tokens: int, patches: int
    ) -> tuple[ModelInputs, np.ndarray, np.ndarray]:
        stacked = prompts_of(chosen, model.config.vision.grid_side).stack(range(len(chosen)), tokens, patches)
        inputs, lengths, following = stacked
        return inputs if patches else replace(inputs, vision=None), lengths, following

    graphdef, params = nnx.split(model)
    shape = shape_of(
        **{
            "prompt_slots": 3,
            "sample_slots": 1,
            "prefill_rows": 1,
            "decode_block": 4,
            "prompt_buckets": BUCKETS,
        }
        | changes
    )
    return RunningBatch(
        graphdef, params, SamplingConfig(NEW, ENDS, suppressed_ids=tiny.SUPPRESSED), shape, stack
    )


def request(example: tiny.Sample, **settings: Any) -> SampleRequest[tiny.Sample]:
    wanted: dict[str, Any] = {"max_new_tokens": NEW, **settings}
    return SampleRequest(example, len(example.tokens), len(example.patches), **wanted)


@pytest.fixture(scope="module")
def alone(model):
    """Settings and an example -> the tokens and log-probabilities that `ContinuousBatching` draws, by sample."""
    graphdef, params = nnx.split(model)
    made: dict[Any, ContinuousBatching] = {}

    def samples(
        example: tiny.Sample, settings: dict[str, Any]
    ) -> dict[int, tuple[list[int], np.ndarray, str]]:
        own: dict[str, Any] = {"temperature": 0.0, **settings}
        own = {name: value for name, value in own.items() if name not in ("seed", "samples")}
        config = SamplingConfig(NEW, ENDS, **own, suppressed_ids=tiny.SUPPRESSED)
        if config not in made:
            shape = shape_of(prompt_slots=1, sample_slots=5, prefill_rows=1)
            made[config] = ContinuousBatching(graphdef, config, shape, lazy=True)
        stream = made[config](
            params,
            prompts_of([example]),
            group_size=settings.get("samples", 1),
            seed=settings.get("seed", 0),
            step=0,
        )
        return {
            one.sample: (one.tokens.tolist(), one.model_logprobs, one.reason)
            for part in stream
            for one in part
        }

    return samples


class Collected:
    """The tokens of each request's samples, as they came."""

    def __init__(self) -> None:
        self.parts: dict[int, dict[int, list[NewTokens]]] = defaultdict(lambda: defaultdict(list))

    def add(self, parts: list[NewTokens]) -> None:
        for part in parts:
            of_sample = self.parts[part.request][part.sample]
            assert not of_sample or of_sample[-1].reason is None, "nothing comes after the end"
            of_sample.append(part)

    def samples(self, number: int) -> dict[int, tuple[list[int], np.ndarray, str | None]]:
        return {
            sample: (
                np.concatenate([part.tokens for part in parts]).tolist(),
                np.concatenate([part.logprobs for part in parts]),
                parts[-1].reason,
            )
            for sample, parts in self.parts[number].items()
        }


def assert_same(ours: dict[int, Any], theirs: dict[int, Any]) -> None:
    assert sorted(ours) == sorted(theirs)
    for sample, (tokens, logprobs, reason) in theirs.items():
        assert ours[sample][0] == tokens
        np.testing.assert_allclose(ours[sample][1], logprobs, atol=2e-5)
        assert ours[sample][2] == reason


def test_a_request_in_a_crowd_is_answered_as_alone(batch, alone):
    """Every setting on three prompts; two requests join after each decode block, and nothing compiles."""
    asked = [(EXAMPLES[(2 * n + n // 6) % len(EXAMPLES)], SETTINGS[n % 6]) for n in range(18)]
    got, numbers, coming = Collected(), [], list(asked)
    prefills = batch.prefills
    with count_compilations() as compilations:
        while coming or batch.running or batch.waiting:
            for example, settings in coming[:2]:
                numbers.append(batch.join(request(example, **settings)))
            del coming[:2]
            got.add(batch.step())
            assert batch.running <= 3
        assert compilations.since(0) == []
    assert batch.prefills - prefills == len(asked), "the samples of a request share one prefill"
    lengths = set()
    for number, (example, settings) in zip(numbers, asked, strict=True):
        expected = alone(example, settings)
        assert_same(got.samples(number), expected)
        lengths |= {len(tokens) for tokens, _, _ in expected.values()}
    assert len(lengths) > 4


@pytest.mark.parametrize(
    "changes",
    [
        {"prefill_chunk_tokens": 7},
        {"prefill_rows": 2, "prompt_slots": 4, "decode_block": 1},
        {"kv_dtype": "float32", "prompt_slots": 8, "decode_block": 32},
    ],
    ids=["chunks", "two prompts prefilled together", "all at once"],
)
def test_no_layout_changes_a_sample(model, alone, changes):
    batch = batch_of(model, **changes)
    got = Collected()
    asked = [(EXAMPLES[n % len(EXAMPLES)], SETTINGS[n % 6]) for n in range(7)]
    numbers = [batch.join(request(example, **settings)) for example, settings in asked[:5]]
    got.add(batch.step())
    numbers += [batch.join(request(example, **settings)) for example, settings in asked[5:]]
    while batch.running or batch.waiting:
        got.add(batch.step())
    for number, (example, settings) in zip(numbers, asked, strict=True):
        assert_same(got.samples(number), alone(example, settings))


def test_own_lengths_and_likeliest_tokens(batch, alone):
    """A request may want fewer tokens; the likeliest ones are given to those who ask, the greedy one being first."""
    short = batch.join(request(EXAMPLES[0], max_new_tokens=6, top_logprobs=True))
    plain = batch.join(request(EXAMPLES[1]))
    got = Collected()
    while batch.running or batch.waiting:
        got.add(batch.step())
    (tokens, logprobs, _), expected = got.samples(short)[0], alone(EXAMPLES[0], {})[0]
    assert tokens == expected[0][:6]
    assert len(tokens) < 6 or got.samples(short)[0][2] == ("stop" if tokens[-1] in ENDS else "length")
    ids = np.concatenate([part.top[0] for part in got.parts[short][0] if part.top])
    values = np.concatenate([part.top[1] for part in got.parts[short][0] if part.top])
    assert ids.shape == values.shape == (len(tokens), 20)
    assert ids[:, 0].tolist() == tokens
    np.testing.assert_allclose(values[:, 0], logprobs, atol=1e-6)
    assert (np.diff(values, axis=1) <= 0).all() and (np.exp(values).sum(1) < 1).all()
    assert all(part.top is None for part in got.parts[plain][0])
    assert_same(got.samples(plain), alone(EXAMPLES[1], {}))


def test_who_leaves_frees_slots_and_disturbs_nobody(batch, alone):
    """Requests that run, that wait for slots after their prefill, and that wait for it."""
    drawn = SETTINGS[1]
    long = [batch.join(request(EXAMPLES[n], **drawn)) for n in range(2)]
    many = batch.join(request(EXAMPLES[2], **SETTINGS[5]))
    waiting = batch.join(request(EXAMPLES[3], **drawn))
    last = batch.join(request(EXAMPLES[4], **drawn))
    got = Collected()
    got.add(batch.step())
    assert (batch.running, batch.waiting) == (3, 3)
    batch.leave(many)
    batch.leave(waiting)
    assert (batch.running, batch.waiting) == (2, 1)
    with pytest.raises(ValueError, match="exceeds"):
        batch.join(SampleRequest(EXAMPLES[0], tiny.TOKENS + 1, 0, NEW))
    with pytest.raises(ValueError, match=r"max_new_tokens 21 is not in 1 to 20"):
        batch.join(request(EXAMPLES[0], max_new_tokens=NEW + 1))
    while batch.running or batch.waiting:
        got.add(batch.step())
    assert waiting not in got.parts
    for number, example in zip([*long, last], [*EXAMPLES[:2], EXAMPLES[4]], strict=True):
        assert_same(got.samples(number), alone(example, drawn))


def test_one_sample_leaves(batch, alone):
    """As where a stop string is found: the other samples of the request go on."""
    wanted = [{"temperature": 1.0, "seed": seed, "samples": 2} for seed in range(20)]
    found = ((one, alone(EXAMPLES[1], one)) for one in wanted)
    settings, expected = next((one, two) for one, two in found if min(len(two[n][0]) for n in two) > 4)
    number = batch.join(request(EXAMPLES[1], **settings))
    got = Collected()
    got.add(batch.step())
    batch.leave(number, 1)
    assert batch.running == 1
    while batch.running or batch.waiting:
        got.add(batch.step())
    assert_same({0: got.samples(number)[0]}, {0: expected[0]})
    assert len(got.samples(number)[1][0]) == 4


def test_clear_goes_on_after_an_error(batch, alone):
    numbers = [batch.join(request(example)) for example in EXAMPLES[:5]]
    batch.step()
    assert batch.clear() == numbers
    assert (batch.running, batch.waiting) == (0, 0) and batch.step() == []
    number, got = batch.join(request(EXAMPLES[0], **SETTINGS[2])), Collected()
    while batch.running or batch.waiting:
        got.add(batch.step())
    assert_same(got.samples(number), alone(EXAMPLES[0], SETTINGS[2]))
