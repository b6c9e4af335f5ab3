"""An update of the train state: sums over micro-batches, what is frozen, the schedule, what decays."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from transformers import get_constant_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup

from onethinker_jax.model.sharding import make_mesh, shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.log.compilation_watch import count_compilations
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.sft import sft_loss
from onethinker_jax.train.state import TrainState, Update, init_state, make_update
from tests.train import making

SETTINGS = OptimizerSettings(learning_rate=1e-3, warmup=0.0, weight_decay=0.01)
# Rows of unequal numbers of targets: a mean of means would not do.
ROWS = [["text"], ["one image", "text"], ["text", "text"], ["video"]]


@dataclass(frozen=True)
class Case:
    """A policy and its compiled update."""

    params: nnx.State
    optimizer: optax.GradientTransformation
    update: Update

    def state(self) -> TrainState:
        """A fresh state; the policy is copied because an update takes its state's buffers."""
        params = jax.tree.map(jnp.copy, self.params)
        return init_state(params, self.optimizer, init_moments(2), make_mesh(), reference=False)

    def step(self, state: TrainState, rows: int) -> tuple[TrainState, nnx.State, float]:
        """State, summed gradients and their mean's norm after an update over ROWS, `rows` at a time."""
        whole = making.batch(ROWS)
        gradients = None if rows == len(ROWS) else self.update.zeros(state.params)
        total, loss = jnp.float32(0), jnp.float32(0)
        for first in range(0, len(ROWS), rows):
            part = shard_rows(making.rows_of(whole, slice(first, first + rows)), make_mesh())
            gradients, sums = self.update.accumulate(state.params, None, gradients, part)
            total += sums["tokens"]
            loss += sums["loss"]
        assert gradients is not None
        state, norm = self.update.apply(state, gradients, total, loss)
        return state, gradients, float(norm)


@pytest.fixture(scope="module")
def case() -> Case:
    graphdef, params = making.policy()
    optimizer = make_optimizer(SETTINGS, 4, train_vision=True)
    update = make_update(lambda params, _, batch: sft_loss(graphdef, params, batch), optimizer)
    return Case(params, optimizer, update)


def test_micro_batches_add_up(case: Case) -> None:
    """One update over 4 rows is that over 2 + 2 rows."""
    whole, whole_sum, whole_norm = case.step(case.state(), 4)
    halves, halves_sum, halves_norm = case.step(case.state(), 2)
    assert int(whole.step) == int(halves.step) == 1
    np.testing.assert_allclose(halves_norm, whole_norm, rtol=1e-5)
    expected, after = making.named(whole.params), making.named(halves.params)
    gradients = making.named(whole_sum)
    for name, gradient in making.named(halves_sum).items():
        scale = np.abs(gradients[name]).max()
        np.testing.assert_allclose(gradient, gradients[name], rtol=1e-4, atol=1e-5 * scale + 1e-6)
        # Adam makes a step of any size of a gradient that is nothing but rounding: look at the others.
        real = np.abs(gradients[name]) > 1e-3
        np.testing.assert_allclose(after[name][real], expected[name][real], rtol=0, atol=1e-6)


def test_an_update_compiles_once(case: Case) -> None:
    state, _, _ = case.step(case.state(), 2)
    with count_compilations() as compilations:
        for _ in range(2):
            state, _, _ = case.step(state, 2)
    assert not compilations.names
    assert int(state.step) == 3


def test_frozen_vision(case: Case) -> None:
    """The vision tower stays as it is and has no moments; everything else moves."""
    before = making.named(case.params)
    for train_vision in (False, True):
        optimizer = make_optimizer(SETTINGS, 4, train_vision=train_vision)
        state = jax.jit(optimizer.init)(case.params)
        ones = jax.tree.map(jnp.ones_like, case.params)
        updates, _ = jax.jit(optimizer.update)(ones, state, case.params)
        moving = {name for name, values in making.named(updates).items() if np.any(values)}
        text = {name for name in before if not name.startswith("visual.")}
        assert moving == (set(before) if train_vision else text)
        assert any(".visual." in name for name in making.named(state)) == train_vision
        assert any(".decoder." in name for name in making.named(state))


@pytest.mark.parametrize("train_vision", [True, False])
@pytest.mark.parametrize(
    ("schedule", "warmup"), [("cosine", 0.2), ("cosine", 0.0), ("constant", 0.2), ("constant", 0.0)]
)
def test_schedule(schedule: Any, warmup: float, train_vision: bool) -> None:
    """With a gradient that never changes, Adam's step is the learning rate."""
    settings = OptimizerSettings(0.5, schedule=schedule, warmup=warmup, weight_decay=0.0)
    steps, warm = 20, round(20 * warmup)
    optimizer = make_optimizer(settings, steps, train_vision=train_vision)
    params = {"decoder": {"kernel": jnp.zeros(3)}, "visual": {"kernel": jnp.zeros(2)}}
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), params)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(steps + 5):
        updates, state = update(gradients, state, params)
        share = min((step - warm) / (steps - warm), 1.0)
        falling = 0.05 + 0.45 * (1 + math.cos(math.pi * share)) / 2 if schedule == "cosine" else 0.5
        rate = 0.5 * step / warm if step < warm else falling
        np.testing.assert_allclose(updates["decoder"]["kernel"], -rate, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(
            updates["visual"]["kernel"], -rate if train_vision else 0.0, rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("warmup", [0.2, 0.0])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates_are_those_of_transformers(schedule: Any, warmup: float) -> None:
    """Whose Trainer OneThinker's runs have: there too the first update of a warm-up has the rate 0."""
    steps, warm = 20, round(20 * warmup)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    if schedule == "cosine":
        scheduler = get_cosine_with_min_lr_schedule_with_warmup(theirs, warm, steps, min_lr_rate=0.1)
    else:
        scheduler = get_constant_schedule_with_warmup(theirs, warm)
    settings = OptimizerSettings(0.5, schedule=schedule, warmup=warmup, weight_decay=0.0)
    optimizer = make_optimizer(settings, steps, train_vision=True)
    params, gradients = {"kernel": jnp.zeros(1)}, {"kernel": jnp.full(1, 0.1)}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(gradients, state, params)
        (rate,) = scheduler.get_last_lr()
        assert (rate == 0) == (step == 0 and warm > 0)
        np.testing.assert_allclose(updates["kernel"], -rate, rtol=1e-4, atol=1e-7)
        theirs.step()
        scheduler.step()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("of_adam", [None, 0.0, 0.05])
def test_weight_decay_is_for_matrices(case: Case, kind: Any, of_adam: float | None) -> None:
    """Without a gradient only what decays moves: at the rate of its step, from the second on along the schedule."""
    settings = OptimizerSettings(1e-2, kind, "constant", 0.4, weight_decay=0.1, adam_weight_decay=of_adam)
    optimizer = make_optimizer(settings, 5, train_vision=True)
    zeros, before = jax.tree.map(jnp.zeros_like, case.params), making.named(case.params)
    state, update = jax.jit(optimizer.init)(case.params), jax.jit(optimizer.update)
    for rate in (0.0, 5e-3, 1e-2, 1e-2):
        updates, state = update(zeros, state, case.params)
        for name, values in making.named(updates).items():
            *path, last = name.removesuffix(".value").split(".")
            ends = last == "embed" or "patch_embed" in path or "lm_head" in path
            decay = 0.05 if kind == "muon" and ends and of_adam == 0.05 else 0.1
            if last not in ("kernel", "embed") or (kind == "muon" and ends and of_adam == 0.0):
                decay = 0.0
            np.testing.assert_allclose(
                values, -rate * decay * before[name], rtol=1e-5, atol=1e-9, err_msg=name
            )


def test_the_default_run_decays_what_it_was_measured_with() -> None:
    """Its Muon leaves the embedding as it is; Muon by itself decays all matrices, as its help says."""
    assert shapes().sft.optimizer.kind == "muon" and shapes().sft.optimizer.adam_weight_decay == 0.0
    assert OptimizerSettings(1.0, "muon").adam_weight_decay is None
    with pytest.raises(SettingError, match=r"optimizer\.adam_weight_decay -1 must not be negative"):
        OptimizerSettings(1.0, "muon", adam_weight_decay=-1)


def test_rates_of_the_vision_tower() -> None:
    """The patch embedding and the rest of the tower have rates of their own, relative to the decoder's."""
    settings = OptimizerSettings(0.5, schedule="constant", warmup=0.0, weight_decay=0.0)
    settings = replace(settings, vision_lr_multiplier=0.5, patch_lr_multiplier=0.1)
    params = {
        "decoder": {"kernel": jnp.zeros(3)},
        "visual": {"merger": {"kernel": jnp.zeros(2)}, "patch_embed": {"kernel": jnp.zeros(2)}},
    }
    optimizer = make_optimizer(settings, 1, train_vision=True)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), params)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    rates = {name: -float(values[0]) for name, values in making.named(updates).items()}
    assert rates == pytest.approx(
        {"decoder.kernel": 0.5, "visual.merger.kernel": 0.25, "visual.patch_embed.kernel": 0.05}, rel=1e-4
    )


def test_muon_takes_equal_steps_in_all_directions() -> None:
    """Of a layer's matrix; embeddings, norms and the patch embedding take Adam's first step, with Nesterov momentum."""
    settings = OptimizerSettings(0.5, kind="muon", schedule="constant", warmup=0.0, weight_decay=0.0)
    settings = replace(settings, max_grad_norm=1e6, vision_lr_multiplier=0.5, patch_lr_multiplier=0.1)
    shapes = {
        "decoder": {"q_proj": {"kernel": (2, 6, 4)}, "experts": {"gate_up": {"kernel": (2, 3, 2, 6, 4)}}},
        "visual": {"blocks": {"fc1": {"kernel": (2, 6, 4)}}, "patch_embed": {"kernel": (6, 4)}},
        "embed": (6, 4),
        "norm": {"scale": (4,)},
    }
    random = np.random.default_rng(0)
    gradients = jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    params = jax.tree.map(jnp.zeros_like, gradients)
    optimizer = make_optimizer(settings, 1, train_vision=True)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    steps = making.named(updates)
    rates = {"embed": 0.5, "norm.scale": 0.5, "visual.patch_embed.kernel": 0.05}
    for name, rate in rates.items():
        nesterov = 1 + 0.9 * 0.1 / (1 - 0.9**2)
        np.testing.assert_allclose(np.abs(steps.pop(name)), nesterov * rate, rtol=1e-3)
    assert len(steps) == 3
    for name, step in steps.items():
        rate = 0.25 if name.startswith("visual") else 0.5
        sizes = np.linalg.svd(step / (0.2 * math.sqrt(6) * rate), compute_uv=False)
        assert sizes.min() > 0.6, name
        assert sizes.max() < 1.3, name


def toy(parts: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Parameters, and a loss whose gradient is the batch."""
    params = jax.tree.map(jnp.asarray, parts)

    def loss(params: Any, reference: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        value: Any = sum(jnp.sum(leaf * batch) for leaf in jax.tree.leaves(params))
        gap = sum(
            jnp.sum((a - b) ** 2)
            for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=reference is not None)
        )
        return value + gap, {"tokens": jnp.float32(1)}

    return params, loss


def test_gradients_are_clipped_by_their_global_norm() -> None:
    params, _ = toy({"a": {"kernel": np.zeros(4, np.float32)}, "b": {"bias": np.zeros(3, np.float32)}})
    settings = OptimizerSettings(1.0, schedule="constant", warmup=0.0, weight_decay=0.0, max_grad_norm=2.0)
    optimizer = make_optimizer(settings, 1, train_vision=True)
    large = jax.tree.map(lambda leaf: jnp.full_like(leaf, 100.0), params)
    _, state = jax.jit(optimizer.update)(large, optimizer.init(params), params)
    first_moments = [leaf for name, leaf in making.named(state).items() if ".mu." in name]
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(first_moments)), 0.1 * 2.0, rtol=1e-5)


def test_a_reference_stays() -> None:
    """The reference policy is a copy of its own: updates neither move it nor take its buffers."""
    params, loss = toy({"decoder": {"norm": {"scale": np.ones(3, np.float32)}}})
    optimizer = make_optimizer(SETTINGS, 3, train_vision=True)
    update = make_update(loss, optimizer)
    state: Any = init_state(params, optimizer, init_moments(1), make_mesh(), reference=True)  # type: ignore[arg-type]
    for _ in range(3):
        gradients, sums = update.accumulate(
            state.params, state.reference, update.zeros(state.params), jnp.float32(2.0)
        )
        state, _ = update.apply(state, gradients, sums["tokens"], sums["loss"])
    np.testing.assert_array_equal(state.reference["decoder"]["norm"]["scale"], 1.0)
    assert np.all(np.asarray(state.params["decoder"]["norm"]["scale"]) < 1.0)
