"""Sampling against transformers' generate, against a full forward pass, and against itself in other layouts."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model import text
from onethinker_jax.model.attention import decode_attention
from onethinker_jax.model.generation.continuous_batching import ContinuousBatching
from onethinker_jax.model.generation.generate import DecodeBlock, Programs, Slots, make_programs
from onethinker_jax.model.generation.sampling import SamplingConfig, sample_keys
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.vision import patch_values
from onethinker_jax.train.log.compilation_watch import count_compilations
from tests.model import tiny
from tests.model.generation.making import LONG, WHOLE, assert_same, batching, prompts_of, sampling, shape_of

torch = pytest.importorskip("torch")
KINDS = list(tiny.KINDS)
NAMES = [
    "tied",
    "untied, 3 queries a key, DeepStack into every layer",
    tiny.MOE,
    "as many key as query heads, no DeepStack, untied",
]
EXAMPLES = [tiny.example(kind, seed) for seed in range(2) for kind in KINDS]
LAYOUTS = {
    "a sample at a time": {"prompt_slots": 1, "sample_slots": 1, "prefill_rows": 1},
    "in turn, prompts padded to two sizes": {
        "prompt_slots": 2,
        "sample_slots": 3,
        "prefill_rows": 1,
        "decode_block": 5,
        "prompt_buckets": ((48, 48), *WHOLE),
    },
    "more rows than prompts, which are halved": {
        "prompt_slots": 12,
        "sample_slots": 4,
        "prefill_rows": 8,
        "decode_block": 11,
        "halvings": 2,
    },
}
IN_TURN = {"prompt_slots": 4, "sample_slots": 3, "prefill_rows": 2, "decode_block": 6}


@pytest.fixture(scope="module")
def one_shot(pairs):
    """Four samples of each of ten prompts, all in one dispatch; and the end tokens that cut some of them short."""
    model = pairs("tied").model
    shape = shape_of(prompt_slots=10, sample_slots=4, prefill_rows=10)
    free = batching(model, sampling(), shape)(EXAMPLES, 4)
    ends = tuple(sorted({int(free[prompt, 0].tokens[3 * prompt]) for prompt in range(8)}))
    return free, ends, batching(model, sampling(eos_ids=ends), shape)(EXAMPLES, 4)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_continuations_equal_transformers(pairs, name):
    prompts = [tiny.example(kind) for kind in KINDS]
    run = batching(
        pairs(name).model, sampling(temperature=0.0), shape_of(prompt_slots=2, sample_slots=1, decode_block=9)
    )
    got = run(prompts, 1)
    assert len(np.unique([one.tokens for one in got.values()])) > 20, "repetitions would show little"
    for number, (kind, prompt) in enumerate(zip(KINDS, prompts, strict=True)):
        assert got[number, 0].tokens.tolist() == greedy_in_transformers(pairs(name).hf, prompt), kind
        assert got[number, 0].reason == "length"
        np.testing.assert_array_equal(got[number, 0].logprobs, got[number, 0].model_logprobs)


def greedy_in_transformers(hf, prompt: tiny.Sample) -> list[int]:
    out = hf.generate(
        **tiny.hf_inputs([prompt]),
        max_new_tokens=LONG,
        min_new_tokens=LONG,
        do_sample=False,
        suppress_tokens=list(tiny.SUPPRESSED),
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt.tokens) :].tolist()


@pytest.mark.parametrize(("name", "temperature"), [(NAMES[0], 1.0), (NAMES[2], 0.7)])
def test_log_probabilities_equal_a_full_forward(pairs, name, temperature):
    """What the cached decode reported = prompt and completion in one uncached forward pass, as training makes it."""
    prompts = [tiny.example(kind) for kind in ("two images of different sizes", "image and video", "text")]
    got = batching(pairs(name).model, sampling(temperature=temperature), shape_of(decode_block=10))(
        prompts, 2
    )
    for (number, _), one in got.items():
        prompt = prompts[number]
        whole = prompt.extended(one.tokens)
        logits = pairs(name).run(pairs(name).rows([[whole]]))[
            0, len(prompt.tokens) - 1 : len(whole.tokens) - 1
        ]
        logits = np.where(np.isin(np.arange(160), tiny.SUPPRESSED), -np.inf, logits).astype(np.float64)
        for logprobs, scale in ((one.logprobs, temperature), (one.model_logprobs, 1.0)):
            expected = (logits / scale)[np.arange(LONG), one.tokens] - np.log(np.exp(logits / scale).sum(-1))
            np.testing.assert_allclose(logprobs, expected, atol=5e-5)
    assert got[0, 0].tokens.tolist() != got[0, 1].tokens.tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_changes_a_sample(pairs, one_shot, layout):
    """Shared prompts or not, rows, slots, queues, decode blocks, paddings: the same tokens and log-probabilities."""
    _, ends, expected = one_shot
    assert len({len(one.tokens) for one in expected.values()}) > 10
    run = batching(pairs("tied").model, sampling(eos_ids=ends), shape_of(**LAYOUTS[layout]))
    assert_same(run(EXAMPLES, 4), expected)


def test_decoding_as_on_a_gpu_changes_nothing(pairs, one_shot, monkeypatch):
    """Layers unrolled, the cache read in place by the kernel, which Pallas interprets here."""
    for module in (decode_attention, text):
        monkeypatch.setattr(module, "platform_backend", lambda: "flash_gpu_interpreted")
    _, ends, expected = one_shot
    graphdef, params = nnx.split(pairs("tied").model)
    shape = shape_of(prompt_slots=4, sample_slots=3, prefill_rows=2, decode_block=LONG)
    decoding = ContinuousBatching(graphdef, sampling(eos_ids=ends), shape)
    prompts = prompts_of(EXAMPLES)
    parts = decoding(params, prompts, group_size=4, seed=3, step=1)
    assert_same({(one.prompt, one.sample): one for part in parts for one in part}, expected)


def test_a_cache_in_chunks_changes_nothing(pairs, one_shot, monkeypatch):
    """The cache in many chunks, its ring written round more than once."""
    _, ends, expected = one_shot
    monkeypatch.setattr(decode_attention, "CHUNK", 8)
    shape = shape_of(prompt_slots=2, sample_slots=2, decode_block=5)
    assert_same(batching(pairs("tied").model, sampling(eos_ids=ends), shape)(EXAMPLES, 4), expected)


@pytest.mark.parametrize(
    ("chunk", "layout"), zip((5, 7, 16), LAYOUTS, strict=True), ids=lambda value: str(value)
)
def test_prompts_in_chunks_change_nothing(pairs, one_shot, monkeypatch, chunk, layout):
    """Chunks that divide neither prompts, frames nor paddings, over keys in chunks; and nothing compiles later."""
    _, ends, expected = one_shot
    monkeypatch.setattr(decode_attention, "CHUNK", 32)
    shape = shape_of(prefill_chunk_tokens=chunk, **LAYOUTS[layout])
    run = batching(pairs("tied").model, sampling(eos_ids=ends), shape)
    with count_compilations() as compilations:
        few = run(EXAMPLES[:1], 4)
        warm = compilations.count
        assert_same(run(EXAMPLES, 4), expected)
        assert compilations.since(warm) == []
    assert_same(few, {name: one for name, one in expected.items() if name[0] == 0})


def test_chunks_go_by_between_decode_blocks():
    """One dispatch behind each decode block; all that are left when a row is free. Programs that only say they ran."""
    shape = shape_of(prompt_slots=1, sample_slots=1, prefill_rows=1, decode_block=8, prefill_chunk_tokens=8)
    assert [shape.chunk_starts(48, longest) for longest in (1, 16, 17)] == [[0], [0, 8], [0, 8, 16]]
    assert shape.chunk_starts(20, 20) == [0, 8, 12]  # none reaches beyond the padding
    assert shape.chunk_starts(5, 5) == [0]
    ran = []

    def noted(name: str, given: Any) -> Any:
        def run(*_: Any) -> Any:
            ran.append(name)
            return given

        return run

    def decode_block(_params: Any, cache: Any, slots: Slots, *_: Any) -> Any:
        ran.append("decode_block")
        length = np.minimum(slots.length + 8, 20)
        drawn = np.zeros((8, 1, 1), np.int32)
        return cache, DecodeBlock(drawn, drawn, drawn, length, slots.live & (length < 20), 8)

    cache: Any = SimpleNamespace(suffix=SimpleNamespace(capacity=20))
    graphdef: Any = None
    params: Any = {
        "visual": {"patch_embed": {"kernel": np.zeros((tiny.BASE.vision.patch_values, 1), np.float32)}}
    }
    decoding = ContinuousBatching(graphdef, sampling(max_new_tokens=20), shape)
    decoding.programs = Programs(
        empty=noted("empty", cache),
        prefill=noted("prefill", "whole"),
        embed=noted("embed", ("embedded", "nothing yet")),
        prefill_chunk=noted("chunk", "more"),
        insert=noted("insert", cache),
        decode_block=decode_block,
        take=noted("take", cache),
    )
    decoding.warm_up(params)
    ran.clear()
    prompts = prompts_of([tiny.sample(number, ("text", 36)) for number in range(2)])
    for _ in decoding(params, prompts, group_size=1, seed=0, step=0):
        pass
    assert " ".join(ran) == (
        "empty embed chunk chunk chunk chunk chunk insert decode_block embed decode_block chunk decode_block chunk "
        "chunk chunk chunk insert decode_block decode_block decode_block"
    )


def test_a_chunk_holds_less_than_whole_prompts():
    """Of the program's own memory, at a prompt of 4,096 tokens; the keys and values before it are written in place."""
    model = nnx.eval_shape(lambda: Qwen3VL(tiny.BASE, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model)
    programs: Any = make_programs(graphdef, sampling(), shape_of(prefill_chunk_tokens=128))
    prompts = tiny.rows([], batch=2, tokens=4096)
    lengths = np.ones(2, np.int32)
    embedded, computed = jax.eval_shape(programs.embed, params, prompts, lengths, lengths)
    whole, chunk = (
        program.lower(*arguments).compile().memory_analysis()
        for program, arguments in (
            (programs.prefill, (params, prompts, lengths, lengths)),
            (programs.prefill_chunk, (params, embedded, computed, np.int32(0))),
        )
    )
    assert chunk.temp_size_in_bytes < 0.2 * whole.temp_size_in_bytes
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(computed.prefix))
    assert chunk.alias_size_in_bytes >= kept > chunk.temp_size_in_bytes


def test_a_call_with_fewer_prompts_and_samples(pairs, one_shot):
    free, _, _ = one_shot
    got = batching(pairs("tied").model, sampling(), shape_of(**IN_TURN))(EXAMPLES[:2], 2)
    assert_same(got, {name: one for name, one in free.items() if name[0] < 2 and name[1] < 2})


def test_samples_end_at_their_end_token(one_shot):
    """As without end tokens up to the first one, which counts."""
    free, ends, got = one_shot
    for name, whole in free.items():
        found = np.isin(whole.tokens, ends)
        length = int(found.argmax()) + 1 if found.any() else LONG
        np.testing.assert_array_equal(got[name].tokens, whole.tokens[:length])
        np.testing.assert_allclose(got[name].logprobs, whole.logprobs[:length], atol=2e-5)
        assert got[name].reason == ("stop" if found.any() else "length")


def test_seed_and_step_are_part_of_the_key(pairs, one_shot):
    free, _, _ = one_shot
    run = batching(
        pairs("tied").model, sampling(), shape_of(prompt_slots=10, sample_slots=4, prefill_rows=10)
    )
    for options in ({"step": 2}, {"seed": 4}):
        other = run(EXAMPLES, 4, **options)
        assert all((other[name].tokens != one.tokens).any() for name, one in free.items())


def test_a_stop_found_by_the_host_cuts_a_sample(pairs, one_shot):
    """Here the stop is two multiples of five in a row; what was drawn behind it in the same decode block is dropped."""
    free, _, _ = one_shot

    def find_stop(tokens: np.ndarray, known: int) -> int | None:
        fives = tokens % 5 == 0
        ends = np.flatnonzero(fives[1:] & fives[:-1]) + 2
        return next((int(end) for end in ends if end > known), None)

    run = batching(pairs("tied").model, sampling(), shape_of(**IN_TURN))
    got = run(EXAMPLES, 4, find_stop=find_stop)
    for name, whole in free.items():
        length = find_stop(whole.tokens, 0)
        np.testing.assert_array_equal(got[name].tokens, whole.tokens[:length])
        assert len(got[name].logprobs) == len(got[name].model_logprobs) == len(got[name].tokens)
        assert got[name].reason == ("length" if length is None else "stop_string")
    assert len({one.reason for one in got.values()}) == 2


def test_nothing_compiles_after_warm_up(pairs):
    run = batching(
        pairs("tied").model,
        sampling(eos_ids=tuple(range(0, 150, 20))),
        shape_of(
            prompt_slots=4,
            sample_slots=2,
            prefill_rows=2,
            decode_block=4,
            prompt_buckets=((48, 48), *WHOLE),
            halvings=2,
        ),
    )
    with count_compilations() as compilations:
        run(EXAMPLES[:1], 1)
        warm = compilations.count
        assert warm > 5
        for number, (prompts, samples) in enumerate([(10, 3), (1, 5), (7, 1), (3, 2), (4, 8), (9, 2)]):
            run(EXAMPLES[:prompts], samples, step=number)
        assert compilations.since(warm) == []


def test_a_hundred_thousand_tokens_and_none_suppressed(pairs):
    """At a temperature where every token is likely: every allowed one is seen, and no other.

    First tokens, whose distribution is known, are as frequent as likely: a chi-square test a prompt.
    """
    run = batching(
        pairs("tied").model,
        sampling(temperature=5.0),
        shape_of(prompt_slots=2, sample_slots=200, prefill_rows=2),
    )
    got = run(EXAMPLES[:4], 800)
    seen = np.bincount(np.concatenate([one.tokens for one in got.values()]), minlength=160)
    assert seen.sum() == 102_400
    assert seen[list(tiny.SUPPRESSED)].sum() == 0
    assert (np.delete(seen, tiny.SUPPRESSED) > 0).all()
    for number, prompt in enumerate(EXAMPLES[:4]):
        logits = pairs("tied").run(pairs("tied").rows([[prompt]]))[0, len(prompt.tokens) - 1]
        expected = np.exp(logits / 5.0) * ~np.isin(np.arange(160), tiny.SUPPRESSED)
        expected *= 800 / expected.sum()
        first = np.bincount([got[number, sample].tokens[0] for sample in range(800)], minlength=160)
        often = expected > 3
        statistic = ((first - expected)[often] ** 2 / expected[often]).sum()
        assert statistic < often.sum() + 5 * np.sqrt(2 * often.sum())


@pytest.mark.parametrize(("dtype", "largest", "mean"), [("bfloat16", 0.03, 0.004), ("int8", 0.08, 0.012)])
def test_a_smaller_cache_is_close(pairs, one_shot, dtype, largest, mean):
    """Log-probabilities of the same tokens, nats: up to where a sample first differs."""
    free, _, _ = one_shot
    shape = shape_of(prompt_slots=10, sample_slots=4, prefill_rows=2, kv_dtype=dtype)
    got = batching(pairs("tied").model, sampling(), shape)(EXAMPLES, 4)
    errors, whole = [], 0
    for name, one in free.items():
        same = np.append(got[name].tokens == one.tokens, False)
        shared = int(same.argmin())
        whole += shared == LONG
        errors.append(np.abs(got[name].model_logprobs - one.model_logprobs)[:shared])
    errors = np.concatenate(errors)
    assert len(errors) > 800
    assert 0 < errors.max() < largest
    assert errors.mean() < mean


def test_chunks_are_quantised_when_they_are_whole(pairs):
    """With an int8 cache too a chunk sees what whole prompts do; only rounding to the next step can differ."""
    got = [
        batching(
            pairs("tied").model,
            sampling(),
            shape_of(kv_dtype="int8", decode_block=8, prefill_chunk_tokens=chunk),
        )(EXAMPLES[:5], 2)
        for chunk in (None, 7)
    ]
    assert_same(got[1], got[0], atol=2e-3)


def test_a_prompt_that_fits_nowhere(pairs):
    run = batching(pairs("tied").model, sampling(), shape_of(prompt_buckets=((16, 16),)))
    with pytest.raises(ValueError, match=r"a prompt of 30 tokens and 0 patches exceeds \(16, 16\)"):
        run([tiny.example("text")], 2)


def test_truncated_sampling_stays_inside(pairs):
    """Top-k 1 draws what greedy decoding does, with probability 1 under its own distribution."""
    model, prompts = pairs("tied").model, [tiny.example(kind) for kind in KINDS]
    shape = shape_of(prompt_slots=2, sample_slots=1, decode_block=9)
    ours = batching(model, sampling(top_k=1, temperature=3.0), shape)(prompts, 1)
    greedy = batching(model, sampling(temperature=0.0), shape)(prompts, 1)
    for name, one in ours.items():
        np.testing.assert_allclose(one.logprobs, 0.0, atol=1e-6)
        np.testing.assert_array_equal(one.tokens, greedy[name].tokens)
        np.testing.assert_allclose(one.model_logprobs, greedy[name].model_logprobs, atol=2e-5)


def test_keys_are_all_different():
    prompts, samples = jnp.divmod(jnp.arange(12), 3)
    data = [
        jax.random.key_data(sample_keys(jax.random.fold_in(jax.random.key(seed), step), prompts, samples))
        for seed in (0, 1)
        for step in (0, 1)
    ]
    assert len({tuple(row) for row in np.concatenate(data).tolist()}) == 48


def test_settings_are_checked():
    for settings, message in [
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"temperature": -1}, "temperature -1"),
        ({"top_k": -2}, "top_k -2"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"min_p": 1.5}, "min_p 1.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            SamplingConfig(**{"max_new_tokens": 1, "eos_ids": (), **settings})


def test_warm_up_takes_the_patch_size_from_the_model():
    """Patches of 8 x 8 pixels are 384 numbers, not the 1536 of the released models."""
    config = tiny.variant(vision={"patch_size": 8})
    assert config.vision.patch_values == 384
    graphdef, params = nnx.split(Qwen3VL(config, rngs=nnx.Rngs(0)))
    decoding = ContinuousBatching(
        graphdef, sampling(), shape_of(prompt_slots=1, sample_slots=1, prefill_rows=1, decode_block=2)
    )
    decoding.warm_up(params)
    assert patch_values(params) == config.vision.patch_values
