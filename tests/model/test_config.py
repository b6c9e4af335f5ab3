"""config.json in both layouts, against transformers' own reading of it, and what is refused."""

import json
from dataclasses import replace

import pytest

from onethinker_jax.model.config import ConfigError, Qwen3VLConfig, TextConfig, VisionConfig
from tests.model import tiny

HF = tiny.BASE.to_hf()


def changed(section: str | None, **fields):
    """``HF`` with other fields; a field of value ... is taken out."""
    hf = json.loads(json.dumps(HF))
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
    theirs = transformers.Qwen3VLConfig.from_pretrained(tmp_path)
    text, vision = theirs.text_config, theirs.vision_config
    assert text.rope_parameters["rope_theta"] == config.text.rope_theta
    assert text.rope_parameters["mrope_section"] == list(config.text.mrope_section)
    assert text.num_key_value_heads == config.text.num_kv_heads
    assert text.rms_norm_eps == config.text.rms_norm_eps
    assert vision.deepstack_visual_indexes == list(config.vision.deepstack_layers)
    assert theirs.tie_word_embeddings == config.tie_word_embeddings
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
    assert Qwen3VLConfig().vision.patch_values == 1536 and Qwen3VLConfig().vision.grid_side == 48


@pytest.mark.parametrize(
    ("section", "fields", "named"),
    [
        (None, {"model_type": "qwen2_5_vl"}, "model_type 'qwen2_5_vl'"),
        (None, {"model_type": "qwen3_vl_moe"}, "model_type 'qwen3_vl_moe'"),
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


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        Qwen3VLConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ConfigError, match=r"config\.json: "):
        Qwen3VLConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json: "):
        Qwen3VLConfig.from_directory(tmp_path)
