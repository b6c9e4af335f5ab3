"""config.json in both layouts, against transformers' own reading of it, and what is refused."""

import json
from dataclasses import replace

import pytest

from onethinker_jax.model.config import ConfigError, MoEConfig, Qwen3VLConfig, TextConfig, VisionConfig
from tests.model import tiny

HF = tiny.BASE.to_hf()
MOE = tiny.CONFIGS[tiny.MOE].to_hf()


def changed(section: str | None, base=HF, **fields):
    """`base` with other fields; a field of value ... is taken out."""
    hf = json.loads(json.dumps(base))
    part = hf if section is None else hf[section]
    for name, value in fields.items():
        if value is ...:
            del part[name]
        else:
            part[name] = value
    return hf


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_written_then_read_is_the_same(name, tmp_path):
    config = tiny.CONFIGS[name]
    (tmp_path / "config.json").write_text(
        json.dumps(config.to_hf(dtype="bfloat16", extra={"eos_token_id": 7}))
    )
    assert Qwen3VLConfig.from_directory(tmp_path) == config


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_transformers_reads_what_is_written_and_the_other_way_round(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = tiny.CONFIGS[name]
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    text, vision = theirs.text_config, theirs.vision_config
    assert text.rope_parameters["rope_theta"] == config.text.rope_theta
    assert text.rope_parameters["mrope_section"] == list(config.text.mrope_section)
    assert text.num_key_value_heads == config.text.num_kv_heads
    assert text.rms_norm_eps == config.text.rms_norm_eps
    assert vision.deepstack_visual_indexes == list(config.vision.deepstack_layers)
    assert theirs.tie_word_embeddings == config.tie_word_embeddings
    if config.text.moe is not None:
        assert text.num_experts == config.text.moe.num_experts
        assert text.num_experts_per_tok == config.text.moe.experts_per_token
        assert text.moe_intermediate_size == config.text.moe.intermediate_size
    theirs.save_pretrained(tmp_path / "theirs")
    written = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert "rope_parameters" in written["text_config"] and "rope_scaling" not in written["text_config"]
    assert Qwen3VLConfig.from_directory(tmp_path / "theirs") == config


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_said_where_each_version_looks(tied):
    """transformers 5 reads the top level; 4.57 the text part, and makes a random head where it says nothing."""
    written = tiny.variant(tie_word_embeddings=tied).to_hf()
    assert written["tie_word_embeddings"] is tied and written["text_config"]["tie_word_embeddings"] is tied


def test_layouts_and_defaults():
    old = Qwen3VLConfig.from_hf(HF)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    new = changed("text_config", rope_scaling=..., rope_theta=..., rope_parameters=rope)
    assert Qwen3VLConfig.from_hf(new) == replace(old, text=replace(old.text, rope_theta=1e6))
    # what the first releases called rope_type, and what a config without rope settings means
    typed = changed("text_config", rope_scaling={"type": "mrope", "mrope_section": [4, 2, 2]})
    assert Qwen3VLConfig.from_hf(typed) == old
    assert Qwen3VLConfig.from_hf(changed("text_config", rope_theta=...)).text.rope_theta == 500_000.0
    wide = changed("text_config", head_dim=..., rope_scaling={"mrope_section": [24, 20, 20]})
    assert Qwen3VLConfig.from_hf(wide).text.head_dim == 128  # as in transformers, whatever the width


ROPE = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [4, 2, 2]}
OTHER = {**ROPE, "rope_theta": 2e6, "mrope_section": [2, 3, 3]}


@pytest.mark.parametrize("base", [HF, MOE])
@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": ROPE, "rope_theta": 1e6},
        {"rope_parameters": ROPE},
        {"rope_parameters": OTHER, "rope_theta": 1e6},
        {"rope_parameters": OTHER, "rope_scaling": ROPE, "rope_theta": 1e6},
        {"rope_parameters": OTHER, "rope_scaling": ROPE},
        {"rope_parameters": ROPE, "rope_scaling": OTHER, "rope_theta": 1e6},
        {"rope_parameters": OTHER, "rope_scaling": {}, "rope_theta": 1e6},
        {"rope_parameters": OTHER, "rope_scaling": None},
        {"rope_parameters": None, "rope_scaling": ROPE, "rope_theta": 12345},
    ],
)
def test_rope_settings_are_found_where_transformers_finds_them(base, fields, tmp_path):
    transformers = pytest.importorskip("transformers")
    bare = changed("text_config", base, rope_scaling=..., rope_theta=...)
    hf = changed("text_config", bare, **fields)
    (tmp_path / "config.json").write_text(json.dumps(hf))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path).text_config.rope_parameters
    ours = Qwen3VLConfig.from_directory(tmp_path).text
    assert ours.rope_theta == theirs["rope_theta"]
    assert list(ours.mrope_section) == theirs["mrope_section"]
    written = Qwen3VLConfig.from_hf(Qwen3VLConfig.from_directory(tmp_path).to_hf()).text
    assert written == ours


@pytest.mark.parametrize(
    ("outside", "named"),
    [
        ({"rope_theta": 1e6}, r"rope_theta 1000000.0 stands outside of text_config.* 500000.0 counts"),
        ({"rope_parameters": {"rope_theta": 1e6}}, "rope_theta 1000000.0 stands outside of text_config"),
        ({"rope_scaling": {"mrope_section": [2, 3, 3]}}, r"mrope_section \[2, 3, 3\] stands outside"),
    ],
)
def test_rope_settings_outside_of_text_config_are_not_ignored(outside, named, tmp_path):
    """transformers reads none of them; where they say what counts anyway nothing is lost."""
    transformers = pytest.importorskip("transformers")
    hf = {**changed("text_config", rope_scaling=..., rope_theta=..., rope_parameters=ROPE), **outside}
    (tmp_path / "config.json").write_text(json.dumps(hf))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path).text_config.rope_parameters
    assert (theirs["rope_theta"], theirs["mrope_section"]) == (500_000.0, [4, 2, 2])
    with pytest.raises(ConfigError, match=named):
        Qwen3VLConfig.from_directory(tmp_path)
    same = {**hf, "rope_theta": 500_000, "rope_parameters": ROPE, "rope_scaling": ROPE}
    assert Qwen3VLConfig.from_hf(same).text.rope_theta == 500_000.0


def test_experts_in_both_layouts_and_their_head_size():
    old = Qwen3VLConfig.from_hf(MOE)
    assert old.text.moe == MoEConfig(num_experts=6, experts_per_token=2, intermediate_size=24)
    renamed = changed("text_config", MOE, num_experts=..., num_local_experts=6)  # as transformers 5 writes it
    assert Qwen3VLConfig.from_hf(renamed) == old
    bare = changed("text_config", MOE, norm_topk_prob=..., decoder_sparse_step=..., mlp_only_layers=...)
    assert Qwen3VLConfig.from_hf(bare) == old
    assert Qwen3VLConfig.from_hf(changed("text_config", MOE, head_dim=...)) == old  # 64 / 4, not 128


def test_released_sizes_are_served():
    qwen3_vl_2b = Qwen3VLConfig(
        text=TextConfig(hidden_size=2048, intermediate_size=6144, num_layers=28, num_heads=16),
        vision=VisionConfig(
            depth=24,
            hidden_size=1024,
            intermediate_size=4096,
            out_hidden_size=2048,
            deepstack_layers=(5, 11, 17),
        ),
        tie_word_embeddings=True,
    )
    assert Qwen3VLConfig.from_hf(qwen3_vl_2b.to_hf()) == qwen3_vl_2b
    a22b = Qwen3VLConfig(
        text=TextConfig(num_layers=94, num_heads=64, num_kv_heads=4, moe=MoEConfig(intermediate_size=1536))
    )
    assert Qwen3VLConfig.from_hf(a22b.to_hf()) == a22b
    assert Qwen3VLConfig().vision.patch_values == 1536 and Qwen3VLConfig().vision.grid_side == 48


@pytest.mark.parametrize(
    ("section", "fields", "named"),
    [
        (
            None,
            {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]},
            r"model_type 'qwen2_5_vl' \(Qwen2_5_VLForConditionalGeneration\) is not served",
        ),
        (None, {"model_type": "llava", "architectures": None}, "model_type 'llava' is not served"),
        (
            None,
            {"model_type": "qwen3", "vision_config": ..., "architectures": ["Qwen3ForCausalLM"]},
            r"model_type 'qwen3' \(Qwen3ForCausalLM\), a model without vision_config, is not served",
        ),
        (None, {"model_type": "qwen3_vl_moe"}, "text_config.num_experts is missing"),
        (None, {"text_config": ...}, "text_config is missing"),
        (None, {"vision_config": ...}, "vision_config is missing"),
        (None, {"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ("text_config", {"hidden_size": ...}, "text_config.hidden_size is missing"),
        ("text_config", {"vocab_size": "160"}, "text_config.vocab_size is '160'"),
        ("text_config", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("text_config", {"attention_bias": True}, "attention_bias True"),
        ("text_config", {"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ("text_config", {"head_dim": 20}, "mrope_section .* head_dim 20"),
        (
            "text_config",
            {"rope_scaling": {"rope_type": "yarn", "mrope_section": [4, 2, 2]}},
            "rope_type 'yarn'",
        ),
        (
            "text_config",
            {"rope_scaling": {"mrope_interleaved": False, "mrope_section": [4, 2, 2]}},
            "mrope_interleaved",
        ),
        ("text_config", {"rope_theta": None}, "rope_theta None is not a number"),
        ("text_config", {"rope_theta": "5e6"}, "rope_theta '5e6' is not a number"),
        ("text_config", {"rope_scaling": {"full_attention": ROPE}}, "expected one set for all layers"),
        ("text_config", {"rope_scaling": {"mrope_section": [4, 2]}}, "mrope_section .4, 2. is not three"),
        ("text_config", {"head_dim": "16"}, "text_config.head_dim is '16'"),
        ("text_config", {"rms_norm_eps": "1e-6"}, "text_config.rms_norm_eps is '1e-6'"),
        (None, {"image_token_id": "9"}, "image_token_id is '9'"),
        ("vision_config", {"patch_size": [16, 16]}, r"vision_config.patch_size is \[16, 16\]"),
        ("vision_config", {"deepstack_visual_indexes": 3}, "deepstack_visual_indexes 3 are not"),
        ("vision_config", {"depth": ...}, "vision_config.depth is missing"),
        ("vision_config", {"hidden_act": "silu"}, "hidden_act 'silu'"),
        ("vision_config", {"num_heads": 5}, "vision hidden_size 32 .* num_heads 5"),
        ("vision_config", {"num_heads": 16}, "vision head size 2"),
        ("vision_config", {"num_position_embeddings": 60}, "num_position_embeddings 60"),
        ("vision_config", {"deepstack_visual_indexes": [0, 3]}, "deepstack_visual_indexes .* depth 3"),
        ("vision_config", {"deepstack_visual_indexes": [2, 0]}, "deepstack_visual_indexes .* ascend"),
        ("vision_config", {"out_hidden_size": 32}, "out_hidden_size 32"),
        ("text_config", {"num_hidden_layers": 1}, "2 DeepStack features"),
    ],
)
def test_what_is_not_served_is_named(section, fields, named, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(changed(section, **fields)))
    with pytest.raises(ConfigError, match=f"config.json: .*{named}"):
        Qwen3VLConfig.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_experts_per_tok": ...}, "text_config.num_experts_per_tok is missing"),
        ({"moe_intermediate_size": "20"}, "text_config.moe_intermediate_size is '20'"),
        ({"num_experts_per_tok": 7}, "num_experts_per_tok 7 exceeds num_experts 6"),
        ({"moe_intermediate_size": 0}, "moe_intermediate_size 0 must be at least 1"),
        ({"mlp_only_layers": [1]}, r"mlp_only_layers \[1\]"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step 2"),
        ({"norm_topk_prob": False}, "norm_topk_prob False"),
    ],
)
def test_experts_that_are_not_served_are_named(fields, named):
    with pytest.raises(ConfigError, match=named):
        Qwen3VLConfig.from_hf(changed("text_config", MOE, **fields))


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        Qwen3VLConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ConfigError, match=r"config\.json: "):
        Qwen3VLConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"config\.json: "):
        Qwen3VLConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json: "):
        Qwen3VLConfig.from_directory(tmp_path)
