"""Rows without any medium: logits equal to transformers', and the samples of a prompt as they are in a crowd."""

import numpy as np
import pytest

from onethinker_jax.train.log.compilation_watch import count_compilations
from tests.model import tiny
from tests.model.generation.making import assert_same, batching, sampling, shape_of

pytest.importorskip("torch")
BAR = 2e-5
LONGER = [tiny.sample(seed, ("text", length)) for seed, length in enumerate((90, 41, 55, 7))]


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_logits_equal_transformers(pairs, name):
    """Alone in a row, and two in one; with the patches of a batch that has none."""
    pair = pairs(name)
    for one in LONGER:
        np.testing.assert_array_equal(
            one.positions, np.broadcast_to(np.arange(len(one.tokens)), one.positions.shape)
        )
    inputs = pair.rows([[LONGER[0]], [LONGER[1], LONGER[2]], [LONGER[3]]])
    padded = pair.run(inputs)
    places = [(0, 0), (1, 0), (1, len(LONGER[1].tokens)), (2, 0)]
    for one, (row, at) in zip(LONGER, places, strict=True):
        place = (row, slice(at, at + len(one.tokens)))
        expected = pair.reference([one])[0]
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(padded[place], expected, atol=BAR, rtol=0)


@pytest.mark.parametrize("prefill_chunk_tokens", [None, 16])
def test_prompts_of_text_sampled_alone_and_beside_media(pairs, prefill_chunk_tokens):
    """Prefill of text alone, of both at once, whole and in chunks; nothing compiles for the one or the other."""
    model = pairs("tied").model
    shape = shape_of(
        prompt_slots=3,
        sample_slots=2,
        prefill_rows=2,
        prefill_chunk_tokens=prefill_chunk_tokens,
        prompt_buckets=((48, 32), (96, 128)),
    )
    run = batching(model, sampling(), shape)
    media = [tiny.example(kind) for kind in ("one image", "video", "image and video")]
    texts = [tiny.sample(seed, ("text", length)) for seed, length in ((5, 90), (6, 12), (7, 40))]
    with count_compilations() as compilations:
        alone = run(texts, 2)
        warm = compilations.count
        crowd = run([one for pair in zip(texts, media, strict=True) for one in pair], 2)
        pictures = run(media, 2)
        assert compilations.since(warm) == []
    assert len({tuple(one.tokens) for one in alone.values()}) == 6
    # A sample's key is folded from its prompt's number: the first prompt's is the same in both calls.
    first = {name: one for name, one in alone.items() if name[0] == 0}
    assert_same({name: one for name, one in crowd.items() if name[0] == 0}, first)
    assert len(pictures) == 6


def test_greedy_answers_of_text_do_not_depend_on_the_crowd(pairs):
    model = pairs("tied").model
    run = batching(model, sampling(temperature=0.0), shape_of(prompt_slots=3, sample_slots=1, prefill_rows=2))
    texts = [tiny.sample(seed, ("text", length)) for seed, length in ((5, 60), (6, 12))]
    media = [tiny.example(kind) for kind in ("one image", "video", "image and video")]
    alone, crowd = run(texts, 1), run([media[0], texts[0], media[1], texts[1], media[2]], 1)
    for before, after in ((0, 1), (1, 3)):
        np.testing.assert_array_equal(crowd[after, 0].tokens, alone[before, 0].tokens)
        np.testing.assert_allclose(crowd[after, 0].logprobs, alone[before, 0].logprobs, atol=BAR)
