"""Logits and greedy continuations against committed numbers of transformers, so that a new version of it, or
none, changes nothing here. `tests/golden/make_qwen3_vl_tiny.py` made them."""

import numpy as np
import pytest

from tests.model import tiny
from tests.model.conftest import runner
from tests.model.generation.making import batching, sampling, shape_of
from tests.places import GOLDEN

REFERENCE = GOLDEN / "qwen3_vl_tiny.npz"
NAMES = {
    "tied": "tied",
    "untied": "untied, 3 queries a key, DeepStack into every layer",
    "experts": tiny.MOE,
}


@pytest.fixture(scope="module")
def golden():
    with np.load(REFERENCE) as file:
        return dict(file)


@pytest.mark.parametrize("short", NAMES)
def test_equal_to_the_committed_numbers(golden, short, tmp_path):
    model = tiny.noisy_model(tiny.CONFIGS[NAMES[short]], tmp_path / "model")
    run, side = runner(model), model.config.vision.grid_side
    prompts = [tiny.example(kind) for kind in tiny.KINDS]
    for kind, prompt in zip(tiny.KINDS, prompts, strict=True):
        got = run(tiny.rows([[prompt]], side=side))[0, : len(prompt.tokens) : 2]
        np.testing.assert_allclose(got, golden[f"{short}/{kind}/logits"], atol=5e-5, rtol=0, err_msg=kind)
    run = batching(model, sampling(temperature=0.0), shape_of(prompt_slots=5, sample_slots=1))
    drawn = run(prompts, 1)
    for number, kind in enumerate(tiny.KINDS):
        assert drawn[number, 0].tokens.tolist() == golden[f"{short}/{kind}/greedy"].tolist(), kind


def test_golden_file_is_small_and_says_its_origin(golden):
    assert REFERENCE.stat().st_size < 300_000
    assert '"transformers": "' in str(golden["made_with"])
