"""The kernel by which TPUs read experts in the stack of layers, interpreted, against numpy and ragged products."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model import experts_tpu, moe, text
from onethinker_jax.model.attention import decode_attention
from onethinker_jax.model.experts_tpu import LayerOfStack
from onethinker_jax.model.generation import generate
from onethinker_jax.model.int8_weights import Int8Weights, quantise_matrix
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import decoding_layout, make_mesh, tree_shardings
from onethinker_jax.train.cost.program_cost import count_flops, without_recomputation
from tests.model import tiny
from tests.model.generation.making import LONG, assert_same, batching, sampling, shape_of

LAYERS, EXPERTS, WIDTH, CHOSEN = 3, 6, 32, 2
EXAMPLES = [tiny.example(kind, seed) for seed in range(2) for kind in tiny.KINDS]
SHAPE = shape_of(prompt_slots=10, sample_slots=1, prefill_rows=10)
GREEDY = sampling(temperature=0.0)


def stacks(size: int, dtype: str) -> tuple[Any, Any, Any]:
    """The router of all layers, gate and up, and down; of int8 as the sampler quantises them."""
    rng = np.random.default_rng(size)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape) * shape[-2] ** -0.5, jnp.float32)

    router = normal(WIDTH, EXPERTS)
    gate_up, down = normal(LAYERS, EXPERTS, 2, WIDTH, size), normal(LAYERS, EXPERTS, size, WIDTH)
    if dtype == "int8":
        return router, *(quantise_matrix(one, -2, "float32") for one in (gate_up, down))
    return router, gate_up, down


def in_numpy(kernel: Any) -> np.ndarray:
    if isinstance(kernel, Int8Weights):
        return np.asarray(kernel.values, np.float64) * np.asarray(kernel.scale)
    return np.asarray(kernel, np.float64)


def mixture(x: np.ndarray, router: np.ndarray, gate_up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """One token's, in float64, expert by expert."""
    likely = np.exp(x @ router)
    best = np.argsort(-likely)[:CHOSEN]
    out = np.zeros(WIDTH)
    for expert in best:
        gate, up = x @ gate_up[expert, 0], x @ gate_up[expert, 1]
        out += likely[expert] / likely[best].sum() * ((gate / (1 + np.exp(-gate)) * up) @ down[expert])
    return out


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("size", [24, 128, 384])  # turned, whole, in three slices
@pytest.mark.parametrize("tokens", [1, 21])
def test_equals_expert_by_expert(monkeypatch, tokens: int, size: int, dtype: str) -> None:
    monkeypatch.setattr(experts_tpu, "BLOCK_BYTES", 3 * 128 * WIDTH * 4)
    router, gate_up, down = stacks(size, dtype)
    x = np.random.default_rng(tokens).normal(size=(tokens, 1, WIDTH)).astype(np.float32)
    run = jax.jit(partial(moe.mix_in_stack, chosen=CHOSEN, interpret=True))
    for layer in range(LAYERS):
        got = run(x, router, *(LayerOfStack(one, jnp.int32(layer)) for one in (gate_up, down)))
        whole = (in_numpy(router), *(in_numpy(one)[layer] for one in (gate_up, down)))
        for token in range(tokens):
            expected = mixture(x[token, 0].astype(np.float64), *whole)
            np.testing.assert_allclose(got[token, 0], expected, atol=3e-6)


def test_slices_are_whole_tiles(monkeypatch) -> None:
    monkeypatch.setattr(experts_tpu, "BLOCK_BYTES", 3 * 300)
    assert [experts_tpu._slice(size, 1) for size in (192, 768, 1536, 640, 320)] == [192, 256, 256, 128, 320]


def test_experts_that_no_token_chose_are_left_alone() -> None:
    """Their weights are NaN here, and so are those of the other layers."""
    router, gate_up, down = stacks(24, "float32")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, WIDTH)), jnp.float32)
    _, experts = moe.choose(x[:, 0], router, CHOSEN)
    spoilt = np.ones((LAYERS, EXPERTS), bool)
    spoilt[1, np.unique(experts)] = False
    assert spoilt[1].any()
    broken = [jnp.where(spoilt[..., *(None,) * (one.ndim - 2)], jnp.nan, one) for one in (gate_up, down)]
    run = partial(moe.mix_in_stack, chosen=CHOSEN, interpret=True)
    expected, got = (
        run(x, router, *(LayerOfStack(one, jnp.int32(1)) for one in both))
        for both in ((gate_up, down), broken)
    )
    np.testing.assert_array_equal(got, expected)
    assert np.isfinite(got).all()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Qwen3VL:
    return tiny.noisy_model(tiny.CONFIGS[tiny.MOE], tmp_path_factory.mktemp("experts") / "model")


def as_on_a_tpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Decodes by the interpreted kernels; the list has the tokens of every call of the kernel of experts."""
    calls: list[int] = []
    for module in (decode_attention, text, moe, generate):
        monkeypatch.setattr(module, "platform_backend", lambda: "flash_tpu_interpreted")

    def counted(x: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
        calls.append(len(x))
        return experts_tpu.mix_few(x, *arguments, **options)

    monkeypatch.setattr(moe, "mix_few", counted)
    return calls


@pytest.mark.parametrize("weights_dtype", [None, "int8"])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1),
        pytest.param(
            (2, 2, 2), marks=pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
        ),
    ],
)
def test_decoding_as_on_a_tpu_changes_nothing(
    model: Qwen3VL, monkeypatch, sizes: tuple[int, int, int], weights_dtype: str | None
) -> None:
    """Tokens and log-probabilities are those of ragged products, from weights that lie as in training."""
    mesh = make_mesh(*sizes)
    graphdef, params = nnx.split(model)
    params = jax.device_put(params, tree_shardings(params, mesh))
    ready = nnx.merge(graphdef, decoding_layout(params, mesh, "float32", weights_dtype=weights_dtype))
    shape = shape_of(prompt_slots=4, sample_slots=2, prefill_rows=4)
    with jax.set_mesh(mesh):
        expected = batching(ready, GREEDY, shape, mesh)(EXAMPLES, 2)
        calls = as_on_a_tpu(monkeypatch)
        got = batching(nnx.merge(*nnx.split(ready)), GREEDY, shape, mesh)(EXAMPLES, 2)
    assert calls and set(calls) == {8 // (sizes[0] * sizes[1])}  # of a data shard; prompts are not among them
    assert_same(got, expected)
    assert len(expected[0, 0].tokens) == LONG


def test_many_tokens_take_ragged_products(model: Qwen3VL, monkeypatch) -> None:
    calls = as_on_a_tpu(monkeypatch)
    layers = nnx.state(model.decoder.layers)
    width = model.config.text.hidden_size
    few, many = (jnp.zeros((rows, 8, width)) for rows in (32, 33))
    stacked, rest = moe.split_stacks(layers, few)
    assert stacked is not None and sorted(nnx.to_pure_dict(stacked)["experts"]) == ["down", "gate_up"]
    assert "router" in rest["experts"]
    assert moe.split_stacks(layers, many) == (None, layers)
    monkeypatch.setattr(moe, "MOST_NUMBERS", few.size - 1)
    assert moe.split_stacks(layers, few) == (None, layers)
    assert calls == []


def test_useful_products_are_those_of_a_tokens_own_experts() -> None:
    router, gate_up, down = stacks(24, "float32")
    x = jnp.zeros((5, 1, WIDTH))

    def run(x: jax.Array) -> jax.Array:
        layer = jnp.int32(0)
        return moe.mix_in_stack(
            x,
            router,
            LayerOfStack(gate_up, layer),
            LayerOfStack(down, layer),
            chosen=CHOSEN,
            interpret=True,
        )

    counted = count_flops(jax.jit(run).trace(x).jaxpr.jaxpr)
    name = experts_tpu.kernel_name(CHOSEN, EXPERTS)
    assert counted[name] == 2 * 5 * EXPERTS * 3 * WIDTH * 24
    assert without_recomputation(counted)[name] == 2 * 5 * CHOSEN * 3 * WIDTH * 24
