"""Logits and gradients against transformers' Qwen3-VL on random float32 models, for every kind of input.

Bar: 5e-5 absolute on logits of up to 5; two attention kernels of transformers itself differ by 1e-5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from onethinker_jax.model.hf_weights import load_hf, save_hf
from tests.model import tiny
from tests.model.conftest import runner

torch = pytest.importorskip("torch")
BAR = 5e-5
every_config = pytest.mark.parametrize("name", tiny.CONFIGS)


@every_config
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_one_example(pairs, seen, name, kind):
    pair, one = pairs(name), tiny.example(kind)
    got = pair.run(pair.rows([[one]]))[0, : len(one.tokens)]
    compare(seen, kind, got, pair.reference([one])[0])


def test_text_without_vision_inputs(pairs, seen):
    pair, one = pairs("tied"), tiny.example("text")
    inputs = pair.rows([[one]])
    got = pair.run(type(inputs)(**{**vars(inputs), "vision": None}))[0, : len(one.tokens)]
    compare(seen, "text", got, pair.reference([one])[0])


@every_config
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padded_batch(pairs, seen, name, left):
    pair = pairs(name)
    batch = [tiny.example(kind) for kind in ("one image", "video", "text")]
    got = pair.run(pair.rows([[one] for one in batch], left=left))
    expected = pair.reference(batch, left=left)
    for row, one in enumerate(batch):
        place = slice(-len(one.tokens), None) if left else slice(len(one.tokens))
        compare(
            seen, f"batch padded at the {'left' if left else 'right'}", got[row, place], expected[row, place]
        )


@every_config
def test_packed_rows(pairs, seen, name):
    pair = pairs(name)
    packed = [
        [tiny.example("one image"), tiny.example("text"), tiny.example("one image", seed=1)],
        [tiny.example("video"), tiny.example("image and video")],
        [tiny.example("two images of different sizes")],
    ]
    got = pair.run(pair.rows(packed))
    for row, samples in enumerate(packed):
        at = 0
        for one in samples:
            compare(seen, "packed rows", got[row, at : at + len(one.tokens)], pair.reference([one])[0])
            at += len(one.tokens)


def test_gradients(pairs, tmp_path):
    """Of every tensor, for a random linear function of the logits, through a packed row."""
    pair = pairs("one key head, one DeepStack layer, text eps 1e-5")
    samples = [tiny.example("image and video"), tiny.example("one image")]
    directions = [
        np.random.default_rng(i).normal(size=(len(s.tokens), 160)).astype(np.float32)
        for i, s in enumerate(samples)
    ]
    pair.hf.zero_grad()
    for one, direction in zip(samples, directions, strict=True):
        (pair.hf(**tiny.hf_inputs([one])).logits[0] * torch.tensor(direction)).sum().backward()

    inputs = pair.rows([samples], batch=1)
    count = sum(len(s.tokens) for s in samples)
    gradients = nnx.jit(
        nnx.grad(lambda m: (m.logits(m(inputs))[0, :count] * np.concatenate(directions)).sum())
    )(pair.model)
    save_hf(nnx.merge(nnx.graphdef(pair.model), gradients), tmp_path / "gradients")
    ours = load_file(tmp_path / "gradients" / "model.safetensors")
    theirs = {key: value.grad.numpy() for key, value in pair.hf.named_parameters() if value.grad is not None}
    assert set(ours) == set(theirs)
    worst = {key: np.linalg.norm(ours[key] - theirs[key]) / np.linalg.norm(theirs[key]) for key in ours}
    # A key bias shifts all of a query's scores alike: its true gradient is zero and only rounding is seen.
    for key in [key for key in worst if key.endswith("attn.qkv.bias")]:
        size = len(ours[key]) // 3
        keep = np.r_[:size, 2 * size : 3 * size]
        worst[key] = np.linalg.norm((ours[key] - theirs[key])[keep]) / np.linalg.norm(theirs[key][keep])
    assert max(worst.values()) < 1e-3, sorted(worst.items(), key=lambda item: -item[1])[:5]


def test_directory_written_by_transformers(pairs, seen, tmp_path):
    """The 5.x layout of config.json, and its weights."""
    for name in ("tied", "untied, 3 queries a key, DeepStack into every layer"):
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
