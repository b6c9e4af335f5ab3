"""The sampler of responses: stop strings in real text, parts as they come, settings that cannot work."""

import gc
import threading
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.batches.packing import PackingError
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.evaluate.answers.failures import ONCE, Failed, Tries
from onethinker_jax.evaluate.answers.local_model import read_prompts
from onethinker_jax.model.generation.continuous_batching import ContinuousBatching
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.presets import shapes
from tests.data_pipeline.making import picture, write_tokenizer
from tests.train import making
from tests.waiting import HANG_S

SETTINGS = SamplerSettings(
    prompt_slots=2,
    group_size=3,
    sample_slots=2,
    prompt_tokens=64,
    prompt_patches=16,
    max_new_tokens=24,
    decode_block=5,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Processor, graph and parameters of a fresh policy, and five prompts."""
    folder = write_tokenizer(tmp_path_factory.mktemp("tokenizer"), image_pixels=(1024, 4096))
    processor = Processor.from_pretrained(folder, grid_side=8)
    config = making.config_for(processor)
    graphdef, params = nnx.split(Qwen3VL(config, rngs=nnx.Rngs(0)))
    prompts = []
    for number in range(5):
        images = [picture(64, 64, number)] if number % 2 else []
        question = [{"role": "user", "content": "<image>" * len(images) + f"What is {number}?"}]
        prompts.append(processor(question, images=images, videos=[], add_generation_prompt=True))
    return processor, graphdef, params, prompts


@pytest.fixture(scope="module")
def free(made):
    processor, graphdef, params, prompts = made
    return Sampler(graphdef, processor, SETTINGS, mesh=make_mesh())(params, prompts, seed=1, step=2)


def test_a_stop_string_ends_a_sample_at_its_last_token(made, free):
    processor, graphdef, params, prompts = made
    stops = (free[0].texts[0][7:10], free[3].texts[2][2:4])
    sampler = Sampler(graphdef, processor, replace(SETTINGS, stop=stops), mesh=make_mesh())
    reasons = []
    for whole, got in zip(free, sampler(params, prompts, seed=1, step=2), strict=True):
        for number, tokens in enumerate(whole.tokens):

            def complete(length: int, tokens: np.ndarray = tokens) -> bool:
                return any(stop in processor.decode(tokens[:length]) for stop in stops)

            length = next((n for n in range(1, len(tokens) + 1) if complete(n)), None)
            np.testing.assert_array_equal(got.tokens[number], tokens[:length])
            np.testing.assert_allclose(got.logprobs[number], whole.logprobs[number][:length], atol=2e-5)
            assert got.texts[number] == processor.decode(tokens[:length])
            assert got.reasons[number] == (whole.reasons[number] if length is None else "stop_string")
            assert got.ended[number] == (got.reasons[number] != "length")
            reasons.append(got.reasons[number])
    assert "stop_string" in reasons
    assert "length" in reasons


def test_parts_are_the_whole(made, free):
    processor, graphdef, params, prompts = made
    sampler = Sampler(graphdef, processor, SETTINGS, mesh=make_mesh())
    seen = []
    for numbers, samples in sampler.parts(params, prompts, seed=1, step=2):
        seen.append(numbers)
        for number, samples_of_prompt in zip(numbers, samples, strict=True):
            jax.tree.map(np.testing.assert_array_equal, samples_of_prompt.tokens, free[number].tokens)
            assert samples_of_prompt.texts == free[number].texts
    assert sorted(number for part in seen for number in part) == [0, 1, 2, 3, 4]
    assert len(seen) > 1


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_prompts_read_ahead_are_all_that_is_kept(made, free, ahead):
    """The samples are the same, whatever is left out; a prompt is gone once it is on the device."""
    processor, graphdef, params, prompts = made
    settings = replace(SETTINGS, prefill_rows=1, prompt_slots=2)
    sampler = Sampler(graphdef, processor, settings, mesh=make_mesh(), lazy=True)
    alive: set[int] = set()
    most = 0

    def coming():
        nonlocal most
        for number, prompt in enumerate([*prompts[:2], None, *prompts[3:]]):
            if prompt is None:
                yield None
                continue
            one = replace(prompt)
            alive.add(number)
            weakref.finalize(one, alive.discard, number)
            most = max(most, len(alive))
            yield one

    found = {}
    for numbers, samples in sampler.parts(params, coming(), seed=1, step=2, ahead=ahead):
        found.update(zip(numbers, samples, strict=True))
    assert sorted(found) == [0, 1, 3, 4]
    for number, samples_of_prompt in found.items():
        assert samples_of_prompt.texts == free[number].texts
    gc.collect()
    assert not alive and most <= min(ahead + 1, 4)  # and the one that has just been read


def test_a_lazy_sampler_compiles_what_it_runs(made, free, monkeypatch):
    processor, graphdef, params, prompts = made
    monkeypatch.setattr(ContinuousBatching, "warm_up", lambda *_: pytest.fail("it warms up"))
    settings = replace(SETTINGS, prompt_buckets=2, prompt_tokens=2 * SETTINGS.prompt_tokens)
    sampler = Sampler(graphdef, processor, settings, mesh=make_mesh(), lazy=True)
    for whole, got in zip(free, sampler(params, prompts, seed=1, step=2), strict=True):
        assert got.texts == whole.texts


def test_settings_fitted_to_prompts():
    settings = replace(SETTINGS, prompt_slots=8, prompt_tokens=16_384, prompt_patches=65_536)
    fit = settings.fitted_to([(300, 4000), (200, 16)])
    assert (fit.prompt_slots, fit.prompt_tokens, fit.prompt_patches) == (2, 384, 4096)
    assert settings.fitted_to([(300, 0)]).prompt_patches == 0
    assert replace(settings, prompt_tokens=310).fitted_to([(300, 0)] * 9).prompt_tokens == 310


def test_prompts_dealt_out_to_processes_give_the_same_samples(made, free):
    """A sample's key is that of its prompt's number among all."""
    processor, graphdef, params, prompts = made
    dealt = Sampler(graphdef, processor, SETTINGS, mesh=make_mesh(), first=1, stride=2)
    for whole, got in zip(free[1::2], dealt(params, prompts[1::2], seed=1, step=2), strict=True):
        jax.tree.map(np.testing.assert_array_equal, got.tokens, whole.tokens)
    unlike = Sampler(graphdef, processor, SETTINGS, mesh=make_mesh())
    assert unlike(params, prompts[1::2], seed=1, step=2)[0].texts != free[1].texts


def test_prompts_in_chunks_give_the_same_samples(made, free):
    processor, graphdef, params, prompts = made
    settings = replace(SETTINGS, prefill_chunk_tokens=9)
    sampler = Sampler(graphdef, processor, settings, mesh=make_mesh())
    for whole, got in zip(free, sampler(params, prompts, seed=1, step=2), strict=True):
        assert got.texts == whole.texts


def test_a_prompt_that_is_too_long(made):
    processor, graphdef, params, prompts = made
    sampler = Sampler(graphdef, processor, replace(SETTINGS, prompt_tokens=8), mesh=make_mesh())
    with pytest.raises(PackingError, match="tokens do not fit in a row of 8"):
        sampler(params, prompts, seed=0, step=0)


@pytest.mark.parametrize("workers", [0, 3])
def test_prompts_are_made_by_as_many_threads_as_processes_decode(made, monkeypatch, workers):
    """In the order of the records; of several that are bad the first is raised."""
    processor, graphdef, _, prompts = made
    records = [
        Record(i, "?", "image", "OCR", (), "<answer>x</answer>", (Path("a.png"),), (), "s") for i in range(6)
    ]
    at_once, bad = threading.Barrier(max(workers, 1), timeout=HANG_S), set()
    asked = []

    def prompt(record):
        asked.append(record.problem_id)
        if not bad:
            at_once.wait()
        elif record.problem_id in bad:
            raise MediaError(f"{record.problem_id}: broken")
        return prompts[record.problem_id % 5]

    pool = MediaPool(workers) if workers else None
    monkeypatch.setattr(processor, "media", MediaReader(pool=pool))
    monkeypatch.setattr(processor, "prompt", prompt)
    sampler = Sampler(graphdef, processor, SETTINGS, mesh=make_mesh())
    reading = partial(read_prompts, records, sampler.prompt, workers=workers)
    with reading(tries=ONCE) as read:
        assert list(read) == [*prompts, prompts[0]]
    bad.update((2, 1))
    with pytest.raises(RecordError, match=r"record 1.*: 1: broken"), reading(tries=ONCE) as read:
        list(read)
    asked.clear()
    with reading(tries=Tries(again=2)) as read:
        found = list(read)
    assert [found[0], *found[3:]] == [prompts[0], *prompts[3:], prompts[0]]
    failed = [one for one in found[1:3] if isinstance(one, Failed)]
    assert len(failed) == 2 and "1: broken" in failed[0].reason
    assert asked.count(1) == asked.count(2) == 3 and asked.count(0) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_slots": 0}, "prompt_slots 0 must be at least 1"),
        ({"sample_slots": 0}, "sample_slots 0 must be at least 1"),
        ({"prompt_buckets": 0}, "prompt_buckets 0"),
        ({"prefill_chunk_tokens": 0}, "prefill_chunk_tokens 0 must be at least 1"),
        ({"prompt_patches": 6}, "prompt_patches 6 is not a multiple of 4"),
        ({"stop": ("a", "")}, "stop: an empty string"),
        ({"top_p": 0.0}, r"top_p 0.0 is not in \(0, 1\]"),
        ({"temperature": -0.5}, "temperature -0.5"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **settings)


SETTINGS_OF_ONE = SamplerSettings(prompt_tokens=8, prompt_patches=4, max_new_tokens=4)


def test_settings_of_training_name_their_section():
    with pytest.raises(SettingError, match=r"rl\.prompts_ahead -1"):
        replace(shapes().rl, prompts_ahead=-1)
    with pytest.raises(SettingError, match=r"rl\.rollout\.group_size 1: a group needs at least 2"):
        replace(shapes().rl, rollout=SETTINGS_OF_ONE)
    all_of_a_step = SETTINGS_OF_ONE.all_together(5)
    assert (SETTINGS_OF_ONE.together, all_of_a_step.together, all_of_a_step.all_together(9).together) == (
        8,
        5,
        5,
    )
    settings = SamplerSettings(prompt_tokens=200, prompt_patches=100, prompt_buckets=3)
    assert settings.buckets() == ((50, 28), (100, 52), (200, 100))
