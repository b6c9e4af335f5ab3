"""Policy losses against plain loops over unpacked samples in float64, gradients against finite differences.

The loops are written from the papers' formulas and know of no rows: what packing may not change is compared with
them under several packings.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from onethinker_jax.train.config.objective import PolicyLossSettings
from onethinker_jax.train.rl import policy_losses
from onethinker_jax.train.rl.policy_losses import PolicyLogprobs

policy_loss: Any = policy_losses.policy_loss  # NumPy arrays will do

MAX_LENGTH = 11
CONFIGS = {
    "ppo": PolicyLossSettings(),
    "ppo, close bounds": PolicyLossSettings(clip_low=0.1, clip_high=0.5, dual_clip=1.5, max_log_ratio=1.0),
    "ppo without dual clip, per sequence": PolicyLossSettings(dual_clip=math.inf, aggregation="sequence"),
    "constant, k1": PolicyLossSettings(aggregation="constant", kl_coefficient=0.4, kl_estimator="k1"),
    "k2 and entropy": PolicyLossSettings(kl_coefficient=0.3, kl_estimator="k2", entropy_coefficient=0.05),
    "k3": PolicyLossSettings(kl_coefficient=0.3, max_log_ratio=3.0),
    "k1, bias corrected": PolicyLossSettings(kl_coefficient=0.3, kl_estimator="k1", kl_bias_correction=True),
    "gspo": PolicyLossSettings(
        kind="gspo", aggregation="sequence", clip_low=0.1, clip_high=0.15, dual_clip=1.4
    ),
    "gspo per token, k3 bias corrected": PolicyLossSettings(
        kind="gspo", kl_coefficient=0.2, kl_bias_correction=True, importance_sampling="sequence_truncate"
    ),
    "cispo": PolicyLossSettings(kind="cispo", entropy_coefficient=0.02),
    "cispo, no lower bound": PolicyLossSettings(kind="cispo", clip_low=1.0, aggregation="constant"),
    "token truncate": PolicyLossSettings(importance_sampling="token_truncate", tis_cap=1.2),
    "token mask": PolicyLossSettings(
        importance_sampling="token_mask", tis_cap=1.5, tis_floor=0.6, aggregation="sequence"
    ),
    "sequence mask": PolicyLossSettings(
        importance_sampling="sequence_mask", tis_cap=1.6, tis_floor=0.3, kl_coefficient=0.1
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@dataclass(frozen=True)
class Sample:
    """Arrays float64 [n] of one sample's tokens; `counted` [n] false where a token is no target."""

    advantage: float
    logprobs: Any
    entropy: Any
    sampled: Any
    old: Any
    reference: Any
    counted: Any


def draw(lengths: Sequence[int], seed: int = 3, dtype: Any = np.float32) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for n in lengths:
        sampled = -rng.exponential(2.0, n)
        old = sampled + rng.normal(scale=0.3, size=n)
        logprobs = old + rng.normal(scale=0.5, size=n) + rng.normal(scale=0.3)
        reference = old + rng.normal(scale=0.5, size=n)
        entropy = rng.exponential(1.0, n)
        arrays: Any = (a.astype(dtype) for a in (logprobs, entropy, sampled, old, reference))
        samples.append(Sample(float(np.float32(rng.normal(scale=2))), *arrays, counted=rng.random(n) < 0.9))
    samples[0].logprobs[:3] = samples[0].old[:3] + np.array([30, -30, 25])
    samples[0].counted[:3] = True
    samples[1].counted[:] = False  # one sample of which nothing counts
    return samples


def clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def plain_loss(
    samples: Sequence[Sample], config: PolicyLossSettings, fixed: Sequence[Sample] | None = None
) -> tuple[float, float]:
    """The summed loss and the count. Where the formula lets no gradient through, values are those of `fixed`."""
    total, tokens, count = 0.0, 0, 0
    for one, still in zip(samples, fixed or samples, strict=True):
        places = [t for t in range(len(one.logprobs)) if one.counted[t]]
        if not places:
            continue
        count, tokens = count + 1, tokens + len(places)
        corrected = config.importance_sampling != "none"
        old = {t: float((one.old if corrected else one.sampled)[t]) for t in places}
        gaps = {t: float(one.logprobs[t]) - old[t] for t in places}
        mismatch = {t: float(one.old[t]) - float(one.sampled[t]) for t in places}
        share = 0.0
        for t in places:
            gap = sum(gaps.values()) / len(places) if config.kind == "gspo" else gaps[t]
            ratio = math.exp(clamp(gap, config.max_log_ratio))
            low, high = 1 - config.clip_low, 1 + config.clip_high
            if config.kind == "cispo":
                weight = math.exp(clamp(float(still.logprobs[t]) - old[t], config.max_log_ratio))
                objective = min(max(weight, low), high) * one.advantage * float(one.logprobs[t])
            else:
                objective = min(ratio * one.advantage, min(max(ratio, low), high) * one.advantage)
                if one.advantage < 0:
                    objective = max(objective, config.dual_clip * one.advantage)
            if corrected:
                whole = config.importance_sampling.startswith("sequence")
                gap = sum(mismatch.values()) if whole else mismatch[t]
                weight = math.exp(clamp(gap, config.max_log_ratio))
                if config.importance_sampling.endswith("truncate"):
                    objective *= min(weight, config.tis_cap)
                else:
                    objective *= weight if config.tis_floor <= weight <= config.tis_cap else 0
            d = clamp(float(one.reference[t]) - float(one.logprobs[t]), config.max_log_ratio)
            kl = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[config.kl_estimator]
            if config.kl_bias_correction:
                kl *= math.exp(clamp(gaps[t], config.max_log_ratio))
            objective -= config.kl_coefficient * kl
            objective += config.entropy_coefficient * float(one.entropy[t])
            share += objective / (len(places) if config.aggregation == "sequence" else 1)
        total -= share
    return total, {"token": tokens, "sequence": count, "constant": count * MAX_LENGTH}[config.aggregation]


Places = list[tuple[int, int, int]]  # (micro-batch, row, first token) of each sample


def pack(samples: Sequence[Sample], rows: int, length: int, prompt: int) -> tuple[list[dict], Places]:
    """Micro-batches of rows; before each sample `prompt` tokens that are nobody's. NaN where nothing counts."""
    places, used = [], [0]
    for one in samples:
        if used[-1] + prompt + len(one.logprobs) > length:
            used.append(0)
        places.append((*divmod(len(used) - 1, rows), used[-1] + prompt))
        used[-1] += prompt + len(one.logprobs)
    batches = []
    for batch in range(-(-len(used) // rows)):
        shape, dtype = (rows, length), samples[0].logprobs.dtype
        arrays: dict[str, Any] = {
            name: np.full(shape, np.nan, dtype)
            for name in ("logprobs", "entropy", "sampled", "old", "reference")
        }
        arrays |= {"mask": np.zeros(shape, bool), "advantages": np.zeros(shape, dtype)}
        arrays["sample_index"] = np.full(shape, -1, np.int32)
        for number, (one, (where, row, first)) in enumerate(zip(samples, places, strict=True)):
            if where != batch:
                continue
            span = (row, slice(first, first + len(one.logprobs)))
            for name in ("logprobs", "entropy", "sampled", "old", "reference"):
                arrays[name][span] = np.where(one.counted, getattr(one, name), np.nan)
            arrays["mask"][span] = one.counted
            arrays["advantages"][span] = one.advantage
            arrays["sample_index"][span] = number
        batches.append(arrays)
    return batches, places


def arguments(arrays: dict, config: PolicyLossSettings) -> dict:
    """As training gives them: no reference where its coefficient is zero."""
    named = dict(arrays)
    current, sampled, old, reference = (
        named.pop(name, None) for name in ("logprobs", "sampled", "old", "reference")
    )
    policies = PolicyLogprobs(current, sampled, old, reference if config.kl_coefficient else None)
    return named | {
        "policies": policies,
        "config": config,
        "max_length": MAX_LENGTH,
    }


@partial(jax.jit, static_argnames="config")
@partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
def graded_loss(logprobs: Any, entropy: Any, arrays: dict, config: PolicyLossSettings) -> Any:
    return policy_loss(**arguments(arrays | {"logprobs": logprobs, "entropy": entropy}, config))


def loss_and_gradients(
    samples: Sequence[Sample], config: PolicyLossSettings, rows: int, length: int, prompt: int
) -> tuple[float, dict[str, float], list[np.ndarray]]:
    """Of all micro-batches together: the loss, the other sums, each sample's d loss / d (logprobs, entropy)."""
    batches, places = pack(samples, rows, length, prompt)
    total, sums, gradients = 0.0, {}, []
    for arrays in batches:
        (value, new), gradient = graded_loss(arrays["logprobs"], arrays["entropy"], arrays, config=config)
        total += float(value)
        sums = {name: sums.get(name, 0.0) + float(value) for name, value in new.items()}
        gradients.append(np.stack(gradient))
    return (
        total,
        sums,
        [
            gradients[batch][:, row, first : first + len(one.logprobs)]
            for one, (batch, row, first) in zip(samples, places, strict=True)
        ],
    )


@every_config
def test_the_loss_is_that_of_plain_loops_however_it_is_packed(config: PolicyLossSettings) -> None:
    samples = draw([7, 3, 1, 12, 5, 9, 2, 4])
    expected, count = plain_loss(samples, config)
    first = None
    for shape in ((1, 14, 2), (3, 19, 0)):  # one sample a row; rows of several, sample against sample
        total, sums, gradients = loss_and_gradients(samples, config, *shape)
        np.testing.assert_allclose(total, expected, rtol=2e-5)
        assert sums["count"] == count
        assert sums["tokens"] == sum(int(one.counted.sum()) for one in samples)
        for one, gradient in zip(samples, gradients, strict=True):
            assert not np.any(gradient[:, ~one.counted])
        first = first or (sums, gradients)
        for name, value in sums.items():
            np.testing.assert_allclose(value, first[0][name], rtol=1e-5, err_msg=name)
        for ours, theirs in zip(gradients, first[1], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_what_is_watched() -> None:
    samples = draw([6, 4, 10, 8, 9])
    counted = np.concatenate([one.counted for one in samples])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in samples]).astype(np.float64)[counted]

    signs = np.concatenate([np.full(len(one.logprobs), one.advantage) for one in samples])[counted]
    config = PolicyLossSettings(max_log_ratio=3.0, kl_coefficient=1.0)
    _, sums, _ = loss_and_gradients(samples, config, 1, 42, 1)
    gaps = np.clip(joined("logprobs") - joined("sampled"), -3, 3)
    assert sums["clipped_low"] == ((np.exp(gaps) < 0.8) & (signs < 0)).sum() > 0
    assert sums["clipped_high"] == ((np.exp(gaps) > 1.3) & (signs > 0)).sum() > 0
    np.testing.assert_allclose(sums["kl_sampled"], (np.exp(gaps) - gaps - 1).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["mismatch"], np.abs(gaps).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["entropy"], joined("entropy").sum(), rtol=1e-5)
    gaps = np.clip(joined("reference") - joined("logprobs"), -3, 3)
    np.testing.assert_allclose(sums["kl_reference"], (np.exp(gaps) - gaps - 1).sum(), rtol=1e-5)
    assert "importance_cut" not in sums

    config = PolicyLossSettings(importance_sampling="token_mask", tis_cap=1.2, tis_floor=0.8)
    _, sums, _ = loss_and_gradients(samples, config, 1, 42, 1)
    ratios = np.exp(joined("old") - joined("sampled"))
    cut = (ratios > 1.2) | (ratios < 0.8)
    assert sums["importance_cut"] == cut.sum() > 0
    np.testing.assert_allclose(sums["importance_weight"], ratios[~cut].sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["mismatch"], np.abs(np.log(ratios)).sum(), rtol=1e-5)
    assert "kl_reference" not in sums


# log-ratio, advantage -> loss of that one token, with clip_low 0.2, clip_high 0.3, dual clip 3
BY_HAND = [
    (0.0, 2.0, -2.0),
    (0.0, -2.0, 2.0),
    (math.log(1.2), 1.0, -1.2),  # inside: as it is
    (math.log(1.5), 1.0, -1.3),  # a gain is clipped above
    (math.log(0.5), 1.0, -0.5),  # a loss of probability is not
    (math.log(0.5), -1.0, 0.8),  # a gain is clipped below
    (math.log(2.0), -1.0, 2.0),
    (math.log(5.0), -1.0, 3.0),  # dual clip
    (50.0, 1.0, -1.3),
    (50.0, -1.0, 3.0),
    (-50.0, 1.0, -math.exp(-20)),  # the log-ratio is clamped
]


@pytest.mark.parametrize(("log_ratio", "advantage", "loss"), BY_HAND)
def test_ppo_of_one_token(log_ratio: float, advantage: float, loss: float) -> None:
    arrays: Any = (np.array([value], np.float32) for value in (log_ratio - 1, 0, -1, 0, 0))
    one = Sample(advantage, *arrays, counted=np.array([True]))
    np.testing.assert_allclose(loss_and_gradients([one], PolicyLossSettings(), 1, 1, 0)[0], loss, rtol=1e-5)


def test_gspo_and_cispo_of_one_sample() -> None:
    """Log-ratios ln 2, ln 2 and ln 1/2: a sequence ratio of 2^(1/3), no tokenwise one."""
    gaps = np.log(np.array([2, 2, 0.5], np.float32))
    zeros = np.zeros(3, np.float32)
    one = Sample(1.0, gaps - 1, zeros, zeros - 1, zeros, zeros, np.ones(3, bool))
    for bound, value in ((0.5, 2 ** (1 / 3)), (0.1, 1.1)):
        config = PolicyLossSettings(kind="gspo", aggregation="sequence", clip_high=bound)
        loss, sums, (gradient,) = loss_and_gradients([one], config, 1, 5, 1)
        assert loss == pytest.approx(-value)
        # every token of the sample has the same pull, ratio / length, until the sequence is clipped
        np.testing.assert_allclose(gradient[0], -value / 3 if bound == 0.5 else 0.0, rtol=1e-5)
        assert sums["clipped_high"] == (0 if bound == 0.5 else 3)
    loss, _, (gradient,) = loss_and_gradients([one], PolicyLossSettings(kind="cispo"), 1, 5, 1)
    np.testing.assert_allclose(gradient[0], [-1.3, -1.3, -0.8], rtol=1e-6)  # clipped, and still pulling
    assert loss == pytest.approx(-float(np.dot([1.3, 1.3, 0.8], gaps - 1)))


def model(parameters: Any, tokens: Any, targets: Any, softmax: Callable, xp: Any) -> tuple[Any, Any]:
    """log-probabilities and entropies [..., T] of a two-layer model of bigrams."""
    embed, hidden, head = parameters
    normal = softmax(xp.tanh(embed[tokens] @ hidden) @ head)
    chosen = xp.take_along_axis(normal, targets[..., None], -1)[..., 0]
    return chosen, -xp.sum(xp.exp(normal) * normal, -1)


def plain_log_softmax(logits: Any) -> Any:
    return logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))


@every_config
def test_the_gradient_of_a_small_model(config: PolicyLossSettings) -> None:
    """All its parameters, packed, against central differences of the loops, unpacked; all in float64."""
    rng = np.random.default_rng(5)
    parameters = tuple(rng.normal(size=shape) for shape in ((6, 3), (3, 4), (4, 6)))
    samples, tokens, targets = draw([5, 2, 8, 1, 6], dtype=np.float64), [], []
    for one in samples:
        n = len(one.logprobs)
        tokens.append(rng.integers(0, 6, n))
        targets.append(rng.integers(0, 6, n))
        now, _ = model(parameters, tokens[-1], targets[-1], plain_log_softmax, np)
        one.sampled[:] += now - one.old  # as far from the model as they were from its old log-probabilities
        one.reference[:] += now - one.old
        one.old[:] = now + rng.normal(scale=0.3, size=n)

    def rerun(parameters: Any) -> list[Sample]:
        return [
            replace(one, **dict(zip(("logprobs", "entropy"), outputs, strict=True)))
            for one, outputs in (
                (one, model(parameters, ids, wanted, plain_log_softmax, np))
                for one, ids, wanted in zip(samples, tokens, targets, strict=True)
            )
        ]

    samples = rerun(parameters)

    def packed_loss(parameters: Any, arrays: dict, ids: Any, wanted: Any) -> Any:
        outputs = model(parameters, ids, wanted, jax.nn.log_softmax, jnp)
        named = dict(zip(("logprobs", "entropy"), outputs, strict=True))
        return policy_loss(**arguments(arrays | named, config))[0]

    with jax.enable_x64(True):
        batches, places = pack(samples, 2, 11, 1)
        gradient: Any = [np.zeros(array.shape) for array in parameters]
        graded = jax.jit(jax.grad(packed_loss))
        for number, arrays in enumerate(batches):
            ids, wanted = np.zeros((2, 2, 11), np.int64)
            for own, next_ids, (batch, row, first) in zip(tokens, targets, places, strict=True):
                if batch == number:
                    ids[row, first : first + len(own)] = own
                    wanted[row, first : first + len(own)] = next_ids
            new = graded(parameters, arrays, ids, wanted)
            gradient = [total + np.asarray(part) for total, part in zip(gradient, new, strict=True)]
            assert all(part.dtype == np.float64 for part in new)

    for number, array in enumerate(parameters):
        for place in np.ndindex(*array.shape):
            both = []
            for sign in (1, -1):
                moved = [part.copy() for part in parameters]
                moved[number][place] += sign * 1e-6
                both.append(plain_loss(rerun(moved), config, samples)[0])
            slope = (both[0] - both[1]) / 2e-6
            np.testing.assert_allclose(gradient[number][place], slope, rtol=1e-6, atol=1e-7)
    assert max(np.abs(part).max() for part in gradient) > 0.1


@pytest.mark.parametrize("loss", ["ppo", "gspo", "cispo"])
def test_without_an_old_policy_it_is_the_policy_itself(loss: Any) -> None:
    config = PolicyLossSettings(kind=loss, importance_sampling="token_truncate", aggregation="sequence")
    samples = [replace(one, old=one.logprobs) for one in draw([5, 4, 3])]
    (arrays,), _ = pack(samples, 1, 12, 0)
    ours, theirs = (
        graded_loss(arrays["logprobs"], arrays["entropy"], arrays | {"old": old}, config=config)
        for old in (None, arrays["old"])
    )
    for mine, true in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-6)
    assert np.any(ours[1][0])


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, virtual ones do")
@pytest.mark.parametrize("name", ["ppo", "gspo", "sequence mask", "token mask"])
def test_eight_devices_equal_one(name: str) -> None:
    config = CONFIGS[name]
    (arrays,), _ = pack(draw([7, 3, 1, 12, 5, 9, 2, 4, 11, 6, 8, 10, 12]), 8, 16, 1)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("data")))
    one, eight = (
        graded_loss(where["logprobs"], where["entropy"], where, config=config) for where in (arrays, sharded)
    )
    for ours, theirs in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
