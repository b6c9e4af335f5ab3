"""A mesh of eight virtual devices gives the numbers of one, and what does not divide is named."""

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from onethinker_jax.model import hf_weights
from onethinker_jax.model.family import MEMBERS, family_member
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import (
    DECODE_RULES,
    LOGICAL_AXES,
    TRAIN_RULES,
    ShardingError,
    batch_sharding,
    decoding_layout,
    gather_weights,
    make_mesh,
    parameter_spec,
    tree_shardings,
)
from onethinker_jax.train.log.compilation_watch import count_compilations
from tests.model import tiny
from tests.model.generation.making import assert_same, batching, sampling, shape_of

needs_eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
# Every size a multiple of two, so that all three axes of the mesh can have two devices.
CONFIGS = {"dense": tiny.variant(tie_word_embeddings=False), "experts": tiny.CONFIGS[tiny.MOE]}
every_config = pytest.mark.parametrize("checkpoint", CONFIGS, indirect=True)


@pytest.fixture(scope="module")
def checkpoint(request, tmp_path_factory):
    config = CONFIGS[getattr(request, "param", "dense")]
    return tiny.write_checkpoint(config, tmp_path_factory.mktemp("sharding") / "model")


def loss(model, inputs):
    """Mean negative log-probability of the next token, and the logits."""
    logits = model.logits(model(inputs))
    chosen = jnp.roll(inputs.tokens, -1, axis=1)[..., None]
    taken = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[..., 0]
    return -(taken * (inputs.segment_ids > 0)).mean(), logits


@needs_eight
@every_config
def test_loss_logits_and_gradients_equal_one_device(checkpoint):
    packed = [[tiny.example(kind)] for kind in ("one image", "video", "text", "image and video")]
    inputs = tiny.rows(packed, batch=4)

    def step(model, inputs):
        graphdef, params = nnx.split(model)
        grad = jax.value_and_grad(lambda p, i: loss(nnx.merge(graphdef, p), i), has_aux=True)
        return jax.jit(grad)(params, inputs)

    (one_loss, one_logits), one_gradients = step(load_hf(checkpoint), inputs)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    model = load_hf(checkpoint, mesh=mesh)
    sharded = jax.device_put(inputs, batch_sharding(mesh, 4))
    with jax.set_mesh(mesh):
        (eight_loss, eight_logits), eight_gradients = step(model, sharded)
    np.testing.assert_allclose(eight_loss, one_loss, atol=1e-5)
    np.testing.assert_allclose(eight_logits, one_logits, atol=1e-5)
    for one, eight in zip(jax.tree.leaves(one_gradients), jax.tree.leaves(eight_gradients), strict=True):
        np.testing.assert_allclose(eight, one, atol=1e-5)

    graphdef, params = nnx.split(model)
    decoding = jax.device_put(params, tree_shardings(params, mesh, DECODE_RULES))
    with jax.set_mesh(mesh):
        got = jax.jit(lambda p, i: loss(nnx.merge(graphdef, p), i)[1])(decoding, sharded)
    np.testing.assert_allclose(got, one_logits, atol=1e-5)


@needs_eight
def test_a_layer_is_gathered_whole_and_its_gradient_is_sharded():
    """Its kernels over `fsdp`, in both towers; what lies on `tensor` stays there."""
    mesh = make_mesh(fsdp=4, tensor=2)
    kernels = {"q_proj": {"kernel": jnp.arange(64.0).reshape(8, 8)}}, {"fc2": {"kernel": jnp.ones((8, 8))}}
    for layer, name, gathered, sharded in zip(
        kernels,
        ("decoder.layers", "visual.blocks"),
        (PartitionSpec(None, "tensor"), PartitionSpec("tensor", None)),
        (PartitionSpec("fsdp", "tensor"), PartitionSpec("tensor", "fsdp")),
        strict=True,
    ):
        with jax.set_mesh(mesh):
            (out,) = jax.tree.leaves(jax.jit(lambda x, n=name: gather_weights(x, n))(layer))
            square = jax.grad(lambda x, n=name: (jax.tree.leaves(gather_weights(x, n))[0] ** 2).sum())
            (gradient,) = jax.tree.leaves(jax.jit(square)(layer))
        (kernel,) = jax.tree.leaves(layer)
        assert out.sharding.is_equivalent_to(NamedSharding(mesh, gathered), 2)
        assert gradient.sharding.is_equivalent_to(NamedSharding(mesh, sharded), 2)
        np.testing.assert_array_equal(out, kernel)
        np.testing.assert_array_equal(gradient, 2 * kernel)


@needs_eight
@every_config
def test_sampling_equals_one_device(checkpoint):
    """Six prompts in four rows over four data shards, heads over two devices, weights moved to decode."""
    prompts = [tiny.example("text", seed=seed) for seed in range(6)]
    shape = shape_of(prompt_slots=4, sample_slots=2, prefill_rows=4, decode_block=5)
    equals_one_device(checkpoint, prompts, shape, shape)


@needs_eight
@pytest.mark.parametrize("checkpoint", ["experts"], indirect=True)
def test_prompts_in_chunks_equal_whole_ones_on_one_device(checkpoint):
    """Images, videos and DeepStack features in chunks, the fifth prompt's behind decode blocks."""
    prompts = [tiny.example(kind) for kind in ("image and video", "text", "one image", "video", "text")]
    whole = shape_of(prompt_slots=4, sample_slots=2, prefill_rows=4, decode_block=5)
    equals_one_device(checkpoint, prompts, replace(whole, prefill_chunk_tokens=7), whole)


def equals_one_device(checkpoint, prompts, shape, one_device_shape):
    """Samples on eight devices; and nothing compiles after the first call."""
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    config = sampling(max_new_tokens=12, eos_ids=tuple(range(0, 150, 12)))
    expected = batching(load_hf(checkpoint), config, one_device_shape)(prompts, 3)
    model = load_hf(checkpoint, mesh=mesh)
    graphdef, params = nnx.split(model)
    params = decoding_layout(params, mesh, "float32", donate=True)
    with jax.set_mesh(mesh), count_compilations() as compilations:
        run = batching(nnx.merge(graphdef, params), config, shape, mesh)
        got = run(prompts, 3)
        assert_same(got, expected, atol=1e-5)
        warm = compilations.count
        run(prompts[:2], 2, step=2)
        assert compilations.since(warm) == []


@needs_eight
def test_rows_that_the_mesh_does_not_divide():
    with pytest.raises(ShardingError, match="3 rows are not a multiple of the 4 data shards"):
        batching(load_shapes(CONFIGS["dense"]), sampling(), shape_of(), make_mesh(data=2, fsdp=2, tensor=2))


@needs_eight
@every_config
@pytest.mark.parametrize("small", [0, hf_weights.SMALL], ids=["by layers", "whole"])
def test_load_places_and_save_gathers(checkpoint, small, tmp_path, monkeypatch):
    monkeypatch.setattr(hf_weights, "SMALL", small)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    model = load_hf(checkpoint, mesh=mesh)
    layers: Any = model.decoder.layers
    q_proj = layers.q_proj.kernel[...]
    assert q_proj.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    assert q_proj.addressable_shards[0].data.shape == (3, 32, 32)
    if model.config.text.moe is not None:
        gate_up = layers.experts.gate_up.kernel[...]
        assert gate_up.sharding.spec == PartitionSpec(None, None, None, "fsdp", "tensor")
        assert gate_up.addressable_shards[0].data.shape == (3, 6, 2, 32, 12)
    assert model.decoder.norm.scale[...].sharding.is_fully_replicated
    one, eight = nnx.state(load_hf(checkpoint)), nnx.state(model)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(one), nnx.to_pure_dict(eight))
    save_hf(model, tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (checkpoint / file).read_bytes()


@needs_eight
def test_rules():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    down = ("decoder.layers.down_proj.kernel", (3, 96, 64), mesh)
    assert parameter_spec(*down, TRAIN_RULES) == PartitionSpec(None, "tensor", "fsdp")
    assert parameter_spec(*down, DECODE_RULES) == PartitionSpec(None, "tensor", None)
    assert parameter_spec("decoder.layers.q_norm.scale", (3, 15), mesh, TRAIN_RULES) == PartitionSpec(
        None, None
    )
    assert batch_sharding(mesh, 8).spec == PartitionSpec(("data", "fsdp"))


@needs_eight
@pytest.mark.parametrize("name", CONFIGS)
def test_every_matrix_is_sharded_in_training(name):
    """A matrix whose row of the table names no axis would be copied to every device."""
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    for path, leaf in nnx.to_flat_state(nnx.state(load_shapes(CONFIGS[name]))):
        parameter, stacked = (
            ".".join(map(str, path)),
            "layers" in path or "blocks" in path or "deepstack_mergers" in path,
        )
        spec = parameter_spec(parameter, leaf.shape, mesh, TRAIN_RULES)
        sharded = any(axis is not None for axis in spec)
        assert sharded == (len(leaf.shape) - stacked >= 2), parameter


def load_shapes(config):
    from onethinker_jax.model.qwen3_vl import Qwen3VL

    return nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))


@needs_eight
def test_optimiser_state_lies_where_its_parameters_do(checkpoint):
    optax = pytest.importorskip("optax")
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    params = nnx.state(load_hf(checkpoint))
    state = jax.eval_shape(optax.adamw(1e-3).init, params)
    shardings = dict(jax.tree_util.tree_leaves_with_path(tree_shardings(params, mesh)))
    state_shardings = {
        jax.tree_util.keystr(path): s
        for path, s in jax.tree_util.tree_leaves_with_path(tree_shardings(state, mesh))
    }
    for path, sharding in shardings.items():
        found = [s for key, s in state_shardings.items() if key.endswith(jax.tree_util.keystr(path))]
        assert len(found) == 2 and all(s == sharding for s in found)


@needs_eight
def test_what_does_not_divide_is_named(tmp_path):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with pytest.raises(ShardingError, match=r"embed: dimension 'vocab' of size 161 .* 'tensor' of size 2"):
        parameter_spec("embed", (161, 64), mesh, TRAIN_RULES)
    odd = tiny.write_checkpoint(tiny.variant(text={"intermediate_size": 97}), tmp_path / "odd")
    with pytest.raises(ShardingError, match=r"decoder\.layers\.\w+_proj\.kernel: dimension 'mlp' of size 97"):
        load_hf(odd, mesh=mesh)
    with pytest.raises(ShardingError, match="3 rows are not a multiple of the 4 data shards"):
        batch_sharding(mesh, 3)
    with pytest.raises(ShardingError, match="data=4 fsdp=2 tensor=2 needs 16 devices, not 8"):
        make_mesh(data=4, fsdp=2, tensor=2)


@pytest.mark.parametrize("rules", [TRAIN_RULES, DECODE_RULES], ids=["train", "decode"])
@pytest.mark.parametrize("member", MEMBERS)
def test_every_parameter_of_the_released_sizes_is_matched_once(member, rules):
    mesh = make_mesh()
    model = nnx.eval_shape(lambda: Qwen3VL(family_member(member), rngs=nnx.Rngs(0)))
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = ".".join(map(str, path))
        assert sum(re.fullmatch(pattern, name) is not None for pattern, _ in LOGICAL_AXES) == 1, name
        assert len(parameter_spec(name, variable.shape, mesh, rules)) == len(variable.shape)


def test_a_parameter_that_no_pattern_matches_is_named():
    mesh, kernel = make_mesh(), jnp.ones((2, 8, 8))
    with pytest.raises(ShardingError, match=r"^decoder\.layers\.z_proj\.kernel"):
        parameter_spec("decoder.layers.z_proj.kernel", kernel.shape, mesh, TRAIN_RULES)
    tree = {"mu": {"decoder": {"layers": {"z_proj": {"kernel": kernel}}}}, "count": jnp.zeros((), jnp.int32)}
    with pytest.raises(ShardingError, match=r"^mu\.decoder\.layers\.z_proj\.kernel of shape \(2, 8, 8\)"):
        tree_shardings(tree, mesh)
    assert tree_shardings({"count": tree["count"]}, mesh)["count"].spec == PartitionSpec()
