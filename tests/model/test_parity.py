"""Logits and gradients against transformers' Qwen3-VL on random float32 models, for every kind of input.

Bar: 5e-5 absolute on logits of up to 5; two attention kernels of transformers itself differ by 1e-5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model.hf_weights import load_hf, save_hf
from tests.model import tiny
from tests.model.conftest import open_in_transformers, runner

torch = pytest.importorskip("torch")
parity = pytest.importorskip("tests.model.parity")
BAR = 5e-5
every_config = pytest.mark.parametrize("name", tiny.CONFIGS)


@every_config
@pytest.mark.parametrize("kind", parity.CASES)
def test_logits(pairs, seen, name, kind):
    pair, case = pairs(name), parity.CASES[kind]
    with torch.no_grad():
        expected = parity.their_logits(pair.hf, case)
    for ours, theirs in zip(parity.our_logits(pair.run, case, pair.model), expected, strict=True):
        compare(seen, kind, ours, theirs.numpy())


def test_text_without_vision_inputs(pairs, seen):
    pair, one = pairs("tied"), tiny.example("text")
    inputs = pair.rows([[one]])
    got = pair.run(type(inputs)(**{**vars(inputs), "vision": None}))[0, : len(one.tokens)]
    compare(seen, "text", got, pair.reference([one])[0])


@pytest.mark.parametrize("name", ["one key head, one DeepStack layer, text eps 1e-5", tiny.MOE])
def test_gradients(pairs, name, tmp_path):
    """Of every tensor, for random linear functions of the logits."""
    pair = pairs(name)
    gradients = parity.gradient_function(pair.model, tmp_path)
    for kind, case in parity.CASES.items():
        ours, theirs = gradients(case), parity.their_gradients(pair.hf, case)
        assert theirs.keys() <= ours.keys()
        errors = parity.relative_errors(ours, theirs)
        assert max(errors.values()) < 1e-3, (kind, sorted(errors.items(), key=lambda item: -item[1])[:5])


@pytest.mark.parametrize("name", ["tied", tiny.MOE])
def test_bfloat16_is_as_near_to_float32_as_transformers(pairs, name, tmp_path):
    """All three from weights rounded to bfloat16; error norms over all kinds, 10% allowed for luck."""
    save_hf(pairs(name).model, tmp_path / "wide")
    model = load_hf(tmp_path / "wide", dtype=jnp.bfloat16)
    save_hf(model, tmp_path / "half")
    truth, theirs = (open_in_transformers(tmp_path / "half", t) for t in (torch.float32, torch.bfloat16))
    run = runner(model)
    errors = {"ours": 0.0, "theirs": 0.0}
    with torch.no_grad():
        for case in parity.CASES.values():
            true = [logits.numpy() for logits in parity.their_logits(truth, case)]
            for who, found in (
                ("ours", parity.our_logits(run, case, model)),
                ("theirs", [logits.numpy() for logits in parity.their_logits(theirs, case)]),
            ):
                errors[who] += sum(np.square(x - y).sum() for x, y in zip(found, true, strict=True))
    assert errors["ours"] ** 0.5 < 1.1 * errors["theirs"] ** 0.5, errors


def test_directory_written_by_transformers(pairs, seen, tmp_path):
    """The 5.x layout of config.json, and its weights."""
    for name in ("tied", "untied, 3 queries a key, DeepStack into every layer", tiny.MOE):
        pair = pairs(name)
        pair.hf.save_pretrained(tmp_path / name)
        assert "rope_parameters" in (tmp_path / name / "config.json").read_text()
        model = load_hf(tmp_path / name)
        assert model.config.text.rope_theta == pair.model.config.text.rope_theta
        one = tiny.example("image and video")
        got = runner(model)(pair.rows([[one]]))[0, : len(one.tokens)]
        compare(seen, "image and video", got, pair.reference([one])[0])


@pytest.mark.parametrize("name", ["tied", "one key head, one DeepStack layer, text eps 1e-5"])
def test_branches_are_each_sample_alone(pairs, name):
    """A prompt shared by three continuations in one segment, beside another example: each as if alone."""
    pair = pairs(name)
    prompt, other = tiny.example("image and video"), tiny.example("text")
    rng = np.random.default_rng(0)
    completions = [rng.integers(0, 150, size).astype(np.int32) for size in (7, 1, 5)]
    # branch 0: the prompt but its last token; branch b: that token again, then completion b
    shared = tiny.replace(
        prompt,
        tokens=prompt.tokens[:-1],
        positions=prompt.positions[:, :-1],
        visual_index=prompt.visual_index[:-1],
    )
    branches = [np.zeros(len(shared.tokens), np.int32)]
    row, start = shared, prompt.next_position - 1
    for number, completion in enumerate(completions):
        part = np.concatenate([prompt.tokens[-1:], completion])
        positions = np.broadcast_to(start + np.arange(len(part), dtype=np.int32), (3, len(part)))
        row = tiny.replace(
            row,
            tokens=np.concatenate([row.tokens, part]),
            positions=np.concatenate([row.positions, positions], axis=1),
            visual_index=np.concatenate([row.visual_index, np.full(len(part), -1, np.int32)]),
        )
        branches.append(np.full(len(part), number + 1, np.int32))
    joined = np.concatenate(branches)
    got = pair.run(pair.rows([[other, row]], branches=[[np.zeros(len(other.tokens), np.int32), joined]]))[0]
    at = len(other.tokens) + len(shared.tokens)
    for completion in completions:
        alone = pair.reference([prompt.extended(completion)])[0, len(prompt.tokens) - 1 :]
        np.testing.assert_allclose(got[at : at + len(completion) + 1], alone, atol=BAR, rtol=0)
        at += len(completion) + 1
    np.testing.assert_allclose(got[: len(other.tokens)], pair.reference([other])[0], atol=BAR, rtol=0)


def test_packed_equals_unpacked_in_bfloat16_and_with_remat(pairs, tmp_path):
    """Our own model: the layout of a batch changes no number beyond rounding, remat none at all."""
    one, two = tiny.example("one image"), tiny.example("image and video")
    pair = pairs("tied")
    both = pair.rows([[one, two]])
    plain = pair.run(both)[0]
    np.testing.assert_allclose(
        plain[: len(one.tokens)], pair.run(pair.rows([[one]]))[0, : len(one.tokens)], atol=1e-5
    )
    save_hf(pair.model, tmp_path / "model")
    np.testing.assert_allclose(runner(load_hf(tmp_path / "model", remat="dots"))(both)[0], plain, atol=1e-6)
    half = runner(load_hf(tmp_path / "model", dtype=jnp.bfloat16))
    alone = half(pair.rows([[two]]))[0, : len(two.tokens)]
    packed = half(both)[0, len(one.tokens) : len(one.tokens) + len(two.tokens)]
    assert alone.dtype == np.float32
    assert np.abs(alone - packed).mean() < 0.05
    assert np.abs(alone - pair.reference([two])[0]).mean() < 0.1


def compare(
    seen: dict[str, list[tuple[float, float]]], kind: str, got: np.ndarray, expected: np.ndarray
) -> None:
    error = float(np.abs(got - expected).max())
    largest = float(np.abs(expected).max())
    seen.setdefault(kind, []).append((error, largest))
    assert largest > 1, "logits are large enough for the bar to mean something"
    assert error < BAR, f"{kind}: logits differ by {error:.1e}"


def test_jit_traces_once(pairs):
    """Other images, the same shapes: no second compilation."""
    pair = pairs("tied")
    graphdef, params = nnx.split(pair.model)
    traces = []

    @jax.jit
    def forward(params, inputs):
        traces.append(1)
        return nnx.merge(graphdef, params)(inputs)

    for kind in tiny.KINDS:
        forward(params, pair.rows([[tiny.example(kind)]]))
    assert len(traces) == 1
