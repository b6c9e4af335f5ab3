"""GPU hosts by name, and what is read of text that XLA compiled for GPUs: loops, collectives, hosts."""

import gzip
import importlib.util
import re

import pytest

from onethinker_jax.model.attention.attention import Backend
from onethinker_jax.model.config import MoEConfig
from onethinker_jax.sampler_settings import WeightsDtype
from onethinker_jax.train import plan
from onethinker_jax.train.cost.collectives import bytes_between_hosts, groups_of
from onethinker_jax.train.cost.gpu import TARGETS, is_gpu, parse_gpu_topology
from onethinker_jax.train.cost.hardware import CHIPS, GPUS, TopologyError
from onethinker_jax.train.cost.program_cost import Traffic, count_traffic
from tests.train.cost import making

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="XLA's GPU compiler, of the extra gpu-plan, is not installed",
)


@pytest.fixture(scope="module")
def text() -> str:
    return gzip.decompress(making.TEXT.read_bytes()).decode()


def traffic(text: str) -> Traffic:
    return count_traffic(text, trips=making.TOKENS)


@pytest.mark.parametrize(
    ("name", "chip", "xla", "devices"),
    [
        ("h200x8", "H200 SXM", "1x1x8", 8),
        ("h200x8x2", "H200 SXM", "1x2x8", 16),
        ("h100x1", "H100 SXM", "1x1x1", 1),
        ("a100x4", "A100 SXM 80GB", "1x1x4", 4),
        ("b200x8", "B200", "1x1x8", 8),
    ],
)
def test_names_of_hosts(name: str, chip: str, xla: str, devices: int) -> None:
    topology = parse_gpu_topology(name)
    assert is_gpu(name)
    assert (topology.chip.name, topology.xla_name, topology.devices) == (chip, xla, devices)


@pytest.mark.parametrize("name", ["h200", "h200x9", "h200x0", "h200x8x0", "h200-8", "v100x8", "h200x8x"])
def test_unknown_hosts(name: str) -> None:
    with pytest.raises(TopologyError, match=f"topology '{name}'"):
        parse_gpu_topology(name)


def test_slices_are_no_hosts() -> None:
    assert not any(is_gpu(f"{chip}-8") or is_gpu(f"{chip}:2x2") for chip in CHIPS)


def test_chips_are_whole() -> None:
    for target in TARGETS.values():
        chip = target.chip
        assert 0 < chip.network < chip.link_bandwidth < chip.hbm_bandwidth < chip.flops
        assert chip.hbm < target.memory < 1.08 * chip.hbm
    assert {target.device_kind for target in TARGETS.values()} == set(GPUS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qwen3_vl_8b_rl_8gpu", "--topology", "h200x9"], "topology 'h200x9': a host has 1 to 8 GPUs"),
        (["qwen3_vl_8b_rl_8gpu", "--topology", "h200"], "unknown topology 'h200'; write h200x8"),
        (
            ["qwen3_vl_8b_rl_8gpu", "--topology", "h200x4"],
            "h200x4 has 4 devices; mesh data=1 fsdp=2 tensor=4 has 8",
        ),
    ],
)
def test_errors_are_one_line(capsys, arguments: list[str], message: str) -> None:
    assert plan.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_without_the_compiler(monkeypatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert plan.main(["qwen3_vl_8b_rl_8gpu", "--topology=h200x8"]) == 1
    assert capsys.readouterr().err == (
        "error: XLA's GPU compiler is not installed; it comes with the extra gpu-plan: pip install '.[gpu-plan]'\n"
    )


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups=[4,2]<=[8], dimensions={1}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2] {'a'}, x=true", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2] {'c'}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (
            "replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}",
            [[0, 1], [2, 3], [4, 5], [6, 7]],
        ),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("replica_groups={}, to_apply=%add", []),
    ],
)
def test_groups_in_every_writing(written: str, groups: list[list[int]]) -> None:
    assert groups_of(written) == groups


def test_what_leaves_a_host() -> None:
    """Two hosts of two: a ring's traffic is shared by the cards of a group's members on a host."""
    hosts = [0, 0, 1, 1]
    assert bytes_between_hosts("all-reduce", 8.0, [[0, 1], [2, 3]], hosts) == 0
    assert bytes_between_hosts("all-gather", 8.0, [[0, 2], [1, 3]], hosts) == 8
    assert bytes_between_hosts("reduce-scatter", 8.0, [[0, 1, 2, 3]], hosts) == 4
    assert bytes_between_hosts("all-to-all", 9.0, [[0, 1, 2, 3]], hosts) == 6  # two of three parts
    assert bytes_between_hosts("collective-permute", 8.0, [[0, 1], [1, 2]], hosts) == 8


def test_loops_turn_as_often_as_xla_counted(text: str) -> None:
    """Three chunks of prompts' keys, two of samples' own, two layers; the loop over tokens has no count."""
    counts = re.findall(r'"known_trip_count":\{"n":"(\d+)"\}', text)
    assert sorted(map(int, counts)) == sorted([making.PROMPT_CHUNKS, making.SAMPLE_CHUNKS, making.LAYERS])
    assert len(re.findall(r" while\(", text)) == len(counts) + 1
    whole = traffic(text)
    assert all(count % making.TOKENS in (0, 1) for count in whole.calls.values())


def test_a_layer_sums_its_two_products(text: str) -> None:
    """Attention's output and the feed-forward's, each [prompts / 2, samples, width] in bfloat16, over two devices."""
    once = text.replace('known_trip_count":{"n":"2"}', 'known_trip_count":{"n":"1"}')
    more, less = traffic(text), traffic(once)
    product = making.ROWS // 2 * making.GROUP * 256 * 2
    longest = 2 * 4  # the longest prompt and sample of all devices, over the two that differ in rows
    assert more.wire["all-reduce"] - less.wire["all-reduce"] == making.TOKENS * (2 * product + longest)
    assert more.calls["all-reduce"] - less.calls["all-reduce"] == making.TOKENS * 3


def test_text_for_several_hosts(text: str) -> None:
    """With each pair of devices that share heads on a host, only what joins rows leaves it."""
    apart = count_traffic(text, trips=making.TOKENS, hosts=[0, 0, 1, 1])
    mixed = count_traffic(text, trips=making.TOKENS, hosts=[0, 1, 0, 1])
    assert 0 < apart.network < mixed.network / 4
    assert mixed.network < sum(mixed.wire.values())


@needs_compiler
@pytest.mark.slow
def test_compiled_for_gpus_and_for_tpus(text: str, monkeypatch) -> None:
    """The fixture is what the compiler gives today; a TPU's text of the same program sends the same bytes."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    gpu = traffic(making.decoding(making.TOPOLOGY))
    assert gpu.calls == traffic(text).calls and gpu.wire == traffic(text).wire
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, of the extra tpu, is not installed")
    tpu = traffic(making.decoding(making.TPUS))
    assert sum(gpu.wire.values()) == pytest.approx(sum(tpu.wire.values()), rel=0.02)
    assert gpu.calls["all-reduce"] == pytest.approx(tpu.calls["all-reduce"], rel=0.15)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("gpu", TARGETS)
def test_decoding_reads_weights_and_cache_in_place(text: str, monkeypatch, gpu: str) -> None:
    """No layer's weights and no keys are copied out of their stack; two kernels a layer read the cache."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    compiled = making.decoding(f"{gpu}x4", "flash_gpu")
    assert compiled.count('custom_call_target="__gpu$xla.gpu.triton"') == 2 * making.LAYERS
    assert " while(" in compiled and "known_trip_count" not in compiled
    copied = re.findall(r"%wrapped_(?:dynamic-)?slice[\w.]* = bf16\[1,\d\d+,\d+\]", compiled)
    assert not copied
    assert traffic(compiled).hbm < 0.5 * traffic(text).hbm


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, of the extra tpu, is not installed"
)
@pytest.mark.slow
def test_decoding_on_tpus_reads_the_cache_in_place(monkeypatch) -> None:
    """Two kernels in the loop over layers, none over chunks; the bytes are those that must be read, and little more."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    compiled = making.decoding(making.TPUS, "flash_tpu", times=32)
    assert compiled.count('custom_call_target="tpu_custom_call"') == 2
    assert "decode_softmax_of_one_layer/" in compiled
    assert len(re.findall(r" while\(", compiled)) == 2  # over tokens, and over layers
    config, sizes = making.two_layers(times=32)
    tokens = config.rl.rollout.prompt_tokens + making.GROUP * config.rl.rollout.max_new_tokens
    heads = sizes.text.num_kv_heads // 2  # of a device, which has one of the prompts
    cache = making.LAYERS * tokens * heads * sizes.text.head_dim * 2 * 2  # keys and values, bfloat16
    assert cache < traffic(compiled).hbm / making.TOKENS < 1.15 * cache


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, of the extra tpu, is not installed"
)
@pytest.mark.slow
@pytest.mark.parametrize("weights_dtype", [None, "int8"])
@pytest.mark.parametrize("size", [384, 512])  # of a device's F: with D innermost, and with F
def test_decoding_on_tpus_reads_experts_in_place(
    monkeypatch, size: int, weights_dtype: WeightsDtype | None
) -> None:
    """A kernel reads the stacks as they are given: no instruction makes an array of all experts of a layer."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    moe = MoEConfig(num_experts=12, experts_per_token=4, intermediate_size=size)
    compiled = making.decoding(making.TPUS, "flash_tpu", width=1024, weights_dtype=weights_dtype, experts=moe)
    assert compiled.count('custom_call_target="tpu_custom_call"') == 3
    assert "experts_4_of_12_of_one_layer/" in compiled and "ragged" not in compiled
    made = re.findall(r" = (?:bf16|s8)\[(?:\d+,)?12,[\d,]*\]\S* ([a-z-]+)\(", compiled)
    assert "parameter" in made and not set(made) - {"parameter", "bitcast", "get-tuple-element"}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "backend"), [("h200x4", "flash_gpu"), ("a100x4", "flash_gpu"), (making.TPUS, "flash_tpu")]
)
def test_int8_matrices_are_read_once(monkeypatch, topology: str, backend: Backend) -> None:
    """A byte a weight and token, and none written: what is saved is half of the bfloat16 matrices, less the scales."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    if topology == making.TPUS and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, of the extra tpu, is not installed")
    # No stack of feed-forward matrices of 8,192 fits into a TPU's own memory. For an A100 XLA would cut the product of
    # such a bfloat16 matrix into four sums, and copies the matrix out of its stack for that.
    width = 4096 if topology == "a100x4" else 8192
    plain, small = (
        traffic(making.decoding(topology, backend, width=width, weights_dtype=dtype)).hbm
        for dtype in (None, "int8")
    )
    layer = 12 * 128 * width + 6 * width**2  # 4 + 2 + 2 + 4 heads
    matrices = (making.LAYERS * layer + 256 * width) / 2  # a device's
    # TPUs fetch both layers of the small stacks at each layer, once these fit.
    assert (plain - small) / making.TOKENS == pytest.approx(
        matrices, rel=0.1 if topology == making.TPUS else 0.02
    )
    assert small < 0.6 * plain
