"""The distribution a token is drawn from, against its plain form in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onethinker_jax.model.generation.sampling import SamplingConfig, draw, least_kept, truncate

SETTINGS = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 500},
    {"top_p": 0.3},
    {"top_p": 0.95},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 12, "top_p": 0.8, "min_p": 0.05},
]


def kept_in_numpy(logits: np.ndarray, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> np.ndarray:
    """Which entries of one row are kept: sorted, summed and cut, in float64."""
    order = np.argsort(-logits, kind="stable")
    keep = np.isfinite(logits)
    if top_k:
        keep[order[top_k:]] = False
    probabilities = np.where(keep, np.exp(logits.astype(np.float64)), 0)
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    keep[order[before >= top_p]] = False
    return keep & (probabilities >= min_p * probabilities.max() * (1 - 1e-7))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_truncation(settings):
    config = SamplingConfig(max_new_tokens=1, eos_ids=(), **settings)
    assert config.truncated
    logits = (3 * np.random.default_rng(0).normal(size=(6, 4, 97))).astype(np.float32)
    logits[0, :, 5:9] = -np.inf  # suppressed tokens
    got = np.asarray(jax.jit(lambda x: truncate(x, config))(logits))
    for row in np.ndindex(6, 4):
        keep = kept_in_numpy(logits[row], **settings)
        np.testing.assert_array_equal(np.isfinite(got[row]), keep)
        np.testing.assert_array_equal(got[row][keep], logits[row][keep])


def test_equals_are_kept_together():
    logits = jnp.array([[1.0, 3.0, 2.0, 2.0, -1.0, 2.0]])
    got = truncate(logits, SamplingConfig(max_new_tokens=1, eos_ids=(), top_k=2))
    assert np.isfinite(np.asarray(got)).tolist() == [[False, True, True, True, False, True]]


def test_the_bound_is_one_of_the_values():
    """Of both signs, zeros, tiny and huge numbers and infinities."""
    values = np.array([0.0, 3e38, -3e38, 1e-40, -1e-40, -np.inf, 2.5, -2.5, 1e-30, 7.0], np.float32)
    for count in range(1, 11):
        got = float(least_kept(jnp.asarray(values), jnp.ones(10), count))
        assert got == np.sort(values)[::-1][count - 1]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probabilities_of_both_distributions(temperature):
    logits = (2 * np.random.default_rng(1).normal(size=(5, 40))).astype(np.float32)
    config = SamplingConfig(
        max_new_tokens=1, eos_ids=(), temperature=temperature, suppressed_ids=(3, 4), top_k=6, min_p=0.01
    )
    keys = jax.random.split(jax.random.key(0), 5)
    got = draw(jnp.asarray(logits), keys, jnp.arange(5), config)
    for row, token in enumerate(np.asarray(got.token)):
        plain = logits[row].astype(np.float64)
        plain[[3, 4]] = -np.inf
        scaled = plain
        if temperature:
            keep = kept_in_numpy((plain / temperature).astype(np.float32), top_k=6, min_p=0.01)
            scaled = np.where(keep, plain / temperature, -np.inf)
            assert keep[token]
        else:
            assert token == plain.argmax()
        for found, of in ((got.logprob[row], scaled), (got.model_logprob[row], plain)):
            np.testing.assert_allclose(found, of[token] - np.log(np.exp(of).sum()), atol=2e-6)


@pytest.mark.parametrize(("vocabulary", "temperature"), [(40, 1.0), (256, 0.5), (1187, 1.0)])
def test_tokens_are_drawn_by_their_probability(vocabulary, temperature):
    """Pearson's chi-squared of 100,000 draws, within five standard deviations; what is suppressed is never drawn."""
    logits = (2 * np.random.default_rng(vocabulary).normal(size=vocabulary)).astype(np.float32)
    suppressed = (0, 7, 8, 9, 10, 39)  # of one token a block, of ten, and some of a block
    config = SamplingConfig(max_new_tokens=1, eos_ids=(), temperature=temperature, suppressed_ids=suppressed)
    keys, draws = jax.random.split(jax.random.key(vocabulary), 100), 1_000

    @jax.jit
    def tokens(keys, index):
        rows = jnp.broadcast_to(logits, (*keys.shape, vocabulary))
        return jax.lax.map(lambda i: draw(rows, keys, jnp.full(keys.shape, i), config).token, index)

    counts = np.bincount(np.asarray(tokens(keys, jnp.arange(draws))).reshape(-1), minlength=vocabulary)
    assert counts[list(suppressed)].sum() == 0
    weights = np.exp(logits.astype(np.float64) / temperature)
    weights[list(suppressed)] = 0
    expected = weights / weights.sum() * counts.sum()
    rare = expected < 10  # together one more kind, as the test asks for
    kinds = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    kinds = [x[kinds[1] >= 10] for x in kinds]
    freedom = len(kinds[0]) - 1
    assert ((kinds[0] - kinds[1]) ** 2 / kinds[1]).sum() < freedom + 5 * (2 * freedom) ** 0.5


def test_a_draw_depends_on_its_key_and_index_alone():
    """Neither on the other rows, nor on its place among them."""
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(6, 300)).astype(np.float32))
    keys, index = jax.random.split(jax.random.key(3), 6), jnp.arange(6)
    config = SamplingConfig(max_new_tokens=1, eos_ids=())
    together = draw(logits, keys, index, config).token
    other = jnp.array([4, 1, 5])
    np.testing.assert_array_equal(
        draw(logits[other], keys[other], index[other], config).token, together[other]
    )
    assert (np.asarray(draw(logits, keys, index + 6, config).token) != np.asarray(together)).any()
