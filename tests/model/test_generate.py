"""The sampler against transformers' generate, and against a full forward pass of what it sampled."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model.generate import SamplingConfig, make_sampler, policy_logits, sample_keys
from onethinker_jax.model.text import KVCache
from tests.model import tiny

torch = pytest.importorskip("torch")
LONG = 32
KINDS = list(tiny.KINDS)
NAMES = ["tied", "untied, 3 queries a key, DeepStack into every layer", tiny.MOE]


@pytest.fixture(scope="module")
def draw(pairs):
    """(config name, settings of SamplingConfig, prompts, keys) -> Completions; samplers compiled once."""

    @cache
    def sampler(name, settings):
        model = pairs(name).model
        graphdef, params = nnx.split(model)
        return make_sampler(graphdef, SamplingConfig(**dict(settings))), params

    def run(name, prompts, keys, **settings):
        settings = {
            "max_new_tokens": LONG,
            "eos_ids": (),
            "pad_id": 0,
            "forbidden_ids": tiny.FORBIDDEN,
            **settings,
        }
        function, params = sampler(name, tuple(sorted(settings.items())))
        rows = len(keys)
        lengths = jnp.array([len(p.tokens) for p in prompts], jnp.int32)
        following = jnp.array([p.next_position for p in prompts], jnp.int32)
        inputs = pairs(name).rows([[p] for p in prompts], batch=rows)
        return jax.tree.map(np.asarray, function(params, inputs, lengths, following, keys))

    return run


@pytest.mark.parametrize("name", NAMES)
def test_greedy_continuations_equal_transformers(pairs, draw, name):
    prompts = [tiny.example(kind) for kind in KINDS]
    got = draw(name, prompts, sample_keys(0, 0, len(prompts), 1), temperature=0.0)
    assert (got.lengths == LONG).all() and not got.ended.any()
    assert len(np.unique(got.tokens)) > 20, "continuations that repeat themselves would show little"
    for row, (kind, prompt) in enumerate(zip(KINDS, prompts, strict=True)):
        expected = greedy_in_transformers(pairs(name).hf, prompt)
        assert got.tokens[row, 0].tolist() == expected, kind


def greedy_in_transformers(hf, prompt: tiny.Sample) -> list[int]:
    out = hf.generate(
        **tiny.hf_inputs([prompt]),
        max_new_tokens=LONG,
        min_new_tokens=LONG,
        do_sample=False,
        suppress_tokens=list(tiny.FORBIDDEN),
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt.tokens) :].tolist()


@pytest.mark.parametrize(("name", "temperature"), [(NAMES[0], 1.0), (NAMES[2], 0.7)])
def test_log_probabilities_equal_a_full_forward(pairs, draw, name, temperature):
    """What the cached decode reported = prompt and completion in one uncached forward pass."""
    prompts = [tiny.example(kind) for kind in ("two images of different sizes", "image and video", "text")]
    keys = sample_keys(3, 1, len(prompts), 2)
    got = draw(name, prompts, keys, temperature=temperature)
    assert not np.isin(got.tokens, tiny.FORBIDDEN).any()
    for row, prompt in enumerate(prompts):
        assert got.tokens[row, 0].tolist() != got.tokens[row, 1].tolist()
        for column in range(2):
            whole = prompt.extended(got.tokens[row, column])
            logits = pairs(name).run(pairs(name).rows([[whole]]))[
                0, len(prompt.tokens) - 1 : len(whole.tokens) - 1
            ]
            policy = policy_logits(jnp.asarray(logits), temperature=temperature, forbidden_ids=tiny.FORBIDDEN)
            expected = np.asarray(jax.nn.log_softmax(policy))[np.arange(LONG), got.tokens[row, column]]
            np.testing.assert_allclose(got.logprobs[row, column], expected, atol=5e-5)


def test_cached_decode_equals_full_forward(pairs):
    """Logits of every step, two different continuations of each of two prompts."""
    pair = pairs("tied")
    model = pair.model
    prompts = [tiny.example("image and video"), tiny.example("text")]
    new = np.random.default_rng(0).integers(0, 150, (2, 2, 6)).astype(np.int32)
    inputs = pair.rows([[p] for p in prompts], batch=2)
    _, (key, value) = nnx.jit(lambda m, i: m.prefill(i))(model, inputs)
    room = jnp.zeros((key.shape[0], 2, 2, 6, *key.shape[3:]))
    caches = KVCache(key, value, room, room)
    step_once = nnx.jit(lambda m, *a: (lambda h, c: (m.logits(h), c))(*m.decode(*a)))
    got = []
    for step in range(6):
        positions = np.array([[p.next_position + step] * 2 for p in prompts], np.int32)
        logits, caches = step_once(
            model, new[:, :, step], positions, caches, inputs.segment_ids, jnp.int32(step)
        )
        got.append(np.asarray(logits))
    for row, prompt in enumerate(prompts):
        for column in range(2):
            whole = prompt.extended(new[row, column])
            expected = pair.run(pair.rows([[whole]]))[0, len(prompt.tokens) : len(whole.tokens)]
            np.testing.assert_allclose(np.stack(got)[:, row, column], expected, atol=2e-5)


def test_a_key_gives_its_sample_in_any_layout(draw):
    """Whatever the row, the neighbours and the number of samples a prompt."""
    prompts = [tiny.example("one image"), tiny.example("video"), tiny.example("text")]
    keys = sample_keys(7, 2, 3, 2)
    together = draw("tied", prompts, keys)
    turned = draw("tied", prompts[::-1], keys[::-1, ::-1])
    np.testing.assert_array_equal(together.tokens, turned.tokens[::-1, ::-1])
    np.testing.assert_allclose(together.logprobs, turned.logprobs[::-1, ::-1], atol=2e-5)
    alone = draw("tied", prompts[1:2], keys[1:2, 1:])
    np.testing.assert_array_equal(alone.tokens[0, 0], together.tokens[1, 1])
    other = draw("tied", prompts, sample_keys(7, 3, 3, 2))
    assert (other.tokens != together.tokens).any(-1).all()


def test_keys_are_all_different():
    data = [
        jax.random.key_data(sample_keys(seed, step, 4, 3)).reshape(12, -1)
        for seed in (0, 1)
        for step in (0, 1)
    ]
    assert len({tuple(row) for row in np.concatenate(data).tolist()}) == 48


def test_samples_end_at_their_end_token(draw):
    """As without end tokens up to the first one, which counts; then padding, of log-probability zero."""
    prompts = [tiny.example("one image"), tiny.example("video"), tiny.example("text")]
    keys = sample_keys(7, 2, 3, 2)
    free = draw("tied", prompts, keys)
    ends = (int(free.tokens[0, 0, 5]), int(free.tokens[1, 1, 0]), int(free.tokens[2, 0, 31]))
    got = draw("tied", prompts, keys, eos_ids=ends, pad_id=149)
    lengths = []
    for index in np.ndindex(3, 2):
        found = np.isin(free.tokens[index], ends)
        length = int(found.argmax()) + 1 if found.any() else LONG
        lengths.append(length)
        assert got.lengths[index] == length
        assert got.ended[index] == found.any()
        np.testing.assert_array_equal(got.tokens[index][:length], free.tokens[index][:length])
        np.testing.assert_allclose(got.logprobs[index][:length], free.logprobs[index][:length], atol=2e-5)
        assert (got.tokens[index][length:] == 149).all() and (got.logprobs[index][length:] == 0).all()
    assert len(set(lengths)) > 2


def test_rows_that_end_early_change_nothing(draw):
    """Halved as prompts end, rows continue as if nobody had left."""
    prompts = [tiny.example("text") for _ in range(8)]
    keys = sample_keys(11, 0, 8, 2)
    free = draw("tied", prompts, keys, halvings=0)
    ends = tuple({int(free.tokens[row, sample, 3 * row]) for row in range(7) for sample in range(2)})
    whole, halved = (draw("tied", prompts, keys, eos_ids=ends, halvings=count) for count in (0, 3))
    assert len(np.unique(whole.lengths.max(-1))) > 3, "rows that end together would show little"
    np.testing.assert_array_equal(halved.tokens, whole.tokens)
    np.testing.assert_allclose(halved.logprobs, whole.logprobs, atol=2e-5)
    np.testing.assert_array_equal(halved.lengths, whole.lengths)
    np.testing.assert_array_equal(halved.ended, whole.ended)


def test_frequencies_follow_the_probabilities(pairs, draw):
    """First tokens of many samples of one prompt: a chi-square test, and nothing forbidden."""
    prompt, count, temperature = tiny.example("one image"), 4000, 2.0
    got = draw("tied", [prompt], sample_keys(0, 0, 1, count), temperature=temperature, max_new_tokens=1)
    logits = pairs("tied").run(pairs("tied").rows([[prompt]]))[0, len(prompt.tokens) - 1]
    expected = np.exp(logits / temperature) * ~np.isin(np.arange(160), tiny.FORBIDDEN)
    expected *= count / expected.sum()
    seen = np.bincount(got.tokens.ravel(), minlength=160)
    assert seen[list(tiny.FORBIDDEN)].sum() == 0
    often = expected > 10
    statistic = ((seen - expected)[often] ** 2 / expected[often]).sum()
    assert statistic < often.sum() + 5 * np.sqrt(2 * often.sum())


def test_settings_are_checked():
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        SamplingConfig(max_new_tokens=0, eos_ids=(), pad_id=0)
    with pytest.raises(ValueError, match="halvings -1"):
        SamplingConfig(max_new_tokens=1, eos_ids=(), pad_id=0, halvings=-1)
    with pytest.raises(ValueError, match="temperature -1"):
        SamplingConfig(max_new_tokens=1, eos_ids=(), pad_id=0, temperature=-1)
