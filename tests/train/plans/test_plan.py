"""`plan`: names of slices, errors of one line, and a compiled plan whose compile time does not grow with depth."""

import importlib.util
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import jax
import pytest
from jax.sharding import Mesh

from onethinker_jax.command_line import UsageError
from onethinker_jax.model.config import Qwen3VLConfig, TextConfig, VisionConfig
from onethinker_jax.model.family import MEMBERS, family_member
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train import plan
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.config.optimizer import BatchSettings
from onethinker_jax.train.config.presets import PRESETS, shapes
from onethinker_jax.train.config.presets_qwen3_vl import SLICES
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.cost.hardware import CHIPS, Chip, TopologyError, parse_topology
from onethinker_jax.train.cost.program_cost import Traffic
from onethinker_jax.train.plans.compiling import compile_program
from onethinker_jax.train.plans.compiling import plan as plan_all
from onethinker_jax.train.plans.description import describe
from onethinker_jax.train.plans.lengths import describe_expected, expected_seconds
from onethinker_jax.train.plans.planned_program import Program
from onethinker_jax.train.plans.programs import plan_programs
from onethinker_jax.train.plans.report import Memory, Report
from onethinker_jax.train.plans.targets import find_target
from onethinker_jax.train.simulation.expected_programs import Expected
from onethinker_jax.train.simulation.expected_step import largest_sizes
from onethinker_jax.train.simulation.given_lengths import given_lengths

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, of the extra tpu, is not installed"
)


@pytest.mark.parametrize(
    ("name", "libtpu", "devices"),
    [
        ("v5p-32", "v5p:2x2x4", 16),  # a v5p name counts TensorCores, two a chip
        ("v5p-128", "v5p:4x4x4", 64),
        ("v5e-16", "v5e:4x4", 16),
        ("v6e-32", "v6e:4x8", 32),
        ("v6e:2x4", "v6e:2x4", 8),
        ("tpu7x:2x2x1", "tpu7x:2x2x1", 8),
    ],
)
def test_names_of_slices(name: str, libtpu: str, devices: int) -> None:
    topology = parse_topology(name)
    assert (topology.libtpu_name, topology.devices) == (libtpu, devices)


@pytest.mark.parametrize("name", ["v5p-33", "v6e-7", "h100", "v6e:2x2x2", "v6e:0x4", "", "v9-8", "tpu7x-16"])
def test_unknown_slices(name: str) -> None:
    with pytest.raises(TopologyError, match="topology"):
        parse_topology(name)


def test_chips_are_whole() -> None:
    for name, chip in CHIPS.items():
        assert chip.name == name
        assert 0 < chip.link_bandwidth < chip.hbm_bandwidth < chip.flops


def test_family_and_presets() -> None:
    """Every preset's mesh has its slice's devices, and its model the family's sizes."""
    assert {preset.__name__ for preset in SLICES} <= set(PRESETS)
    for preset, topology in SLICES.items():
        config, doc = preset(), preset.__doc__
        mesh = config.mesh
        assert mesh.data * mesh.fsdp * mesh.tensor == parse_topology(topology).devices, config.name
        assert doc is not None
        assert preset.__name__ in doc
        assert topology in doc
        assert config.model.family in MEMBERS
        sizes = family_member(config.model.family)
        assert sizes.text.num_kv_heads % mesh.tensor == 0
    widest = family_member("8b")
    assert (widest.text.hidden_size, widest.text.num_layers, widest.vision.depth) == (4096, 36, 27)
    assert family_member("2b").tie_word_embeddings


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nonesuch", "--topology", "v6e-8"], 2, "unknown preset 'nonesuch'"),
        (["shapes", "--topology"], 2, "Missing value for argument '--topology'"),
        (["shapes", "--only"], 2, "Missing value for argument '--only'"),
        (["shapes", "--topology", "v6e-9"], 1, "unknown topology 'v6e-9'; there are: v6e-1"),
        (["shapes", "--topology", "v6e-8"], 1, "v6e-8 has 8 devices; mesh data=1 fsdp=1 tensor=1 has 1"),
        (["shapes"], 1, "there is no GPU here; name a TPU slice or a GPU host: --topology v5p-32"),
        (
            ["shapes", "--topology", "v6e-1", "--lengths", "gone.jsonl"],
            1,
            "--lengths gone.jsonl: No such file",
        ),
        (["shapes", "--topology", "v6e-1", "--lengths", "answer=3"], 1, "no length is called 'answer'"),
    ],
)
def test_errors_are_one_line(capsys, arguments: list[str], status: int, message: str) -> None:
    assert plan.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_without_libtpu(monkeypatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert plan.main(["qwen3_vl_2b_sft", "--topology=v6e-8"]) == 1
    assert capsys.readouterr().err == (
        "error: libtpu is not installed; it comes with the extra tpu: pip install '.[tpu]'\n"
    )


def eight_chips(config: TrainConfig) -> tuple[Chip, Mesh]:
    """A slice that need not be there, and the config's mesh over it."""
    target = find_target(config.mesh, "v6e:2x4")
    return target.chip, target.mesh(config.mesh)


def narrow(layers: int) -> tuple[TrainConfig, Qwen3VLConfig]:
    """An RL preset of the family's depth and very small width."""
    text = TextConfig(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=512,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=2,
    )
    vision = VisionConfig(depth=27, hidden_size=144, intermediate_size=256, num_heads=2, out_hidden_size=256)
    ids: dict[str, Any] = {
        "image_token_id": 1,
        "video_token_id": 2,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
    }
    batch = BatchSettings(rows=4, tokens=2048, patches=1024)
    config = replace(
        shapes(),
        model=replace(shapes().model, remat="full", compute_dtype="bfloat16"),
        data=replace(shapes().data, image_max_pixels=256 * 256, video_max_pixels=128 * 128),
        sft=replace(shapes().sft, steps=1, batch=batch, train_vision=False),
        rl=replace(
            shapes().rl,
            steps=1,
            prompts_per_step=4,
            rollout=SamplerSettings(prompt_tokens=512, prompt_patches=512, max_new_tokens=64, group_size=2),
            batch=batch,
        ),
        mesh=MeshSettings(fsdp=4, tensor=2),
    )
    return config, Qwen3VLConfig(text=text, vision=vision, **ids)


def test_a_second_pass_and_a_sampler_at_work_are_counted() -> None:
    """Importance sampling scores every micro-batch first; with overlap weights and cache of the sampler are there."""
    config, sizes = narrow(4)
    rl = replace(
        config.rl,
        num_minibatches=2,
        overlap=True,
        loss=PolicyLossSettings(importance_sampling="token_truncate"),
    )
    config = replace(config, rl=rl, mesh=MeshSettings())
    plain, both = (
        {program.name: program for program in plan_programs(one, sizes, make_mesh())}
        for one in (replace(config, rl=replace(rl, overlap=False, loss=PolicyLossSettings())), config)
    )
    assert list(both) == ["SFT gradients", "SFT update", "RL log-probabilities", *list(plain)[2:]]
    score, gradients = both["RL log-probabilities"], both["RL gradients"]
    # Two groups of 511 + 2 x 64 tokens an update, all in one row of 2,048.
    assert score.runs == gradients.runs == 2
    assert (
        score.resident.keys() == {"optimiser", "weights to decode", "KV cache"} == gradients.resident.keys()
    )
    assert plain["RL gradients"].resident.keys() == {"optimiser"}
    assert both["RL update"].resident.keys() == {"weights to decode", "KV cache"}
    assert (
        gradients.arguments["batch"].old is not None and plain["RL gradients"].arguments["batch"].old is None
    )


def test_prompts_in_chunks_are_counted() -> None:
    config, sizes = narrow(4)
    config = replace(config, sft=replace(shapes().sft, steps=0), mesh=MeshSettings())
    chunked = replace(config.rl.rollout, prefill_chunk_tokens=96)
    whole, chunks = (
        {program.name: program for program in plan_programs(one, sizes, make_mesh())}
        for one in (config, replace(config, rl=replace(config.rl, rollout=chunked)))
    )
    assert list(whole) == ["RL gradients", "RL update", "RL prefill", "RL decoding"]
    assert list(chunks) == ["RL gradients", "RL update", "RL media", "RL prefill", "RL decoding"]
    media, prefill = chunks["RL media"], chunks["RL prefill"]
    assert (media.runs, prefill.runs) == (whole["RL prefill"].runs, 6 * whole["RL prefill"].runs)
    assert prefill.tokens == whole["RL prefill"].tokens * 96 // 512
    prompts = prefill.function.trace(*prefill.arguments.values()).out_info
    assert prompts.prefix.key.shape == prefill.arguments["prompts' keys and values"].prefix.key.shape


def test_what_moves_caches_and_the_heldout_sampler_are_listed_where_asked() -> None:
    """The sampler's next prompts lie beside decoding; half of a cache's rows beside the cache, on one data shard."""
    config, sizes = narrow(4)
    answers = replace(config.rl.rollout, prompt_slots=2, group_size=1, temperature=0.0)
    config = replace(
        config, sft=replace(config.sft, steps=0), mesh=MeshSettings(), evaluation=EvaluationSettings(answers)
    )
    plain, everything = (
        {program.name: program for program in plan_programs(config, sizes, make_mesh(), everything=more)}
        for more in (False, True)
    )
    sampler = ["prefill", "decoding", "filling", "halving"]
    assert list(everything) == [
        *list(plain)[:-2],
        *(f"{stage} {part}" for stage in ("RL", "held-out") for part in sampler),
    ]
    prompts = everything["RL decoding"].resident["prompts that wait"]
    assert "prompts that wait" not in plain["RL decoding"].resident
    assert prompts is everything["RL filling"].arguments["prompts that wait"]
    for stage in ("RL", "held-out"):
        halving = everything[f"{stage} halving"]
        cache = halving.arguments["KV cache"]
        half = jax.eval_shape(halving.function, *halving.arguments.values())
        assert 2 * half.prefix.key.shape[1] == cache.prefix.key.shape[1]
    assert list(everything["held-out decoding"].resident) == ["parameters", "prompts that wait"]


@needs_libtpu
def test_the_mesh_of_every_preset_can_be_made() -> None:
    for preset, topology in SLICES.items():
        mesh = preset().mesh
        mesh = find_target(mesh, topology).mesh(mesh)
        assert mesh.size == parse_topology(topology).devices


def test_time_at_given_lengths_by_hand() -> None:
    """Decoding moves the whole cache a token, less what is not read; other programs their share of FLOPs and bytes."""
    chip = replace(CHIPS["v5e"], flops=10.0, hbm_bandwidth=10.0, link_bandwidth=10.0)
    memory = Memory({"KV cache": 4.0}, 0.0, 0.0, 0.0, {})
    half, nothing = Expected(1.5, share=0.5), Expected(2.0, cache=0.25, share=0.5, useful=0.125, facts="few")
    update = Report(
        Program("RL gradients", None, {}, {}, 2, 0, expected=half),  # pyright: ignore[reportArgumentType]
        0.0,
        flops=8.0,
        model_flops=6.0,
        expected_flops=2.0,
        expected_model_flops=1.0,
        memory=memory,
        traffic=Traffic(hbm=100.0, wire=Counter({"all-gather": 30})),
    )
    assert expected_seconds(update, chip) == 5.0
    decoding = replace(
        update,
        program=Program("RL decoding", None, {}, {}, 4, 0, trips=8, expected=nothing),  # pyright: ignore[reportArgumentType]
    )
    assert expected_seconds(decoding, chip) == (100 - 0.75 * 4 * 8) / 10
    text = describe_expected("f.jsonl", ["3 are cut"], [update, decoding], chip)
    assert "Given lengths: f.jsonl; 3 are cut." in text
    assert "| least seconds | 5 | 7.6 |" in text and "| 1.5 | 2.0 |" in text
    seconds = 1.5 * 5 + 2 * 7.6
    assert f"RL step, expected at the given lengths: at least {seconds:.4g} s, MFU at most" in text
    assert f"{3.5 / 10 / seconds:.0%}: few." in text


@needs_libtpu
@pytest.mark.slow
def test_a_plan_for_eight_chips(monkeypatch, capsys) -> None:
    config, sizes = narrow(8)
    monkeypatch.setattr("onethinker_jax.train.plans.compiling.planned_sizes", lambda settings: sizes)
    chip, mesh = eight_chips(config)
    sizes_allowed = largest_sizes(config)
    longest = given_lengths("conversation=2048,prompt=512,response=64", sizes_allowed)
    reports = plan_all(config, mesh, lengths=longest)
    for report in reports:  # nothing is shorter
        assert report.program.expected is not None
        assert report.program.expected.runs == report.program.runs
        assert report.expected_flops == pytest.approx(report.flops)
        assert expected_seconds(report, chip) == pytest.approx(max(report.seconds(chip).values()), rel=0.1)
    assert "RL step, expected at" in describe_expected("the longest", longest.notes, reports, chip)
    assert [report.program.name for report in reports] == [
        "SFT gradients",
        "SFT update",
        "RL gradients",
        "RL update",
        "RL prefill",
        "RL decoding",
    ]
    assert all(report.fits(chip) for report in reports)
    sft, rl = reports[0], reports[2]
    assert sft.model_flops < sft.flops  # recomputation
    thawed = replace(config, sft=replace(config.sft, train_vision=True))
    assert sft.flops < plan_all(thawed, mesh, only="SFT gradients")[0].flops  # the tower's backward pass
    assert rl.traffic is not None
    assert rl.traffic.calls["all-gather"] > 8
    assert reports[0].memory is not None
    prefill, decoding = (report.memory for report in reports[4:])
    assert prefill is not None and decoding is not None
    assert prefill.resident["KV cache"] == decoding.arguments["KV cache"] > 0
    assert decoding.aliased > 0.9 * decoding.arguments["KV cache"]
    assert decoding.resident["optimiser"] > 2 * reports[0].memory.arguments["gradients"] * 0.99
    text = describe(config, chip, mesh, reports, "v6e:2x4")
    assert "shapes on v6e:2x4: fits" in text
    assert "RL step, every length at its limit" in text
    partly = describe(config, chip, mesh, reports[2:3], "v6e:2x4", only="RL gradients")
    assert "shapes on v6e:2x4, only RL gradients: fits" in partly
    assert "RL step" not in partly
    with pytest.raises(
        UsageError, match=r"--only sampling: no program's .*; there are: SFT gradients, SFT update"
    ):
        plan_all(config, mesh, only="sampling")
    small = replace(chip, hbm=2**20)
    assert "does not fit" in describe(config, small, mesh, reports, "v6e:2x4")


@needs_libtpu
@pytest.mark.slow
def test_compile_time_does_not_grow_with_depth() -> None:
    """CPU time of tracing and compiling, as wall time depends on what else runs."""
    import jax

    times = {}
    for layers in (8, 32):
        config, sizes = narrow(layers)
        _, mesh = eight_chips(config)
        with jax.set_mesh(mesh):
            program = plan_programs(config, sizes, mesh)[2]
            began = time.process_time()
            program.function.trace(*program.arguments.values()).lower().compile()
            times[layers] = time.process_time() - began
    assert times[32] < 1.3 * times[8], times


@needs_libtpu
def test_a_program_that_does_not_fit_is_reported(monkeypatch) -> None:
    """The compiler's refusal is a row of the report, with what is needed and what there is."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    config, _ = narrow(8)
    chip, mesh = eight_chips(config)
    large = jax.ShapeDtypeStruct(
        (8 * 2**16, 2**20), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(("fsdp", "tensor")))
    )
    program = Program("SFT gradients", jax.jit(lambda x: x.sum()), {"batch": large}, {}, 1, 0)
    report = compile_program(program, program, mesh)[0]
    assert not report.fits(chip)
    assert report.refusal.startswith("needs 128.00 GiB of 31.25 GiB")
    assert report.refusal in describe(config, chip, mesh, [report], None)
