"""Continuous batching over the examples of `tiny`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.model.generation.continuous_batching import Completion, ContinuousBatching, Prompts
from onethinker_jax.model.generation.generate import GenerationShape
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.inputs import ModelInputs
from tests.model import tiny

LONG = 32
WHOLE = ((tiny.TOKENS, tiny.PATCHES),)


def prompts_of(examples: Sequence[tiny.Sample], side: int = 8) -> Prompts:
    """`side`: of the model's position table."""

    def stack(
        numbers: Sequence[int], tokens: int, patches: int
    ) -> tuple[ModelInputs, np.ndarray, np.ndarray]:
        chosen = [examples[number] for number in numbers]
        inputs = tiny.rows(
            [[one] for one in chosen], batch=len(chosen), tokens=tokens, patches=patches, side=side
        )
        lengths = np.array([len(one.tokens) for one in chosen], np.int32)
        return inputs, lengths, np.array([one.next_position for one in chosen], np.int32)

    return Prompts([(len(one.tokens), len(one.patches)) for one in examples], stack)


def shape_of(**changes: Any) -> GenerationShape:
    settings = {
        "prompt_slots": 3,
        "sample_slots": 2,
        "prompt_buckets": WHOLE,
        "prefill_rows": 3,
        "decode_block": LONG,
        "halvings": 0,
    }
    return GenerationShape(**{**settings, **changes})


def sampling(**changes: Any) -> SamplingConfig:
    settings = {"max_new_tokens": LONG, "eos_ids": (), "suppressed_ids": tiny.SUPPRESSED}
    return SamplingConfig(**{**settings, **changes})


# By model, settings, shape and mesh: compiled once a test process. The model is kept, so that its id stays its own.
_MADE: dict[Any, tuple[ContinuousBatching, Any]] = {}


def batching(model: Any, config: SamplingConfig, shape: GenerationShape, mesh: Any = None) -> Any:
    """(prompts, group_size, **options of a call) -> {(prompt, sample): Completion}."""
    graphdef, params = nnx.split(model)
    name = (id(model), config, shape, mesh)
    if name not in _MADE:
        _MADE[name] = ContinuousBatching(graphdef, config, shape, mesh), model
    decoding, _ = _MADE[name]

    def run(
        examples: Sequence[tiny.Sample], group_size: int, *, seed: int = 3, step: int = 1, **options: Any
    ) -> dict[tuple[int, int], Completion]:
        prompts = prompts_of(examples, model.config.vision.grid_side)
        found: dict[tuple[int, int], Completion] = {}
        for part in decoding(params, prompts, group_size=group_size, seed=seed, step=step, **options):
            for one in part:
                assert (one.prompt, one.sample) not in found
                found[one.prompt, one.sample] = one
        assert sorted(found) == [(p, s) for p in range(len(examples)) for s in range(group_size)]
        return found

    return run


def assert_same(
    ours: dict[tuple[int, int], Completion], theirs: dict[tuple[int, int], Completion], atol: float = 2e-5
) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, one in ours.items():
        other = theirs[name]
        np.testing.assert_array_equal(one.tokens, other.tokens, err_msg=str(name))
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=atol)
        np.testing.assert_allclose(one.model_logprobs, other.model_logprobs, atol=atol)
        assert one.reason == other.reason
