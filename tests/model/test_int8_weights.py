"""int8 matrices of the sampler: how they are quantised, and that nothing else than that changes what is computed."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onethinker_jax.lora_settings import LoRASettings
from onethinker_jax.model import text
from onethinker_jax.model.attention import decode_attention
from onethinker_jax.model.family import MEMBERS, family_member
from onethinker_jax.model.generation.generate import decode_options
from onethinker_jax.model.int8_weights import (
    Int8Weights,
    in_decoding_dtypes,
    matmul,
    quantise_matrix,
    split_kernels,
)
from onethinker_jax.model.lora import add_adapters
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import DECODE_RULES, decoding_layout, make_mesh, tree_shardings
from onethinker_jax.train.log.compilation_watch import count_compilations
from tests.model import tiny
from tests.model.conftest import runner
from tests.model.generation.making import LONG, assert_same, batching, sampling, shape_of

NAMES = ["tied", tiny.MOE]
EXAMPLES = [tiny.example(kind, seed) for seed in range(2) for kind in tiny.KINDS]
SHAPE = shape_of(prompt_slots=10, sample_slots=1, prefill_rows=10)
GREEDY = sampling(temperature=0.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name of a config -> the model as it is, with int8 matrices, and with arrays of what these stand for."""
    made: dict[str, tuple[Qwen3VL, Qwen3VL, Qwen3VL]] = {}

    def get(name: str) -> tuple[Qwen3VL, Qwen3VL, Qwen3VL]:
        if name not in made:
            model = tiny.noisy_model(tiny.CONFIGS[name], tmp_path_factory.mktemp("int8") / "model")
            made[name] = (model, *both_forms(model))
        return made[name]

    return get


def both_forms(model: Qwen3VL, dtype: str = "float32") -> tuple[Qwen3VL, Qwen3VL]:
    graphdef, params = nnx.split(model)
    small = decoding_layout(params, make_mesh(), dtype, weights_dtype="int8")
    return nnx.merge(graphdef, small), nnx.merge(graphdef, dequantised(small, dtype))


def is_int8(leaf: Any) -> bool:
    return isinstance(leaf, Int8Weights)


def dequantised(params: nnx.State, dtype: str = "float32") -> nnx.State:
    """In numpy, each matrix from its whole numbers and scales."""

    def one(leaf: Any) -> Any:
        if not is_int8(leaf):
            return leaf
        return jnp.asarray(np.asarray(leaf.values, np.float32) * np.asarray(leaf.scale), dtype)

    return jax.tree.map(one, params, is_leaf=is_int8)


FLOATS = st.floats(-3e4, 3e4, width=32, allow_subnormal=False)  # XLA takes subnormal numbers for zero


@settings(deadline=None, max_examples=40)
@given(weights=arrays.arrays(np.float32, (2, 3, 4), elements=FLOATS), axis=st.sampled_from([-1, -2, -3]))
def test_a_weight_is_at_most_half_a_step_off(weights: np.ndarray, axis: int) -> None:
    """The largest weight of an output channel is the step 127 times, and a channel of zeros stays zeros."""
    got = quantise_matrix(jnp.asarray(weights), axis, "float32")
    values, scale = np.asarray(got.values, np.float64), np.asarray(got.scale, np.float64)
    assert got.values.dtype == jnp.int8 and got.scale.dtype == jnp.float32
    assert np.isfinite(scale).all() and (scale > 0).all()
    assert (np.abs(values * scale - weights) <= (0.5 + 1e-4) * scale).all()
    most = np.abs(weights.astype(np.float64)).max(axis, keepdims=True)
    seen = most > 1e-30  # below, numbers are subnormal
    np.testing.assert_array_equal(np.abs(values).max(axis, keepdims=True)[seen], 127)
    assert not values[np.broadcast_to(most == 0, values.shape)].any()


def test_a_product_and_rows_are_those_of_the_matrix() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(11, 6)).astype(np.float32)
    small = quantise_matrix(jnp.asarray(table), -1, "bfloat16")
    whole = np.asarray(small.values, np.float32) * np.asarray(small.scale)
    np.testing.assert_array_equal(small[jnp.array([[3, 0]])], jnp.asarray(whole[[3, 0]][None], jnp.bfloat16))
    x = rng.normal(size=(2, 3, 6)).astype(np.float32)
    np.testing.assert_allclose(matmul(jnp.asarray(x), small.T), x @ whole.T, rtol=1e-5, atol=1e-5)
    narrow = matmul(jnp.asarray(x, jnp.bfloat16), small.T)
    assert narrow.dtype == jnp.bfloat16
    assert matmul(jnp.asarray(x, jnp.bfloat16), small.T, jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("member", MEMBERS)
def test_what_is_quantised(member: str) -> None:
    """Every matrix of the decoder but the router's, the head, none of the tower; a scale lies as its matrix does."""
    config = family_member(member)
    params = nnx.state(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))))
    every = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(params)}
    kernels = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(split_kernels(params)[0])}
    assert kernels == {
        name
        for name in every
        if name.startswith("decoder.layers") and name.endswith("kernel") and "router" not in name
    } | {"embed" if config.tie_word_embeddings else "lm_head.kernel"}
    small = jax.eval_shape(lambda params: in_decoding_dtypes(params, "bfloat16", "int8"), params)
    mesh = jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))
    shardings = tree_shardings(small, mesh, DECODE_RULES)
    for path, variable in nnx.to_flat_state(small):
        matrix, sharding = variable.get_value(), dict(nnx.to_flat_state(shardings))[path].get_value()
        if ".".join(map(str, path)) not in kernels:
            assert matrix.dtype == jnp.bfloat16
            continue
        assert (matrix.values.dtype, matrix.scale.dtype) == (jnp.int8, jnp.float32)
        (summed,) = (
            axis for axis, size in enumerate(matrix.scale.shape) if size != matrix.values.shape[axis]
        )
        expected = list(sharding.values.spec)
        assert "tensor" in expected and len(expected) == matrix.values.ndim
        expected[summed] = None
        assert list(sharding.scale.spec) == expected


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_are_those_of_the_dequantised_model(models: Any, name: str) -> None:
    """What the cached int8 decode reported = one uncached forward pass of an ordinary model with those weights."""
    _, small, plain = models(name)
    got, forward = batching(small, GREEDY, SHAPE)(EXAMPLES, 1), runner(plain)
    for (number, _), one in got.items():
        prompt = EXAMPLES[number]
        whole = prompt.extended(one.tokens)
        inputs = tiny.rows([[whole]], side=plain.config.vision.grid_side)
        logits = forward(inputs)[0, len(prompt.tokens) - 1 : len(whole.tokens) - 1].astype(np.float64)
        logits[:, list(tiny.SUPPRESSED)] = -np.inf
        expected = logits[np.arange(LONG), one.tokens] - np.log(np.exp(logits).sum(-1))
        np.testing.assert_allclose(one.model_logprobs, expected, atol=5e-5)


@pytest.mark.parametrize(("name", "largest", "mean"), [(NAMES[0], 0.06, 0.015), (NAMES[1], 0.3, 0.02)])
def test_int8_is_close(models: Any, name: str, largest: float, mean: float) -> None:
    """Log-probabilities of the same greedy tokens, nats: up to where an answer first differs."""
    whole, small = (batching(model, GREEDY, SHAPE)(EXAMPLES, 1) for model in models(name)[:2])
    errors = []
    for number, one in whole.items():
        shared = int(np.append(small[number].tokens == one.tokens, False).argmin())
        errors.append(np.abs(small[number].model_logprobs - one.model_logprobs)[:shared])
    errors = np.concatenate(errors)
    assert len(errors) > 0.5 * LONG * len(EXAMPLES)
    assert 0 < errors.max() < largest
    assert errors.mean() < mean


def test_the_copy_is_compiled_once_and_passes_through(models: Any) -> None:
    """The next step's copy compiles nothing; an int8 tree stays as it is; no matrix is held in another form."""
    params, mesh = nnx.state(models("tied")[0]), make_mesh()
    first = decoding_layout(params, mesh, "bfloat16", weights_dtype="int8")
    with count_compilations() as compilations:
        again = decoding_layout(params, mesh, "bfloat16", weights_dtype="int8")
        passed = decoding_layout(first, mesh, "bfloat16", weights_dtype="int8")
        assert compilations.count == 0
    for one, other, same in zip(*map(jax.tree.leaves, (first, again, passed)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is same
    kernels = {path for path, _ in nnx.to_flat_state(split_kernels(params)[0])}
    for path, variable in nnx.to_flat_state(first):
        assert is_int8(variable.get_value()) == (path in kernels)


def test_decoding_as_on_a_gpu_changes_nothing(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers unrolled, each with its slice of the int8 stacks."""
    small = models("tied")[1]
    expected = batching(small, GREEDY, SHAPE)(EXAMPLES, 1)
    for module in (decode_attention, text):
        monkeypatch.setattr(module, "platform_backend", lambda: "flash_gpu_interpreted")
    shape = replace(SHAPE, weights_dtype="int8")
    assert_same(batching(small, GREEDY, shape)(EXAMPLES, 1), expected)


def test_the_compiler_leaves_int8_stacks_unconverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs alone, and only where there are such."""
    assert decode_options("int8") == {}
    monkeypatch.setattr(text, "platform_backend", lambda: "flash_gpu")
    assert decode_options("int8")["xla_disable_hlo_passes"] == "slice-sinker"
    assert "xla_disable_hlo_passes" not in decode_options(None)


def test_adapters_are_added_to_int8_matrices() -> None:
    model = Qwen3VL(tiny.BASE, rngs=nnx.Rngs(0))
    add_adapters(model, LoRASettings(rank=2), rngs=nnx.Rngs(1), dtype=jnp.dtype(jnp.float32))
    layers: Any = model.decoder.layers
    inputs = tiny.rows([[one] for one in EXAMPLES[:3]])
    b = layers.q_proj.lora.b
    b[...] = 0.1 * jax.random.normal(jax.random.key(0), b.shape)
    small, plain = (runner(form)(inputs) for form in both_forms(model))
    np.testing.assert_allclose(small, plain, atol=1e-5)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
@pytest.mark.parametrize(("name", "sizes"), [(NAMES[0], (1, 1, 2)), (NAMES[1], (2, 2, 2))])
def test_sampling_equals_one_device(models: Any, name: str, sizes: tuple[int, int, int]) -> None:
    """From weights that lie as in training; heads and scales over two devices. Nothing compiles after warm-up."""
    model, small, _ = models(name)
    expected = batching(small, GREEDY, SHAPE)(EXAMPLES, 1)
    mesh = make_mesh(*sizes)
    graphdef, params = nnx.split(model)
    params = jax.device_put(params, tree_shardings(params, mesh))
    params = decoding_layout(params, mesh, "float32", weights_dtype="int8")
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(nnx.state(small)), strict=True):
        np.testing.assert_array_equal(one, other)
    layers: Any = nnx.merge(graphdef, params).decoder.layers
    q_proj = layers.q_proj.kernel[...]
    assert q_proj.values.sharding.spec[-1] == q_proj.scale.sharding.spec[-1] == "tensor"
    with jax.set_mesh(mesh), count_compilations() as compilations:
        run = batching(
            nnx.merge(graphdef, params), GREEDY, replace(SHAPE, prompt_slots=4, prefill_rows=4), mesh
        )
        assert_same(run(EXAMPLES, 1), expected, atol=2e-5)
        warm = compilations.count
        run(EXAMPLES[:2], 1, step=2)
        assert compilations.since(warm) == []
