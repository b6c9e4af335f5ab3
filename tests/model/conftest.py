"""Tiny models, each also loaded in transformers, made once a run; and the table of errors seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.inputs import ModelInputs
from onethinker_jax.model.qwen3_vl import Qwen3VL
from tests.model import tiny

SEEN = pytest.StashKey[dict[str, list[tuple[float, float]]]]()


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    model: Qwen3VL
    hf: Any  # transformers.Qwen3VLForConditionalGeneration, float32, eval
    run: Callable[[ModelInputs], np.ndarray]  # inputs -> float32 logits [B, T, V], jitted

    def rows(self, packed: list[list[tiny.Sample]], **settings: Any) -> ModelInputs:
        return tiny.rows(packed, side=self.model.config.vision.grid_side, **settings)

    def reference(self, samples: list[tiny.Sample], **settings: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.hf(**tiny.hf_inputs(samples, **settings)).logits.numpy()


def runner(model: Qwen3VL) -> Callable[[ModelInputs], np.ndarray]:
    graphdef, params = nnx.split(model)

    @jax.jit
    def forward(params: nnx.State, inputs: ModelInputs) -> jax.Array:
        model = nnx.merge(graphdef, params)
        return model.logits(model(inputs))

    return lambda inputs: np.asarray(forward(params, inputs))


def open_in_transformers(directory: Any, dtype: Any = None) -> Any:
    """The directory as a transformers model; every tensor must find its place."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.set_num_threads(1)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        directory, dtype=dtype or torch.float32, output_loading_info=True
    )
    hf, info = loaded
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return hf.eval()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """name of a config in `tiny.CONFIGS` -> its Pair, made at the first call."""
    pytest.importorskip("torch")
    made: dict[str, Pair] = {}

    def get(name: str) -> Pair:
        if name not in made:
            model = tiny.noisy_model(tiny.CONFIGS[name], tmp_path_factory.mktemp("formula") / "model")
            saved = tmp_path_factory.mktemp("saved") / "model"
            save_hf(model, saved)
            made[name] = Pair(model, open_in_transformers(saved), runner(load_hf(saved)))
        return made[name]

    return get


@pytest.fixture(scope="session")
def seen(pytestconfig):
    """Collects kind of input -> (largest absolute logit error, largest logit); printed after the run."""
    return pytestconfig.stash.setdefault(SEEN, {})


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash.get(SEEN, {})
    if table:
        terminalreporter.section("largest absolute logit error against transformers, float32")
        for kind, errors in table.items():
            error, logit = (max(column) for column in zip(*errors, strict=True))
            terminalreporter.write_line(
                f"{kind:<32} {error:.1e}   (largest logit {logit:.1f}, {len(errors)} cases)"
            )
