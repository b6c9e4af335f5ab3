"""Directories that are no model: each is named in one line that says what it holds and what to do."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from onethinker_jax.model.config import ConfigError, Qwen3VLConfig
from onethinker_jax.model.hf_weights import WeightsError, load_hf, save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.safetensors_files import INDEX, SINGLE
from tests.train import making

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 4902257696\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A checkpoint of several files."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    save_hf(Qwen3VL(making.CONFIG, rngs=nnx.Rngs(0)), folder, max_file_bytes=60_000)
    assert (folder / INDEX).is_file()
    return folder


@pytest.fixture
def model(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def without_weights(model: Path) -> Path:
    for file in model.glob("*.safetensors*"):
        file.unlink()
    return model


def adapter(model: Path) -> None:
    for file in model.iterdir():
        file.unlink()
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-VL-2B-Instruct"}')
    (model / "adapter_model.safetensors").write_bytes(b"")


def adapter_beside_weights(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")


def torch_weights(model: Path) -> None:
    (without_weights(model) / "pytorch_model-00001-of-00002.bin").write_bytes(b"")


def gguf(model: Path) -> None:
    (without_weights(model) / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def gguf_alone(model: Path) -> None:
    gguf(model)
    (model / "config.json").unlink()


def no_index(model: Path) -> None:
    (model / INDEX).unlink()


def pointer_of_config(model: Path) -> None:
    (model / "config.json").write_text(POINTER)


def pointer_of_index(model: Path) -> None:
    (model / INDEX).write_text(POINTER)


def pointer_of_weights(model: Path) -> None:
    max(model.glob("*.safetensors")).write_text(POINTER)


def missing_files(model: Path) -> None:
    for file in sorted(model.glob("*.safetensors"))[1:]:
        file.unlink()


def cut_short(model: Path) -> None:
    file = max(model.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])


def cut_in_its_header(model: Path) -> None:
    file = max(model.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:30])


def emptied(model: Path) -> None:
    max(model.glob("*.safetensors")).write_bytes(b"")


def index_of_numbers(model: Path) -> None:
    (model / INDEX).write_text('{"weight_map": {"a": 1}}')


def foreign_dtype(model: Path) -> None:
    header = json.dumps({"embed": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (without_weights(model) / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + b"\0")


CASES = {
    adapter: "model: holds an adapter (adapter_config.json) of Qwen/Qwen3-VL-2B-Instruct, which is not read; merge",
    adapter_beside_weights: "model: holds an adapter (adapter_config.json) of a base model, which is not read",
    torch_weights: "model: holds its weights as pytorch_model-00001-of-00002.bin, which is not read; save them as",
    gguf: "model: model-Q4_K_M.gguf holds weights in GGUF, which is not read; name the directory of safetensors",
    gguf_alone: "model: model-Q4_K_M.gguf holds weights in GGUF",
    no_index: "model: holds model-00001-of-00",
    pointer_of_config: "config.json: is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    pointer_of_index: f"{INDEX}: is a Git LFS pointer",
    pointer_of_weights: ".safetensors: is a Git LFS pointer",
    missing_files: "files that it names are not there: model-00002-of-00",
    cut_short: ".safetensors: broken or cut short (",
    cut_in_its_header: ".safetensors: broken or cut short (a header of",
    emptied: ".safetensors: broken or cut short (",
    index_of_numbers: f"{INDEX}: not an index of tensors",
    foreign_dtype: f"{SINGLE}: embed is of dtype F8_E4M3, not one of F64, F32, F16, BF16, I64",
}


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_what_is_no_model_is_said_in_one_line(spoil, model):
    spoil(model)
    with pytest.raises((ConfigError, WeightsError, FileNotFoundError)) as caught:
        load_hf(model)
    assert CASES[spoil] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)


def test_a_file_is_no_directory(model):
    with pytest.raises(ConfigError, match=r"config\.json: is a file; name the directory that it lies in"):
        Qwen3VLConfig.from_directory(model / "config.json")
    (model / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"a\.gguf holds weights in GGUF"):
        Qwen3VLConfig.from_directory(model / "a.gguf")


def test_what_lies_beside_a_whole_model_does_no_harm(model):
    for name in ("pytorch_model.bin", "model-Q4.gguf", "training_args.bin", "pytorch_model.bin.index.json"):
        (model / name).write_bytes(b"{}")
    loaded = load_hf(model)
    save_hf(loaded, model.parent / "saved", copy_from=model)
    assert {file.name for file in (model.parent / "saved").iterdir()} == {"config.json", SINGLE}
    again = load_hf(model.parent / "saved")
    np.testing.assert_array_equal(again.embed[...], loaded.embed[...])
