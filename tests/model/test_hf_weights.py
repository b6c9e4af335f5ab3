"""Hugging Face directories: nothing changed by a round trip, and every misfit named."""

import json
import os
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForImageTextToText

from onethinker_jax.files import undo_broken_swap
from onethinker_jax.model import hf_weights
from onethinker_jax.model.config import ConfigError
from onethinker_jax.model.hf_weights import TABLE, WeightsError, load_hf, save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from tests.model import tiny

UNTIED = tiny.CONFIGS["untied, 3 queries a key, DeepStack into every layer"]


@pytest.fixture(scope="module", params=list(tiny.CONFIGS))
def checkpoint(request, tmp_path_factory):
    return tiny.write_checkpoint(tiny.CONFIGS[request.param], tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture
def tied(tmp_path):
    return tiny.write_checkpoint(tiny.BASE, tmp_path / "model")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_round_trip_layer_by_layer_through_many_files(dtype, tmp_path, monkeypatch):
    """As large checkpoints go: no parameter through the host whole, files of at most 40 kB, an index."""
    whole, split, joined = (tmp_path / part for part in ("whole", "split", "joined"))
    save_hf(tiny.noisy_model(tiny.CONFIGS[tiny.MOE], tmp_path / "formula", dtype), whole)
    with monkeypatch.context() as patch:
        patch.setattr(hf_weights, "SMALL", 0)
        save_hf(load_hf(whole, dtype=dtype), split, max_file_bytes=40_000)
    files = sorted(file.name for file in split.glob("*.safetensors"))
    assert files == [f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))]
    assert len(files) > 5
    index = json.loads((split / "model.safetensors.index.json").read_text())
    held = {file: load_file(split / file) for file in files}
    expected = load_file(whole / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in expected.values())
    assert index["weight_map"].keys() == expected.keys()
    for tensor, array in expected.items():
        assert held[index["weight_map"][tensor]][tensor].tobytes() == array.tobytes(), tensor
    for tensors in held.values():
        assert len(tensors) == 1 or sum(array.nbytes for array in tensors.values()) <= 40_000
    save_hf(load_hf(split, dtype=dtype), joined)
    assert (joined / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_experts_with_swapped_axes_are_read(tmp_path):
    """transformers 5 may write them as it holds them."""
    directory = tiny.write_checkpoint(tiny.CONFIGS[tiny.MOE], tmp_path / "model")
    released = nnx.to_pure_dict(nnx.state(load_hf(directory)))
    tensors = load_file(directory / "model.safetensors")
    swapped = {
        name: np.ascontiguousarray(array.swapaxes(1, 2)) if ".experts." in name else array
        for name, array in tensors.items()
    }
    save_file(swapped, directory / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(load_hf(directory))), released)
    name = "model.language_model.layers.0.mlp.experts.down_proj"
    save_file({**tensors, name: np.zeros((6, 64, 25), np.float32)}, directory / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"1 misshapen tensor\(s\): .*down_proj \(6, 64, 25\) != \(6, 24, 64\)"
    ):
        load_hf(directory)


def test_a_save_killed_between_its_renames_is_undone_by_the_next(tied, tmp_path):
    model = load_hf(tied)
    before = {file.name: file.read_bytes() for file in tied.iterdir()}
    old = tied.with_name(".model.old")
    os.rename(tied, old)  # killed here: the new directory is not in its place yet
    undo_broken_swap(tied)
    assert {file.name: file.read_bytes() for file in tied.iterdir()} == before and not old.exists()
    shutil.copytree(tied, old)  # killed here: the new directory is in its place, the old not yet gone
    save_hf(model, tied)
    assert {file.name: file.read_bytes() for file in tied.iterdir()} == before and not old.exists()


def test_load_then_save_gives_the_same_bytes(checkpoint, tmp_path):
    save_hf(load_hf(checkpoint), tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (checkpoint / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_every_parameter_has_one_row_in_the_table():
    ours = {
        hf_weights.parameter_name(path)
        for config in (tiny.BASE, UNTIED, tiny.CONFIGS[tiny.MOE])
        for path, _ in nnx.to_flat_state(
            nnx.state(nnx.eval_shape(lambda c=config: Qwen3VL(c, rngs=nnx.Rngs(0))))
        )
    }
    assert ours == set(TABLE)
    theirs = [name for name, _ in TABLE.values()]
    assert len(theirs) == len(set(theirs))


def test_tied_checkpoint_has_no_head_and_may_have_one(tied):
    tensors = load_file(tied / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    save_file(tensors, tied / "model.safetensors")
    assert load_hf(tied).lm_head is None


def test_bfloat16_is_never_widened_or_rounded(tied, tmp_path):
    tensors = {
        name: array.astype(ml_dtypes.bfloat16)
        for name, array in load_file(tied / "model.safetensors").items()
    }
    # Out of float16's range, and finer than it near zero.
    tensors["model.language_model.norm.weight"][:2] = np.array([3e38, 1e-38], ml_dtypes.bfloat16)
    save_file(tensors, tied / "model.safetensors", metadata={"format": "pt"})
    model = load_hf(tied, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.bfloat16)}
    save_hf(model, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tied / "model.safetensors"
    ).read_bytes()
    assert json.loads((tmp_path / "again" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    wide = load_hf(tied, dtype=jnp.float32).decoder.norm.scale[...]
    np.testing.assert_array_equal(wide, tensors["model.language_model.norm.weight"].astype(np.float32))


def test_float32_is_not_rounded_on_the_way(tied):
    """As it would be if it passed through bfloat16 or float16."""
    tensors = load_file(tied / "model.safetensors")
    model = load_hf(tied)
    layers: Any = model.decoder.layers
    kernel = np.asarray(layers.gate_proj.kernel[...])
    for layer in range(3):
        name = f"model.language_model.layers.{layer}.mlp.gate_proj.weight"
        np.testing.assert_array_equal(kernel[layer], tensors[name].T)
    conv = tensors["model.visual.patch_embed.proj.weight"]
    np.testing.assert_array_equal(model.visual.patch_embed.kernel[...], conv.reshape(len(conv), -1).T)


def test_indexed_checkpoint(tied, tmp_path):
    """Tensors over three files, as large models come; one tensor a file would do as well."""
    tensors = load_file(tied / "model.safetensors")
    split = tmp_path / "split"
    split.mkdir()
    shutil.copy(tied / "config.json", split)
    weight_map = {}
    for number in range(3):
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        part = dict(sorted(tensors.items())[number::3])
        save_file(part, split / file)
        weight_map |= dict.fromkeys(part, file)
    (split / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    save_hf(load_hf(split), tmp_path / "joined")
    assert (tmp_path / "joined" / "model.safetensors").read_bytes() == (
        tied / "model.safetensors"
    ).read_bytes()
    (split / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00003\.safetensors"):
        load_hf(split)


def test_a_single_file_counts_before_an_index(tied, tmp_path):
    """As transformers reads a directory that has both."""
    tensors = load_file(tied / "model.safetensors")
    both = shutil.copytree(tied, tmp_path / "both")
    save_file({name: np.zeros_like(values) for name, values in tensors.items()}, both / "older.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "older.safetensors")}
    (both / "model.safetensors.index.json").write_text(json.dumps(index))
    theirs = AutoModelForImageTextToText.from_pretrained(both).state_dict()
    norm = "model.language_model.norm.weight"
    np.testing.assert_array_equal(theirs[norm].numpy(), tensors[norm])
    save_hf(load_hf(both), tmp_path / "read")
    assert (tmp_path / "read" / "model.safetensors").read_bytes() == (tied / "model.safetensors").read_bytes()


def test_misfits_are_listed_together(tied):
    tensors = load_file(tied / "model.safetensors")
    del tensors["model.visual.merger.norm.bias"]
    del tensors["model.language_model.layers.1.self_attn.q_norm.weight"]
    tensors["model.language_model.layers.3.mlp.up_proj.weight"] = np.zeros((96, 64), np.float32)
    tensors["model.visual.pos_embed.weight"] = np.zeros((49, 32), np.float32)
    save_file(tensors, tied / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_hf(tied)
    message = str(caught.value)
    assert str(tied) in message and "\n" not in message
    assert "2 missing tensor(s): model.language_model.layers.1.self_attn.q_norm.weight, model.vis" in message
    assert "1 unknown tensor(s): model.language_model.layers.3.mlp.up_proj.weight" in message
    assert "1 misshapen tensor(s): model.visual.pos_embed.weight (49, 32) != (64, 32)" in message


def test_untied_checkpoint_without_its_head(tmp_path):
    directory = tiny.write_checkpoint(UNTIED, tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing tensor\(s\): lm_head.weight"):
        load_hf(directory)


def test_weights_of_another_config(tied):
    hf = json.loads((tied / "config.json").read_text())
    hf["text_config"]["num_hidden_layers"] = 4
    hf["text_config"]["intermediate_size"] = 100
    (tied / "config.json").write_text(json.dumps(hf))
    with pytest.raises(WeightsError, match=r"11 missing .* \.\.\.; .*9 misshapen"):
        load_hf(tied)


def test_broken_or_absent_files(tied, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
        load_hf(tmp_path / "nowhere")
    file = tied / "model.safetensors"
    whole = file.read_bytes()
    for cut in (b"", whole[:4], whole[: len(whole) // 2]):
        file.write_bytes(cut)
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            load_hf(tied)
    file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"
    ):
        load_hf(tied)
    (tied / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        load_hf(tied)
    (tied / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.json: model_type"):
        load_hf(tied)


def test_an_interrupted_save_leaves_the_old_directory(tied, monkeypatch):
    model = load_hf(tied)
    before = {file.name: file.read_bytes() for file in tied.iterdir()}

    rename = os.rename

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def interrupted_between(source, target):
        if str(source).endswith(".writing"):
            raise KeyboardInterrupt
        rename(source, target)

    for name, stand_in in (
        ("model.hf_weights.write_tensors", interrupted),
        ("files.os.rename", interrupted),
        ("files.os.rename", interrupted_between),
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"onethinker_jax.{name}", stand_in)
            save_hf(model, tied)
        assert {file.name: file.read_bytes() for file in tied.iterdir()} == before
    save_hf(model, tied)  # what the interrupted ones left is in nobody's way
    assert {file.name: file.read_bytes() for file in tied.iterdir()} == before
    assert [file.name for file in tied.parent.iterdir()] == ["model"]


def test_tokenizer_and_extra_fields_go_along(tied, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt"):
        (tied / name).write_text(name)
    (tied / "model.safetensors.index.json").write_text("{}")
    (tied / "weights.bin").write_text("left behind")
    model = tiny.noisy_model(UNTIED, tmp_path / "other")
    save_hf(model, tmp_path / "new", copy_from=tied, extra_config={"eos_token_id": 7})
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "merges.txt",
    }
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written["eos_token_id"] == 7 and written["text_config"]["num_attention_heads"] == 6
