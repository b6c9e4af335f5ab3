"""The GPU presets, and `docs/gpu_memory.py`, which compiles them for GPUs that are not there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onethinker_jax.train.config.presets import PRESETS
from onethinker_jax.train.config.presets_gpu import GPU_PRESETS

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "docs" / "gpu_memory.py"
GPUS_NAMED = {"one GPU of 80 GB": 1, "one host of eight GPUs of 80 GB": 8}


def memory_of(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_presets_are_for_the_gpus_that_they_name() -> None:
    assert list(GPU_PRESETS) == [
        "qwen3_vl_2b_sft_gpu",
        "qwen3_vl_2b_rl_gpu",
        "qwen3_vl_8b_sft_8gpu",
        "qwen3_vl_8b_rl_8gpu",
    ]
    for name, preset in GPU_PRESETS.items():
        config, doc = preset(), re.sub(r"\s+", " ", preset.__doc__ or "")
        assert PRESETS[name] is preset and config.name == name == preset.__name__
        (count,) = (size for words, size in GPUS_NAMED.items() if words in doc)
        assert config.mesh.size == count
        assert f"python -m onethinker_jax.train {name} --model.init-from" in doc
        assert f"Qwen3-VL-{name.split('_')[2].upper()}-Instruct" in doc


@pytest.mark.parametrize(
    ("gpu", "tpu"), zip(GPU_PRESETS, ["2b_sft", "2b_rl", "8b_sft", "8b_rl"], strict=True)
)
def test_an_update_is_that_of_the_tpu_preset(gpu: str, tpu: str) -> None:
    """The same rows and prompts an update, lengths, pictures and rates; RL's rows hold a group."""
    here, there = GPU_PRESETS[gpu](), PRESETS[f"qwen3_vl_{tpu}"]()
    assert here.data == there.data
    assert (here.sft.optimizer, here.sft.steps) == (there.sft.optimizer, there.sft.steps)
    assert here.sft.batch.rows * here.sft.accumulate == there.sft.batch.rows * there.sft.accumulate
    assert (here.sft.batch.tokens, here.rl.loss, here.rl.advantage) == (
        there.sft.batch.tokens,
        there.rl.loss,
        there.rl.advantage,
    )
    if here.rl.steps:
        mine, theirs = here.rl.rollout, there.rl.rollout
        for name in (
            "prompt_tokens",
            "prompt_patches",
            "max_new_tokens",
            "group_size",
            "temperature",
            "kv_dtype",
        ):
            assert getattr(mine, name) == getattr(theirs, name), name
        for name in ("steps", "prompts_per_step", "num_minibatches", "optimizer"):
            assert getattr(here.rl, name) == getattr(there.rl, name), name
        assert here.rl.batch.tokens == mine.prompt_tokens + mine.group_size * mine.max_new_tokens


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nonesuch"], 2, "unknown preset 'nonesuch'"),
        (["qwen3_vl_2b_rl_gpu", "--gpu", "v100"], 2, "--gpu"),
        (["qwen3_vl_2b_rl_gpu", "--only", "nonesuch"], 2, "--only nonesuch"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, message: str) -> None:
    if "--only" in arguments and importlib.util.find_spec("jax_cuda12_plugin") is None:
        status, message = 1, "XLA's GPU compiler is not installed: pip install"
    done = memory_of(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done.stderr
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="XLA's GPU compiler, jax[cuda12], is missing",
)
@pytest.mark.parametrize("gpu", ["h100", "a100"])
def test_a_preset_fits_and_a_longer_one_does_not(gpu: str) -> None:
    """Gradients through the attention kernels and the optimiser's update; twice the prompts overflow the cache."""
    name = "qwen3_vl_2b_rl_gpu"
    done = memory_of(name, "--gpu", gpu, "--only", "RL (gradients|update)")
    assert done.returncode == 0, done.stderr
    totals = [
        float(total) for total in re.findall(r"^\| RL \w+ \| \*\*([\d.]+)\*\*", done.stdout, re.MULTILINE)
    ]
    assert len(totals) == 2 and all(30 < total < 68 for total in totals)
    more = memory_of(name, "--gpu", gpu, "--only", "RL decoding", "--rl.rollout.prompt-slots", "12")
    assert more.returncode == 1 and "does not fit" in more.stdout
