"""Exports out of a checkpoint: in bounded memory, of any mesh, in any dtype, the best one, adapters merged."""

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.hf_weights import load_hf, save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, tree_shardings
from onethinker_jax.model.stored_parameters import StoredParameter, save_parameters
from onethinker_jax.train.checkpoints.checkpoints import Checkpoints
from onethinker_jax.train.config.checkpoints import CheckpointSettings, KeepSettings
from onethinker_jax.train.export.__main__ import main
from onethinker_jax.train.export.stored_model import stored_model
from onethinker_jax.train.run_folder import RunFolder
from tests.data_pipeline.making import write_tokenizer
from tests.model import tiny
from tests.train import making


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints 1 and 2 of a tiny model; the first has the better held-out score.

    With devices enough the parameters lie on eight of them.
    """
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    tokens = write_tokenizer(tmp_path_factory.mktemp("tokens"), image_pixels=(1024, 8192))
    config = making.config_for(Processor.from_pretrained(tokens))
    config = replace(config, text=replace(config.text, vocab_size=-(-config.text.vocab_size // 8) * 8))
    save_hf(Qwen3VL(config, rngs=nnx.Rngs(0)), folder.base, copy_from=tokens)
    (folder.base / "model.safetensors").unlink()
    checkpoints = Checkpoints(folder.checkpoints, CheckpointSettings(keep=KeepSettings(last=None)))
    mesh = make_mesh(data=2, fsdp=2, tensor=2) if jax.device_count() == 8 else make_mesh()
    for number, score in ((1, 0.75), (2, 0.5)):
        model = tiny.noisy_model(config, tmp_path_factory.mktemp("formula") / "model")
        params = jax.tree.map(lambda leaf: leaf * number, nnx.state(model))  # noqa: B023
        params = jax.device_put(params, tree_shardings(params, mesh))
        state: Any = {"params": params, "optimizer": {"mu": jnp.zeros(3)}}
        checkpoints.save(number, state, {"stage": "rl", "hosts": [None]}, heldout=score)
    checkpoints.close()
    settings = {"name": "made", "rl": {"steps": 2}, "evaluation": {"metric": "accuracy"}}
    folder.settings.write_text(json.dumps(settings))
    return folder.path


def tensors(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "model.safetensors")


def test_the_newest_and_the_best(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same formula, the one twice the other; what was written on several devices is read on one."""
    assert main([str(run), "--out", str(tmp_path / "newest")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'newest'}\n"
    assert main([str(run), "--out", str(tmp_path / "best"), "--step", "best"]) == 0
    newest, best = tensors(tmp_path / "newest"), tensors(tmp_path / "best")
    assert newest.keys() == best.keys()
    for name, values in newest.items():
        np.testing.assert_array_equal(values, 2 * best[name], err_msg=name)
    save_hf(stored_model(run).policy(), tmp_path / "whole")  # by way of a model that is whole in memory
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        tmp_path / "newest" / "model.safetensors"
    ).read_bytes()
    card = (tmp_path / "best" / "README.md").read_text()
    assert "This is checkpoint 1, not the run's last model." in card
    assert (
        "Mean accuracy of greedy answers to the held-out records, on which nothing was trained: 0.750."
        in card
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounded_weights(run: Path, tmp_path: Path, dtype: str) -> None:
    assert main([str(run), "--out", str(tmp_path / dtype), "--dtype", dtype]) == 0
    assert main([str(run), "--out", str(tmp_path / "float32")]) == 0
    assert json.loads((tmp_path / dtype / "config.json").read_text())["torch_dtype"] == dtype
    wanted = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}[dtype]
    exact, rounded = tensors(tmp_path / "float32"), tensors(tmp_path / dtype)
    for name, values in rounded.items():
        assert values.dtype == wanted
        np.testing.assert_array_equal(values, exact[name].astype(wanted), err_msg=name)


class Alive:
    """Which of the arrays that were handed out are alive, at the most."""

    def __init__(self) -> None:
        self.handed: list[weakref.ref[np.ndarray]] = []
        self.most, self.read = 0, 0

    def around(self, parameter: StoredParameter) -> StoredParameter:
        def read() -> np.ndarray:
            gc.collect()
            values = parameter.read()
            self.handed.append(weakref.ref(values))
            self.read += 1
            self.most = max(self.most, sum(one() is not None for one in self.handed))
            return values

        return replace(parameter, read=read)


def test_one_parameter_is_in_memory_at_a_time(run: Path, tmp_path: Path) -> None:
    """Counted by what is alive when the next is read; each is read once, also where its layers fill several files."""
    model, alive = stored_model(run), Alive()
    watched = [alive.around(one) for one in model.parameters]
    gc.collect()
    gc.freeze()  # what other tests have left would be gone through before each parameter
    try:
        save_parameters(watched, model.config, tmp_path / "split", max_file_bytes=20_000)
    finally:
        gc.unfreeze()
    assert len(list((tmp_path / "split").glob("model-*.safetensors"))) > 3
    assert alive.most == 1
    assert alive.read == len(model.parameters)
    save_parameters(model.parameters, model.config, tmp_path / "one")
    ours, theirs = (nnx.state(load_hf(tmp_path / name)) for name in ("split", "one"))
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--step", "3"], "holds 1, 2, not 3"),
        (["--adapter"], "trains every weight, not adapters"),
    ],
)
def test_what_cannot_be_exported(
    run: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--out", str(tmp_path / "out"), *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--step", "last"], ["--adapter", "--check"], ["--check-tolerance", "0"]])
def test_flags_that_cannot_be_used(run: Path, tmp_path: Path, flags: list[str]) -> None:
    assert main([str(run), "--out", str(tmp_path / "out"), *flags]) == 2


def test_the_check_compares_with_transformers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes on what was exported, and names the difference where a tensor on the way was another."""
    pytest.importorskip("torch")
    out = tmp_path / "out"
    assert main([str(run), "--out", str(out), "--dtype", "bfloat16", "--check"]) == 0
    written, found = capsys.readouterr().out.splitlines()
    assert written == str(out) and found.startswith("largest difference of logits to transformers ")
    assert "the same best token at 100.0%" in found

    def swapped(parameters: list[StoredParameter], *arguments: Any, **named: Any) -> None:
        by_name = {one.name: one for one in parameters}
        one, other = (by_name[f"decoder.layers.{name}.kernel"] for name in ("gate_proj", "up_proj"))
        exchanged = {one.name: other.read, other.name: one.read}
        changed = [replace(p, read=exchanged.get(p.name, p.read)) for p in parameters]
        save_parameters(changed, *arguments, **named)

    monkeypatch.setattr("onethinker_jax.train.export.directory.save_parameters", swapped)
    assert main([str(run), "--out", str(out), "--check"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith(f"error: {out}: largest difference of logits") and "--check-tolerance allows" in line
    )
