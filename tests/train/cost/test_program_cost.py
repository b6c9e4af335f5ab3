"""FLOPs through scans, shards and recomputation; bytes and collectives of compiled text through loops."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from onethinker_jax.model.attention.attention import Backend, attention
from onethinker_jax.model.layers import Remat, recompute
from onethinker_jax.model.sharding import BATCH_AXES, make_mesh
from onethinker_jax.train.cost.program_cost import count_flops, count_traffic, without_recomputation

PRODUCT = 2 * 4 * 8 * 8  # of the [4, 8] by [8, 8] product below


def layers(x: jax.Array, kernels: jax.Array) -> jax.Array:
    def body(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ kernel), None

    return jax.lax.scan(jax.checkpoint(body), x, kernels)[0].sum()


def flops(function, *shapes: tuple[int, ...], **settings: Any) -> dict[str, int]:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return dict(count_flops(jax.jit(function).trace(*arguments).jaxpr.jaxpr, **settings))


def test_a_scanned_layer_counts_as_often_as_it_runs() -> None:
    assert flops(layers, (4, 8), (7, 8, 8)) == {"matmul": 7 * PRODUCT}


def test_recomputation_counts() -> None:
    """Forward, the same again, and two products backward."""
    assert flops(jax.grad(layers, argnums=(0, 1)), (4, 8), (7, 8, 8)) == {"matmul": 7 * 4 * PRODUCT}


def test_while_branches_and_grouped_products() -> None:
    def decode(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ kernel, x)

    assert flops(decode, (4, 8), (8, 8), trips=50) == {"matmul": 50 * PRODUCT}

    def either(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.cond(x.sum() > 0, lambda: x @ kernel @ kernel, lambda: x @ kernel)

    assert flops(either, (4, 8), (8, 8)) == {"matmul": 2 * PRODUCT}
    assert flops(either, (4, 8), (8, 8), skip_conditional=True) == {"matmul": PRODUCT}

    def experts(x: jax.Array, kernels: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(x, kernels, jnp.array([1, 3]))

    assert flops(experts, (4, 8), (2, 8, 8)) == {"matmul": PRODUCT}


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
def test_a_shard_counts_once_for_every_device_that_has_its_own() -> None:
    """Shapes inside are of the axes that are split by hand; the compiler's own split is not seen."""
    rows = PartitionSpec(BATCH_AXES)
    split = jax.shard_map(
        jnp.matmul,
        mesh=make_mesh(2, 2, 2),
        in_specs=(rows, PartitionSpec()),
        out_specs=rows,
        axis_names=set(BATCH_AXES),
    )
    assert flops(split, (4, 8), (8, 8)) == {"matmul": PRODUCT}


@pytest.mark.parametrize("backend", ["flash_tpu", "flash_gpu"])
def test_attention_kernels_count_by_name(backend: Backend) -> None:
    """Half of all pairs, a product of 2 x 128 FLOPs each: two forward, backward five in one kernel or seven in two."""

    def total(query: jax.Array, key: jax.Array) -> jax.Array:
        ids = jnp.ones((1, 256), jnp.int32)
        return attention(query, key, key, ids, causal=True, backend=backend).sum()

    product = 4 * 256 * 256 // 2 * 2 * 128
    backward = {"gradients": 5} if backend == "flash_tpu" else {"query_gradient": 3, "key_gradients": 4}
    counted = flops(jax.grad(total, argnums=(0, 1)), (1, 256, 4, 128), (1, 256, 2, 128))
    assert counted == {
        f"attention_{part}_causal": products * product
        for part, products in {"forward": 2, **backward}.items()
    }
    assert without_recomputation(counted) == {
        "attention_forward_causal": 2 * product,
        "attention_backward": 4 * product,
    }


@pytest.mark.parametrize("on_mesh", [False, True])
@pytest.mark.parametrize("backend", ["xla", "flash_tpu", "flash_gpu"])
def test_what_remat_makes_anew(backend: Backend, on_mesh: bool) -> None:
    """Of a scanned layer `dots` makes no product and no attention anew, `full` all that it has."""
    if on_mesh and jax.device_count() < 8:
        pytest.skip("needs eight devices, virtual ones do")

    def total(x: jax.Array, kernels: jax.Array, remat: Remat) -> jax.Array:
        def body(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
            query = (x @ kernel).reshape(*x.shape[:2], 4, 128)
            ids = jnp.ones(x.shape[:2], jnp.int32)
            out = attention(query, query[:, :, :2], query[:, :, 2:], ids, causal=True, backend=backend)
            return jnp.tanh(out.reshape(x.shape)), None

        return jax.lax.scan(recompute(body, remat), x, kernels)[0].sum()

    def count(remat: Remat) -> dict[str, int]:
        gradient = jax.grad(partial(total, remat=remat), argnums=(0, 1))
        return flops(gradient, (8, 256, 512), (3, 512, 512))

    with jax.set_mesh(make_mesh(2, 2, 2)) if on_mesh else nullcontext():
        none, dots, full = count("none"), count("dots"), count("full")
    assert dots == none
    forward = "matmul" if backend == "xla" else "attention_forward_causal"
    assert full[forward] > none[forward] and full["matmul"] > none["matmul"]


HLO = """HloModule jit_step

%condition (state: (s32[], f32[4,8])) -> pred[] {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  %at = s32[] get-tuple-element(%state), index=0
  %layers = s32[] constant(5)
  ROOT %more = pred[] compare(%at, %layers), direction=LT
}

%sliced (stack: f32[5,16,8], number: s32[]) -> f32[16,8] {
  %stack = f32[5,16,8]{2,1,0} parameter(0)
  %number = s32[] parameter(1)
  ROOT %layer = f32[16,8]{1,0} dynamic-slice(%stack, %number), dynamic_slice_sizes={1,16,8}
}

%body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %at.1 = s32[] get-tuple-element(%state.1), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%state.1), index=1
  %all = f32[5,16,8]{2,1,0:T(8,128)S(0)} constant({...})
  %kernel = f32[16,8]{1,0} fusion(%all, %at.1), kind=kLoop, calls=%sliced
  %gathered = f32[16,32]{1,0} all-gather(%kernel), replica_groups=[2,4]<=[8], dimensions={1}
  %near = f32[4,32]{1,0:T(8,128)S(1)} dot(%x, %gathered), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %sum = f32[4,8]{1,0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %next = (s32[], f32[4,8]{1,0}) tuple(%at.1, %sum)
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %plus = f32[] add(%a, %b)
}

ENTRY %main (x: f32[4,8]) -> (s32[], f32[4,8]) {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4,8]{1,0}) tuple(%zero, %x.1)
  ROOT %done = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body
}
"""


def test_traffic_of_a_loop() -> None:
    traffic = count_traffic(HLO)
    assert dict(traffic.calls) == {"all-gather": 5, "all-reduce": 5}
    gathered, summed = 16 * 32 * 4, 4 * 8 * 4
    assert dict(traffic.wire) == {"all-gather": 5 * gathered * 3 // 4, "all-reduce": 5 * summed}
    counter, kernel = 4, 16 * 8 * 4
    fusion = 2 * kernel + counter  # the slice, not the stack, read and written
    dot = summed + gathered  # its result lies in the chip's own memory
    compare = 2 * counter + 1
    assert traffic.hbm == 5 * (fusion + kernel + gathered + dot + 2 * summed + compare)


def test_a_loop_of_unknown_length() -> None:
    unknown = HLO.replace("direction=LT", "direction=NE")
    assert count_traffic(unknown, trips=9).calls["all-gather"] == 9


FUSED = """HloModule jit_step

%inner (stack: f32[5,16,8], number: s32[]) -> f32[16,8] {
  %stack = f32[5,16,8]{2,1,0} parameter(0)
  %number = s32[] parameter(1)
  %same = f32[5,128]{1,0} bitcast(%stack)
  ROOT %layer = f32[16,8]{1,0} dynamic-slice(%same, %number), dynamic_slice_sizes={1,128}
}

%outer (cache: f32[5,16,8], new: f32[16,8], all: f32[5,16,8], at: s32[]) -> f32[5,16,8] {
  %cache = f32[5,16,8]{2,1,0} parameter(0)
  %new = f32[16,8]{1,0} parameter(1)
  %all = f32[5,16,8]{2,1,0} parameter(2)
  %at = s32[] parameter(3)
  %layer.1 = f32[16,8]{1,0} fusion(%all, %at), kind=kLoop, calls=%inner
  %sum = f32[16,8]{1,0} add(%layer.1, %new)
  ROOT %put = f32[5,16,8]{2,1,0} dynamic-update-slice(%cache, %sum, %at)
}

ENTRY %main (cache: f32[5,16,8], new: f32[16,8], all: f32[5,16,8], at: s32[]) -> f32[5,16,8] {
  %cache.1 = f32[5,16,8]{2,1,0} parameter(0)
  %new.1 = f32[16,8]{1,0} parameter(1)
  %all.1 = f32[5,16,8]{2,1,0} parameter(2)
  %at.1 = s32[] parameter(3)
  ROOT %out = f32[5,16,8]{2,1,0} fusion(%cache.1, %new.1, %all.1, %at.1), kind=kLoop, calls=%outer
}
"""


def test_slices_and_updates_inside_a_fusion() -> None:
    """A stack sliced in a fusion within the fusion, another updated in place."""
    layer, counter = 16 * 8 * 4, 4
    assert count_traffic(FUSED).hbm == layer + layer + 2 * layer + counter
    whole = FUSED.replace("add(%layer.1, %new)", "add(%layer.1, %all)")
    assert count_traffic(whole).hbm == count_traffic(FUSED).hbm + 4 * layer


def test_a_stack_that_a_fusion_copies_before_it_is_sliced() -> None:
    """So TPUs read an int8 stack: in other tiles, by a fusion within the fusion that moves nothing by itself."""
    copied = FUSED.replace(
        "  %layer.1 = f32[16,8]{1,0} fusion(%all, %at)",
        "  %tiled = f32[5,16,8]{2,1,0} fusion(%all), kind=kLoop, calls=%copied\n"
        "  %layer.1 = f32[16,8]{1,0} fusion(%tiled, %at)",
    ).replace(
        "%outer (",
        "%copied (input: f32[5,16,8]) -> f32[5,16,8] {\n  %input = f32[5,16,8]{2,1,0} parameter(0)\n"
        "  ROOT %copy = f32[5,16,8]{2,1,0} copy(%input)\n}\n\n%outer (",
    )
    assert count_traffic(copied).hbm == count_traffic(FUSED).hbm
    summed = copied.replace(" copy(%input)", " add(%input, %input)")
    assert count_traffic(summed).hbm == count_traffic(FUSED).hbm + 4 * 16 * 8 * 4


KERNEL = """HloModule jit_step

ENTRY %main (layer: s32[1], first: s32[2], count: s32[2], query: f32[2,8], keys: f32[5,2,8], values: f32[5,2,8]) -> f32[2,8] {
  %layer = s32[1]{0} parameter(0)
  %first = s32[2]{0} parameter(1)
  %count = s32[2]{0} parameter(2)
  %query = f32[2,8]{1,0} parameter(3)
  %keys = f32[5,2,8]{2,1,0} parameter(4)
  %values = f32[5,2,8]{2,1,0} parameter(5)
  ROOT %out = f32[2,8]{1,0} custom-call(%layer, %first, %count, %query, %keys, /*index=5*/%values), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/decode_softmax_of_one_layer/pallas_call"}
}
"""  # noqa: E501


def test_a_kernel_that_reads_one_layer_of_a_stack() -> None:
    numbers, layer = 4 * (1 + 2 + 2), 2 * 8 * 4
    assert count_traffic(KERNEL).hbm == numbers + 2 * layer + 2 * layer  # query and result, keys and values
    every_layer = KERNEL.replace("decode_softmax_of_one_layer", "decode_softmax")
    assert count_traffic(every_layer).hbm == numbers + 2 * layer + 2 * 5 * layer
