"""A run's base directory from a Hugging Face one, and what is exported from it: files that it lacks are made up for."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flax import nnx
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, GenerationConfig

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.errors import UserError
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.export.directory import check_export, export_model
from onethinker_jax.train.preflight.prepare import copy_base, prepare_base
from onethinker_jax.train.run import run
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows, write_tokenizer
from tests.train import making

GENERATION = "generation_config.json"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Qwen3VL:
    tokens = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return Qwen3VL(making.config_for(Processor.from_pretrained(tokens, grid_side=8)), rngs=nnx.Rngs(0))


@pytest.fixture
def source(policy: Qwen3VL, tmp_path: Path) -> Path:
    """A whole Hugging Face directory without a generation config."""
    tokens = write_tokenizer(tmp_path / "tokenizer")
    save_hf(policy, tmp_path / "source", copy_from=tokens)
    return tmp_path / "source"


@pytest.mark.parametrize("listed", ["absent", "no pad", "no ids", "several"])
def test_a_base_can_be_exported_whatever_its_generation_config_lacks(
    policy: Qwen3VL, source: Path, tmp_path: Path, listed: str
) -> None:
    turn, text = (
        Processor.from_pretrained(source).tokenizer.token_id(t) for t in ("<|im_end|>", "<|endoftext|>")
    )
    held: dict[str, dict[str, Any]] = {
        "no pad": {"eos_token_id": [turn, text], "top_k": 20, "do_sample": True},
        "no ids": {"temperature": 0.5, "do_sample": True},
        "several": {"eos_token_id": [turn, text], "pad_token_id": turn},
    }
    if listed in held:
        (source / GENERATION).write_text(json.dumps(held[listed]))
    copy_base(source, tmp_path / "base")
    check_export(tmp_path / "base", tmp_path / "out")
    export_model(policy, tmp_path / "base", tmp_path / "out")
    eos = [turn, text] if listed in ("no pad", "several") else turn
    theirs = GenerationConfig.from_pretrained(tmp_path / "out")
    assert theirs.eos_token_id == eos
    assert theirs.pad_token_id == (turn if listed == "several" else text)
    assert (theirs.top_k == 20) == (listed == "no pad") and (theirs.temperature == 0.5) == (
        listed == "no ids"
    )
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.eos_token_id == eos
    again = Processor.from_pretrained(tmp_path / "out")
    assert again.ends == Processor.from_pretrained(tmp_path / "base").ends
    assert load_hf(tmp_path / "out").config == policy.config


def test_an_older_runs_base_is_exported_too(policy: Qwen3VL, source: Path, tmp_path: Path) -> None:
    """One that was made before the base was completed, as a run that goes on may have."""
    for file in source.glob("*.safetensors*"):
        file.unlink()
    (source / GENERATION).write_text("{}")
    export_model(policy, source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / GENERATION).read_text())["pad_token_id"] is not None


def test_missing_processor_files_are_written_for_others(
    policy: Qwen3VL, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "preprocessor_config.json").unlink()
    (source / "video_preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING, "onethinker_jax"):
        copy_base(source, tmp_path / "base")
        Processor.from_pretrained(tmp_path / "base")
    assert len(caplog.records) == 2  # said of the source once, and not of the base
    export_model(policy, tmp_path / "base", tmp_path / "out")
    theirs = AutoImageProcessor.from_pretrained(str(tmp_path / "out"), backend="pil")
    assert (theirs.size["shortest_edge"], theirs.size["longest_edge"]) == (65536, 16777216)
    assert theirs.patch_size == 16 and list(theirs.image_mean) == [0.5] * 3
    video = json.loads((tmp_path / "out" / "video_preprocessor_config.json").read_text())
    assert video["size"] == {"shortest_edge": 4096, "longest_edge": 25165824}
    assert AutoTokenizer.from_pretrained(str(tmp_path / "out")).chat_template


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            GENERATION,
            "version https://git-lfs.github.com/spec/v1\n",
            r"generation_config\.json: is a Git LFS pointer",
        ),
        (GENERATION, '{"eos_token_id": "a"}', r"generation_config\.json: eos_token_id 'a' is no token"),
        (GENERATION, "[1]", r"generation_config\.json: must hold a JSON object"),
        ("adapter_config.json", "{}", "source: holds an adapter"),
    ],
)
def test_a_base_that_cannot_be_exported_is_refused_at_the_start(
    source: Path, tmp_path: Path, name: str, content: str, said: str
) -> None:
    (source / name).write_text(content)
    config = replace(shapes(), name="run", out=tmp_path, model=replace(shapes().model, init_from=source))
    log: Any = SimpleNamespace(info=lambda text: None)
    corpora: Any = None
    with pytest.raises(UserError, match=said):
        prepare_base(config, corpora, log)
    assert not (tmp_path / "run" / "base").exists()


def test_a_place_that_is_not_replaced_is_found_before_the_first_step(source: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    rows = {"sft": [sft_row()], "rl": [rl_row()], "heldout": [rl_row()]}
    files = [write_rows(tmp_path / f"{name}.json", held) for name, held in rows.items()]
    data = replace(shapes().data, sft_file=files[0], rl_file=files[1], heldout_file=files[2])
    base = replace(shapes().model, init_from=source, tiny=True)
    config = replace(shapes(), name="run", out=tmp_path, model=base, data=data)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="run/model: exists and is no model directory"):
        run(config)
    assert not (tmp_path / "run" / "checkpoints").exists()
