"""Adapters: nothing at first, the same merged as added, and the same in PEFT on transformers' model."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.lora_settings import ATTENTION, LoRAError, LoRASettings
from onethinker_jax.model.family import family_member
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.lora import adapted_maps, add_adapters, merge_adapters
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.peft_directory import save_peft
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import (
    DECODE_RULES,
    TRAIN_RULES,
    decoding_layout,
    make_mesh,
    parameter_spec,
    tree_shardings,
)
from tests.model import tiny
from tests.model.conftest import open_in_transformers, runner
from tests.train import making

EVERYWHERE = LoRASettings(rank=3, alpha=12.0, vision=True)
ROW = [[tiny.example("one image")]]


def adapted(settings: LoRASettings, config: Any = tiny.BASE, *, moved: bool = True) -> Qwen3VL:
    """A model with adapters: fresh ones, or with B of a size that is seen in the logits."""
    model = Qwen3VL(config, rngs=nnx.Rngs(0))
    add_adapters(model, settings, rngs=nnx.Rngs(1), dtype=jnp.dtype(jnp.float32))
    if moved:
        for number, (_, linear) in enumerate(adapted_maps(model, settings)):
            assert linear.lora is not None
            linear.lora.b[...] = 0.1 * jax.random.normal(jax.random.key(number), linear.lora.b.shape)
    return model


def logits(model: Qwen3VL) -> np.ndarray:
    return runner(model)(tiny.rows(ROW, batch=1, side=model.config.vision.grid_side))


def test_fresh_adapters_change_no_bit() -> None:
    np.testing.assert_array_equal(
        logits(adapted(EVERYWHERE, moved=False)), logits(Qwen3VL(tiny.BASE, rngs=nnx.Rngs(0)))
    )


def test_adapters_begin_as_those_of_peft() -> None:
    """A uniform within 1 / sqrt(in) (PEFT's Kaiming with a = sqrt 5), B zero, and the layers apart."""
    _, linear = next(
        adapted_maps(model := adapted(LoRASettings(rank=64), moved=False), model.lora or EVERYWHERE)
    )
    assert linear.lora is not None
    a, bound = np.asarray(linear.lora.a[...]), 64**-0.5
    assert a.shape == (3, 64, 64) and not np.any(np.asarray(linear.lora.b[...]))
    assert 0.99 * bound < np.abs(a).max() <= bound
    np.testing.assert_allclose(a.std(), bound / 3**0.5, rtol=0.02)
    assert abs(np.corrcoef(a[0].ravel(), a[1].ravel())[0, 1]) < 0.1


def test_merged_computes_what_added_does() -> None:
    model = adapted(EVERYWHERE)
    plain = logits(Qwen3VL(tiny.BASE, rngs=nnx.Rngs(0)))
    added = logits(model)
    merged = merge_adapters(model)
    assert np.abs(added - plain).max() > 0.1
    np.testing.assert_allclose(logits(merged), added, atol=2e-5)
    assert merged.lora is None and model.lora == EVERYWHERE  # the given model keeps its adapters
    np.testing.assert_array_equal(logits(model), added)
    assert merge_adapters(merged) is merged


def test_the_product_by_hand() -> None:
    """y = x W + alpha / rank (x A) B of one map of one layer, in float64."""
    model = adapted(LoRASettings(rank=2, alpha=6.0, targets=("o_proj",)))
    layers: Any = model.decoder.layers
    linear = layers.o_proj
    one = jax.tree.map(lambda leaf: leaf[1], nnx.state(linear))
    x = jax.random.normal(jax.random.key(5), (4, 64))
    got = nnx.merge(nnx.graphdef(linear), one)(x)
    w, a, b = (
        np.asarray(part, np.float64)
        for part in (one["kernel"][...], one["lora"]["a"][...], one["lora"]["b"][...])
    )
    np.testing.assert_allclose(got, np.asarray(x, np.float64) @ (w + 3.0 * a @ b), atol=1e-5)


def test_adapters_and_their_base_are_told_apart_without_a_copy() -> None:
    params = nnx.state(adapted(replace(EVERYWHERE, targets=("q_proj", "down_proj"))))
    trained, base = split_adapters(params)
    assert base is not None
    names = sorted(making.named(trained))
    assert {re.sub(r"\.lora\.[ab](\.value)?$", "", name) for name in names} == {
        "decoder.layers.q_proj",
        "decoder.layers.down_proj",
        *(f"visual.blocks.{name}" for name in ("qkv", "proj", "fc1", "fc2")),
        *(f"visual.{name}.{layer}" for name in ("merger", "deepstack_mergers") for layer in ("fc1", "fc2")),
    }
    assert sorted(making.named(base)) == sorted(making.named(nnx.state(Qwen3VL(tiny.BASE, rngs=nnx.Rngs(0)))))
    again = join_adapters(trained, base)
    for mine, other in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert mine is other
    plain = nnx.state(Qwen3VL(tiny.BASE, rngs=nnx.Rngs(0)))
    assert split_adapters(plain) == (plain, None) and join_adapters(plain, None) is plain


def test_the_merged_gradient_projected_is_the_gradient_of_adapters() -> None:
    """With W' = W + s A B and G the gradient of W': that of A is s G B^T, and that of B is s A^T G."""
    model = adapted(EVERYWHERE)
    inputs = tiny.rows(ROW, batch=1, side=model.config.vision.grid_side)
    direction = jax.random.normal(jax.random.key(3), (1, tiny.TOKENS, 160))

    def gradients(model: Qwen3VL) -> dict[str, np.ndarray]:
        graphdef, params = nnx.split(model)
        trained, base = split_adapters(params)

        def loss(trained: nnx.State) -> jax.Array:
            whole: Qwen3VL = nnx.merge(graphdef, join_adapters(trained, base))
            return jnp.sum(whole.logits(whole(inputs)) * direction)

        return {
            name.removesuffix(".value"): leaf
            for name, leaf in making.named(jax.jit(jax.grad(loss))(trained)).items()
        }

    mine, whole = gradients(model), gradients(merge_adapters(model))
    scale, checked = EVERYWHERE.scale, 0
    for name, linear in adapted_maps(model, EVERYWHERE):
        assert linear.lora is not None
        a, b, full = linear.lora.a[...], linear.lora.b[...], whole[f"{name}.kernel"]
        close = {"rtol": 1e-3, "atol": 1e-4 * np.abs(full).max()}
        np.testing.assert_allclose(mine[f"{name}.lora.a"], scale * full @ np.swapaxes(b, -1, -2), **close)
        np.testing.assert_allclose(mine[f"{name}.lora.b"], scale * np.swapaxes(a, -1, -2) @ full, **close)
        checked += 1
    assert checked == 15 and len(mine) == 2 * checked


@pytest.mark.parametrize("name", ["tied", tiny.MOE])
def test_peft_loads_the_adapters_with_equal_logits(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    settings = EVERYWHERE if name == "tied" else replace(EVERYWHERE, targets=ATTENTION)
    model = adapted(settings, tiny.CONFIGS[name])
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    save_hf(Qwen3VL(tiny.CONFIGS[name], rngs=nnx.Rngs(0)), base)
    save_peft(model, adapter, base=str(base))
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    loaded = PeftModel.from_pretrained(open_in_transformers(base), str(adapter))
    held = {name for name, _ in loaded.named_parameters() if "lora_" in name}
    expected = sum(
        linear.kernel.shape[0] if len(linear.kernel.shape) > 2 else 1
        for _, linear in adapted_maps(model, settings)
    )
    assert len(held) == 2 * expected
    example = tiny.example("one image")
    theirs = of_torch(loaded, example)
    count = theirs.shape[1]
    np.testing.assert_allclose(logits(model)[:, :count], theirs, atol=1e-4)
    np.testing.assert_allclose(of_torch(loaded.merge_and_unload(), example), theirs, atol=1e-4)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


def of_torch(model: Any, example: tiny.Sample) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(**tiny.hf_inputs([example])).logits.numpy()


def test_the_merged_directory_is_an_ordinary_one(tmp_path: Path) -> None:
    """No name of an adapter in it, and equal logits from ours and from transformers."""
    model = adapted(EVERYWHERE)
    save_hf(merge_adapters(model), tmp_path / "model")
    np.testing.assert_allclose(logits(load_hf(tmp_path / "model")), added := logits(model), atol=2e-5)
    theirs = of_torch(open_in_transformers(tmp_path / "model"), tiny.example("one image"))
    np.testing.assert_allclose(added[:, : theirs.shape[1]], theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": -1}, r"model\.lora\.rank -1 must be positive, or 0 for no adapters"),
        ({"alpha": 0.0}, r"model\.lora\.alpha 0 must be positive"),
        ({"targets": ("q_prj",)}, r"model\.lora\.targets 'q_prj': there are q_proj, .*q_proj"),
        ({"targets": ("q_proj", "q_proj")}, r"name each once"),
        ({"rank": 1, "targets": ()}, r"nothing would be trained"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LoRAError, match=message) as caught:
        LoRASettings(**settings)
    assert "\n" not in str(caught.value)


def test_experts_take_no_adapters() -> None:
    with pytest.raises(
        LoRAError, match=r"targets gate_proj up_proj down_proj: .* experts .* name some of q_proj"
    ):
        adapted(LoRASettings(rank=2), tiny.CONFIGS[tiny.MOE])


@pytest.mark.parametrize("name", ["2b", "8b", "30b-a3b"])
def test_adapters_are_sharded_as_their_kernels(name: str) -> None:
    """A's rows as the kernel's, B's columns as the kernel's, and no rank, for every map of the released sizes."""
    sizes = family_member(name)
    settings = LoRASettings(
        rank=16, vision=True, targets=ATTENTION if sizes.text.moe else LoRASettings().targets
    )

    def make() -> Qwen3VL:
        model = Qwen3VL(sizes, rngs=nnx.Rngs(0))
        add_adapters(model, settings, rngs=nnx.Rngs(0), dtype=jnp.dtype(jnp.float32))
        return model

    model, mesh = nnx.eval_shape(make), jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))
    tree_shardings(nnx.state(model), mesh)  # every parameter has its place
    for path, linear in adapted_maps(model, settings):
        assert linear.lora is not None
        for rules in (TRAIN_RULES, DECODE_RULES):
            specs = {
                part: tuple(parameter_spec(f"{path}.{part}", variable.shape, mesh, rules))
                for part, variable in (
                    ("kernel", linear.kernel),
                    ("lora.a", linear.lora.a),
                    ("lora.b", linear.lora.b),
                )
            }
            kernel = specs["kernel"]
            assert specs["lora.a"] == (*kernel[:-1], None)
            assert specs["lora.b"] == (*kernel[:-2], None, kernel[-1])


def test_decoding_shares_the_base() -> None:
    """Where only adapters change their dtype, the base's arrays are passed on as they are."""
    model = adapted(LoRASettings(rank=2), moved=False)
    trained, base = split_adapters(nnx.state(model))
    assert base is not None
    base = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), base)
    mesh = make_mesh()
    params = jax.device_put(join_adapters(trained, base), tree_shardings(join_adapters(trained, base), mesh))
    moved = decoding_layout(params, mesh, "bfloat16")
    (adapters, shared), (_, base) = split_adapters(moved), split_adapters(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(adapters)} == {"bfloat16"}
    for mine, other in zip(jax.tree.leaves(shared), jax.tree.leaves(base), strict=True):
        assert mine is other
