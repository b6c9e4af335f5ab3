"""Logits and greedy continuations against committed numbers of transformers, so that a new version of it, or
none, changes nothing here.  ``tests/golden/make_qwen3_vl_tiny.py`` made them."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model.generate import SamplingConfig, make_sampler, sample_keys
from tests.model import tiny
from tests.model.conftest import runner

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen3_vl_tiny.npz"
NAMES = {
    "tied": "tied",
    "untied": "untied, 3 queries a key, DeepStack into every layer",
    "experts": tiny.MOE,
}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.mark.parametrize("short", NAMES)
def test_equal_to_the_committed_numbers(golden, short, tmp_path):
    model = tiny.noisy_model(tiny.CONFIGS[NAMES[short]], tmp_path / "model")
    run, side = runner(model), model.config.vision.grid_side
    prompts = [tiny.example(kind) for kind in tiny.KINDS]
    for kind, prompt in zip(tiny.KINDS, prompts, strict=True):
        got = run(tiny.rows([[prompt]], side=side))[0, : len(prompt.tokens) : 2]
        np.testing.assert_allclose(got, golden[f"{short}/{kind}/logits"], atol=5e-5, rtol=0, err_msg=kind)
    graphdef, params = nnx.split(model)
    greedy = SamplingConfig(
        max_new_tokens=32, eos_ids=(), pad_id=0, temperature=0.0, forbidden_ids=tiny.FORBIDDEN
    )
    drawn = make_sampler(graphdef, greedy)(
        params,
        jax.tree.map(jax.numpy.asarray, tiny.rows([[p] for p in prompts], batch=len(prompts), side=side)),
        jax.numpy.array([len(p.tokens) for p in prompts]),
        jax.numpy.array([p.next_position for p in prompts]),
        sample_keys(0, 0, len(prompts), 1),
    )
    for row, kind in enumerate(tiny.KINDS):
        assert np.asarray(drawn.tokens)[row, 0].tolist() == golden[f"{short}/{kind}/greedy"].tolist(), kind


def test_golden_file_is_small_and_says_its_origin(golden):
    assert GOLDEN.stat().st_size < 300_000
    assert '"transformers": "' in str(golden["made_with"])
