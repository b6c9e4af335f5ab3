"""The published all-MiniLM-L6-v2, out of the package that carries it: what others computed, and the docs' table."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from onethinker_jax.rewards.backends.minilm import PACKAGE, PIP_NAME, SentenceEncoder
from onethinker_jax.rewards.backends.table import TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import BackendSettings, TextItem
from tests.places import ROOT
from tests.registry import python_package
from tests.rewards.backends.test_minilm import means

text_rewards = pytest.importorskip("benchmarks.text_rewards")  # a source distribution lacks the folder

pytestmark = pytest.mark.slow
DOG = "A dog runs across the grass."
# Cosines of an ONNX run and of another numpy forward pass of the same weights, made before this back end.
KNOWN = [
    (DOG, "A puppy is sprinting over a lawn.", 0.671),
    (DOG, "A cat sleeps on the sofa.", 0.058),
    ("A pair of feral pigs.", "Two wild boars.", 0.743),
    (DOG, "A dog does not run across the grass.", 0.785),
    ("The red car is left of the blue car", "The blue car is left of the red car", 0.978),
]


@pytest.fixture(scope="module")
def weights() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield python_package(f"{PIP_NAME}==0.1.0", Path(folder)) / PACKAGE / "model"


def test_known_cosines(weights: Path) -> None:
    items = [TextItem("", reference, answer) for reference, answer, _ in KNOWN]
    scores = TEXT_BACKENDS["minilm"](BackendSettings(model=weights)).score(items)
    assert scores == pytest.approx([known for *_, known in KNOWN], abs=0.002)


def test_vectors_are_those_of_transformers(weights: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(weights).eval().requires_grad_(False)
    texts = [text for cases in text_rewards.CASES.values() for case in cases for text in case]
    texts += [" ".join(texts), "Größe 東京 🙂 naïve café", "don't 3.14 [SEP] ##s"]
    encoder = SentenceEncoder(weights)
    assert encoder.max_tokens == 256
    found, wanted = encoder.vectors(texts), means(model, weights, texts, 256)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert encoder.texts_cut == 1


def test_the_table_of_the_documents(weights: Path) -> None:
    lines = set(text_rewards.table(TEXT_BACKENDS["minilm"](BackendSettings(model=weights))))
    text = (ROOT / "docs" / "neural_backends.md").read_text(encoding="utf-8")
    assert not [line for line in lines if line not in text]
