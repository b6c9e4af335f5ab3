"""Sizes that prompts are padded to."""

from onethinker_jax.sampler_settings import padded


def test_prompts_are_padded_to_few_sizes():
    sizes = {padded(size) for size in range(1, 16_385)}
    assert len(sizes) < 30
    for size in range(1, 16_385):
        assert size <= padded(size) <= max(1.25 * size, size + 127)
        assert padded(size) % 4 == 0
