"""What is reported of an RL step: means by task, speed, and the table of it."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.model.attention import attention
from onethinker_jax.model.generation.sampling import SamplingConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Samples
from onethinker_jax.rewards.score import Score
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.cost.hardware import CHIPS, chip_of
from onethinker_jax.train.cost.program_cost import count_flops
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl import mfu
from onethinker_jax.train.rl.mfu import UpdateFlops, Utilisation, update_flops
from onethinker_jax.train.rl.policy_update import PolicyBatch, rl_loss
from onethinker_jax.train.rl.rl_metrics import (
    TABLE,
    device_memory,
    rollout_metrics,
    speed_metrics,
    summary_lines,
    table_rows,
)
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.state import init_state
from tests.train import making
from tests.train.rl.small_run import SETTINGS


def group(kind: str, data_type: str, accuracies: list[float], lengths: list[int], most: float = 1.0) -> Group:
    """Two samples of a prompt; the first is cut off, the second in the wrong format."""
    record = Record(1, "?", data_type, kind, (), "<answer>x</answer>", (), (), "made")
    tokens = [np.arange(length, dtype=np.int32) for length in lengths]
    samples = Samples(tokens, [np.zeros(n, np.float32) for n in lengths], [False, True], ["a", "b"])
    scores = [Score(accuracy + 1 - i, accuracy, 1.0 - i, 0.5 * i) for i, accuracy in enumerate(accuracies)]
    prompt: Any = SimpleNamespace(tokens=np.zeros(1), patches=np.zeros(0))
    return Group(0, record, prompt, samples, scores, most)


DRAWN = [
    group("OCR", "image", [0.5, 0.4], [6, 2]),
    group("OCR", "image", [1.0, 1.0], [4, 4]),
    group("segmentation", "video", [2.0, 1.0], [6, 6], most=4.0),
]


def test_means_of_all_and_of_each_task():
    metrics = rollout_metrics(
        [group.stats for group in DRAWN], SETTINGS
    )  # whose filter keeps accuracies between 0.35 and 0.65
    assert metrics["prompts_drawn"] == 3 and metrics["sampled_tokens"] == 28
    assert metrics["reward"] == pytest.approx((0.5 + 0.4 + 1 + 1 + 2 + 1 + 3) / 6)
    assert metrics["reward/OCR (image)"] == pytest.approx((0.5 + 0.4 + 1 + 1 + 2) / 4)
    assert metrics["accuracy/segmentation (video)"] == 1.5
    assert metrics["format"] == 0.5 and metrics["structure"] == 0.25
    assert metrics["pass_rate/OCR (image)"] == 0.75
    assert metrics["pass_rate/segmentation (video)"] == 0.5  # half of 4 is 2
    assert metrics["response_length/OCR (image)"] == 4 and metrics["response_length"] == pytest.approx(28 / 6)
    assert metrics["truncated"] == 0.5
    assert metrics["groups_kept/OCR (image)"] == 0.5 and metrics["groups_kept/segmentation (video)"] == 1.0


def test_a_step_that_drew_nothing():
    assert rollout_metrics([], SETTINGS) == {"prompts_drawn": 0.0, "sampled_tokens": 0.0}
    metrics = {"sampled_tokens": 0.0, "trained_tokens": 30.0, "seconds/rollout": 0.0}
    rates = speed_metrics(metrics, 4, step_seconds=2.0, update_seconds=1.5)
    assert rates["tokens_per_second"] == 15 and rates["tokens_per_second/update"] == 20
    assert "tokens_per_second/rollout" not in rates


def test_speed():
    metrics = {"sampled_tokens": 100.0, "trained_tokens": 60.0, "seconds/rollout": 4.0}
    assert speed_metrics(metrics, 8, step_seconds=5.0, update_seconds=1.0) == {
        "prompts_per_second": 1.6,
        "tokens_per_second": 32,
        "tokens_per_second/rollout": 25,
        "tokens_per_second/update": 60,
        "seconds/step": 5.0,
        "seconds/update": 1.0,
    }
    assert device_memory() == {}  # a CPU has none of its own


def test_memory_of_the_fullest_device(monkeypatch: pytest.MonkeyPatch):
    class Device:
        def __init__(self, used: int):
            self.used = used

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_in_use": self.used * 2**30, "peak_bytes_in_use": 9 * 2**30}

    monkeypatch.setattr("jax.local_devices", lambda: [Device(2), Device(5)])
    assert device_memory() == {"memory_gib/in_use": 5.0, "memory_gib/peak": 9.0}


def test_the_table():
    metrics = rollout_metrics([group.stats for group in DRAWN], SETTINGS)
    metrics |= {"advantage_abs": 1.25, "advantage_abs/OCR (image)": 0.5, "sigma/OCR": 0.125}
    metrics |= {"sigma/segmentation (video)": 0.25, "entropy": 1.5, "seconds/step": 2.0, "mismatch": 1e-6}
    rows = table_rows(metrics)
    assert [row[0] for row in rows] == ["OCR (image)", "segmentation (video)", "all tasks"]
    columns = ["task", *TABLE]
    ocr, video, everything = (dict(zip(columns, row, strict=True)) for row in rows)
    assert ocr["pass_rate"] == "75%" and ocr["sigma"] == "0.125" and ocr["advantage_abs"] == "0.500"
    assert video["sigma"] == "0.250" and video["advantage_abs"] is None and video["response_length"] == "6"
    assert everything["sigma"] is None and everything["advantage_abs"] == "1.250"
    policy, speed = summary_lines(metrics)
    assert policy == "  policy: entropy 1.500, mismatch 1.0e-06"
    assert speed == "  speed: seconds 2"


def test_model_flops_utilisation(monkeypatch: pytest.MonkeyPatch):
    """FLOPs do not depend on what is computed twice, and are those of three forward passes, nearly.

    Attention counts by the pairs that see each other.
    """
    graphdef, params = making.policy()
    model = nnx.merge(graphdef, params)
    optimizer = make_optimizer(SETTINGS.optimizer, 4, train_vision=True)
    mesh = make_mesh()
    state = init_state(params, optimizer, init_moments(2), mesh, reference=False)
    whole = making.batch(making.ROWS)
    zeros = np.zeros(whole.targets.shape, np.float32)
    batch = PolicyBatch(whole, zeros, zeros, np.zeros(whole.targets.shape, np.int32))
    sampling: Any = SamplingConfig(max_new_tokens=6, eos_ids=(0,))

    def flops(remat: Any) -> UpdateFlops:
        assert isinstance(model, Qwen3VL)
        model.remat = remat
        return update_flops(Policy(nnx.split(model)[0], mesh), optimizer, SETTINGS, sampling, state, batch)

    assert flops("full") == flops("none")
    traced = jax.make_jaxpr(
        lambda params: rl_loss(
            graphdef, params, None, batch, objective=SETTINGS.loss, max_length=6, sampling=sampling
        )[0]
    )(params)
    forward = sum(count_flops(traced.jaxpr).values())
    text = making.CONFIG.text
    assert forward > 2 * zeros.size * text.hidden_size * (
        text.vocab_size + 3 * text.num_layers * text.intermediate_size
    )
    of_all = flops("none")
    assert of_all.head == 6 * text.hidden_size * text.vocab_size
    assert 2.5 < (of_all.body + zeros.size * of_all.head) / forward < 3.5

    # By the kernels attention counts apart: two products forward and four backward for a pair of each head.
    monkeypatch.setattr(attention, "platform_backend", lambda: "flash_tpu")
    with_kernels, vision = flops("none"), making.CONFIG.vision
    of_pair = 6 * 2 * text.num_layers * text.num_heads * text.head_dim
    assert with_kernels.text == pytest.approx(of_pair, rel=1e-3)
    assert with_kernels.patches == pytest.approx(6 * 2 * vision.depth * vision.hidden_size, rel=1e-3)
    assert with_kernels.head == of_all.head
    assert with_kernels.body < of_all.body

    utilisation = Utilisation(Policy(graphdef, mesh), optimizer, SETTINGS, sampling)
    utilisation.add(batch)
    assert utilisation.metrics({}, state) == {}  # of a CPU no peak is known
    monkeypatch.setattr(mfu, "chip_of", lambda kind: CHIPS["v5e"])
    known = Utilisation(Policy(graphdef, mesh), optimizer, SETTINGS, sampling)
    of_step = {"micro_batches": 2.0, "trained_tokens": 7.0, "seconds/update": 0.5}
    assert whole.inputs.vision is not None
    ids = [np.asarray(x) for x in (whole.inputs.segment_ids, whole.inputs.vision.frame_ids)]
    pairs = [
        sum(n * (n + 1) // 2 if causal else n * n for row in x for n in np.bincount(row)[1:])
        for x, causal in zip(ids, (True, False), strict=True)
    ]
    for _ in range(2):  # the pairs of a step count in it alone
        known.add(batch)
        known.add(batch)
        done = 2 * with_kernels.body + 7 * with_kernels.head
        done += 2 * (pairs[0] * with_kernels.text + pairs[1] * with_kernels.patches)
        assert known.metrics(of_step, state) == {"mfu": pytest.approx(done / (0.5 * 197e12))}


def test_chips_by_the_kind_of_a_device():
    assert chip_of("TPU v5") is CHIPS["v5p"] and chip_of("TPU v6 lite") is CHIPS["v6e"]
    assert chip_of("TPU v5 lite") is CHIPS["v5e"] and chip_of("TPU7x") is CHIPS["tpu7x"]
    found = chip_of("NVIDIA H100 80GB HBM3")
    assert found is not None and found.flops == 989e12
    assert chip_of("cpu") is None
