"""Rewards of a batch of samples to advantages, and the running moments of each task behind EMA-GRPO.

Every method centres a reward by its prompt's group of samples; they differ in the scale they divide by.
EMA-GRPO divides by one number a task, so that tasks with sparse and with dense rewards pull alike, while
inside a task easy and hard prompts keep their own spread. The number comes from exponential averages m1, m2
of the task's rewards and squared rewards, `sigma = sqrt(m2 - m1^2)`. Where rewards hardly vary this
difference has few digits left: with a mean of 0.8 and a spread of 0.01 float32 sums are wrong in the third
digit of sigma. So the averages are carried as unevaluated sums of two float32 numbers, and the "released"
variant, whose published numbers contain that rounding, adds in the order that PyTorch does.

For task t with rewards R in this batch (all prompts, all samples; arXiv 2512.03043):

    m1 <- decay m1 + (1 - decay) mean(R)        first batch of a task: m1 = mean(R)
    m2 <- decay m2 + (1 - decay) mean(R^2)                             m2 = mean(R^2)
    sigma_t = sqrt(m2 - m1^2)
    c_i = R_i - mean of the rewards of i's group

ema_grpo, paper:     A_i = clip(c_i / max(sigma_t, min_std), -clip, clip)
ema_grpo, released: A_i = c_i / (max(sigma_t, min_std) + eps); a group in which any |A| > clip is
                     divided by its own biased standard deviation + eps instead
grpo:                A_i = c_i / (the group's unbiased standard deviation + eps)
dr_grpo:             A_i = c_i
rloo:                A_i = R_i - mean of the others of its group = n c_i / (n - 1)
gdpo:                B_i = sum over components k of weights_k x the grpo advantage of component k alone;
                     A_i = (B_i - mean of B) / (unbiased standard deviation of B + eps), both over the
                     whole batch (arXiv 2601.05242)

Their sources: GRPO arXiv 2402.03300, Dr. GRPO arXiv 2503.20783, RLOO arXiv 2402.14740.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from onethinker_jax.train.config.objective import AdvantageConfig

Pair = tuple[jax.Array, jax.Array]  # (high, low): the number is their sum, `high` its float32 rounding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TaskMoments:
    """Running moments of the reward, one entry a task; part of the train state.

    The averages are `m1 + m1_low` and `m2 + m2_low`; m1 and m2 alone are their float32 roundings, enough
    for every use but going on with the average.
    """

    m1: jax.Array  # float32 [tasks]: average of the reward
    m2: jax.Array  # float32 [tasks]: average of its square
    initialised: jax.Array  # bool [tasks]: whether the task has been seen
    m1_low: jax.Array | None = None  # float32 [tasks]; None counts as zeros
    m2_low: jax.Array | None = None

    def sigma(self) -> jax.Array:
        """float32 [tasks]: sqrt(m2 - m1^2), without a floor; 0 for a task not seen yet."""
        m1, m2 = _pairs(self)
        square = _multiply(m1, m1)
        high, low = _add(m2, (-square[0], -square[1]))
        return jnp.sqrt(jnp.maximum(high + low, 0.0))


def init_moments(num_tasks: int) -> TaskMoments:
    """Moments of `num_tasks` tasks, none of which has been seen."""
    zeros = jnp.zeros(num_tasks, jnp.float32)
    return TaskMoments(zeros, zeros, jnp.zeros(num_tasks, bool), zeros, zeros)


@partial(jax.jit, static_argnames="config")
def compute_advantages(
    rewards: jax.Array,
    group_ids: jax.Array,
    task_ids: jax.Array,
    moments: TaskMoments,
    config: AdvantageConfig,
    components: jax.Array | None = None,
) -> tuple[jax.Array, TaskMoments]:
    """Advantages of N samples, and the task moments that include them.

    `config.method` chooses the equation, at the top of this file.

    Args:
        rewards: float32 [N].
        group_ids: int32 [N], which prompt a sample answers: any non-negative number; negative for a
            padding entry, which counts nowhere and gets advantage 0.
        task_ids: int32 [N], one task a group, 0 .. tasks - 1. An entry outside gets NaN.
        moments: of the state before this batch. Every method moves them; only "ema_grpo" reads them.
        config: static.
        components: float32 [N, K], what the rewards are made of; only "gdpo" reads them, and needs them.

    Returns:
        float32 [N] advantages and the new moments. Not differentiable through: no gradients flow.

    Raises ValueError: "gdpo" without components, or with another number of them than of weights.

    Inputs may be sharded: sums run over the whole arrays, so moments are global.
    """
    rewards = jax.lax.stop_gradient(rewards.astype(jnp.float32))
    n = rewards.shape[0]
    num_tasks = moments.m1.shape[0]
    valid = group_ids >= 0
    known = (task_ids >= 0) & (task_ids < num_tasks)
    tasks = jnp.where(valid & known, task_ids, num_tasks)  # num_tasks collects what does not count
    moments = _updated(moments, rewards, tasks, config)

    _, groups = jnp.unique(jnp.where(valid, group_ids, -1), size=n, return_inverse=True)
    count, centred = _centre(rewards, groups, n)
    if config.method == "ema_grpo":
        sigma = jnp.maximum(moments.sigma(), config.min_std)[jnp.minimum(tasks, num_tasks - 1)]
        advantages = _by_task(centred, sigma, groups, count, config)
    elif config.method == "grpo":
        advantages = _standardised(rewards, groups, n, config.eps)
    elif config.method == "gdpo":
        advantages = _by_component(_components(components, n, config), groups, valid, config)
    elif config.method == "dr_grpo":
        advantages = centred
    else:
        advantages = centred * count / jnp.maximum(count - 1, 1)
    advantages = jnp.where(known, advantages, jnp.nan)
    return jnp.where(valid, advantages, 0.0), moments


def overlong_penalty(lengths: np.ndarray, *, limit: int, buffer: int) -> np.ndarray:
    """float32 in [-1, 0], DAPO's soft overlong punishment of responses of `lengths` tokens (arXiv 2503.14476).

    It is 0 up to limit - buffer tokens and falls in equal steps to -1 at the limit.
    """
    return -np.clip((lengths - (limit - buffer)) / buffer, 0.0, 1.0).astype(np.float32)


def _by_task(
    centred: jax.Array, sigma: jax.Array, groups: jax.Array, count: jax.Array, config: AdvantageConfig
) -> jax.Array:
    """EMA-GRPO's advantages float32 [N]; `sigma` is a sample's task's, `count` the size of its group."""
    if config.variant == "paper":
        return jnp.clip(centred / sigma, -config.clip, config.clip)
    n = len(centred)
    advantages = centred / (sigma + config.eps)
    largest = jax.ops.segment_max(jnp.abs(advantages), groups, n)[groups]
    variance = jax.ops.segment_sum(centred**2, groups, n)[groups] / count
    own = centred / (jnp.sqrt(variance) + config.eps)
    return jnp.where(largest > config.clip, own, advantages)


def _by_component(
    components: list[jax.Array], groups: jax.Array, valid: jax.Array, config: AdvantageConfig
) -> jax.Array:
    """GDPO's advantages float32 [N] of the K components float32 [N]."""
    total = sum(
        weight * _standardised(part, groups, len(groups), config.eps)
        for weight, part in zip(config.weights, components, strict=True)
    )
    whole = jnp.where(valid, 0, 1)  # the batch is one segment, padding another
    return _standardised(jnp.where(valid, total, 0.0), whole, 2, config.eps)


def _components(components: jax.Array | None, n: int, config: AdvantageConfig) -> list[jax.Array]:
    """The K components float32 [N], checked."""
    expected = (n, len(config.weights))
    if components is None or components.shape != expected:
        given = "none" if components is None else components.shape
        raise ValueError(f"gdpo needs components of shape {expected}, one column a weight; given {given}")
    return list(jax.lax.stop_gradient(components.astype(jnp.float32)).T)


def _standardised(values: jax.Array, segments: jax.Array, num_segments: int, eps: float) -> jax.Array:
    """Each value's distance from its segment's mean over the segment's unbiased standard deviation + eps."""
    count, centred = _centre(values, segments, num_segments)
    variance = jax.ops.segment_sum(centred**2, segments, num_segments)[segments] / jnp.maximum(count - 1, 1)
    return centred / (jnp.sqrt(variance) + eps)


def _updated(
    moments: TaskMoments, rewards: jax.Array, tasks: jax.Array, config: AdvantageConfig
) -> TaskMoments:
    """The moments after a batch; `tasks` is num_tasks for what does not count."""
    num_tasks = moments.m1.shape[0]
    count = jax.ops.segment_sum(jnp.ones_like(rewards), tasks, num_tasks + 1)[:num_tasks]
    batch = _batch_moments_released if config.variant == "released" else _batch_moments
    new: list[Pair] = []
    for old, value in zip(_pairs(moments), batch(rewards, tasks, num_tasks), strict=True):
        moved = _add(_scale(old, config.decay), _scale(value, 1.0 - config.decay))
        first = [jnp.where(moments.initialised, a, b) for a, b in zip(moved, value, strict=True)]
        high, low = (jnp.where(count > 0, a, b) for a, b in zip(first, old, strict=True))
        new.append((high, low))
    (m1, m1_low), (m2, m2_low) = new
    return TaskMoments(m1, m2, moments.initialised | (count > 0), m1_low, m2_low)


def _batch_moments(rewards: jax.Array, tasks: jax.Array, num_tasks: int) -> tuple[Pair, Pair]:
    """mean(R) and mean(R^2) of each task, to nearly twice float32's digits.

    With a shift s near the rewards, mean(R) = s + mean(R - s) and mean(R^2) = mean(R)^2 + variance: the
    variance is summed from small numbers, where float32 keeps its digits.
    """
    count, centred = _centre(rewards, tasks, num_tasks + 1)
    shift = jax.ops.segment_max(rewards, tasks, num_tasks + 1)[:num_tasks]
    shift = jnp.where(jnp.isfinite(shift), shift, 0.0)
    sums = jax.ops.segment_sum(rewards - jnp.append(shift, 0.0)[tasks], tasks, num_tasks + 1)[:num_tasks]
    squares = jax.ops.segment_sum(centred**2, tasks, num_tasks + 1)[:num_tasks]
    count = jnp.maximum(jax.ops.segment_sum(jnp.ones_like(rewards), tasks, num_tasks + 1)[:num_tasks], 1.0)
    mean = _two_sum(shift, sums / count)
    return mean, _add(_multiply(mean, mean), (squares / count, jnp.zeros_like(shift)))


def _batch_moments_released(rewards: jax.Array, tasks: jax.Array, num_tasks: int) -> tuple[Pair, Pair]:
    """mean(R) and mean(R^2) of each task as float32 sums in PyTorch's order."""
    count, m1 = _torch_mean(rewards, tasks, num_tasks)
    _, m2 = _torch_mean(rewards * rewards, tasks, num_tasks)
    zeros = jnp.zeros_like(count)
    return (m1, zeros), (m2, zeros)


def _torch_mean(values: jax.Array, tasks: jax.Array, num_tasks: int) -> tuple[jax.Array, jax.Array]:
    """Counts and float32 means of each task's values, bit for bit as `torch.mean` on an x86-64 CPU.

    The n values of a task, in the order of the batch, fall into rows of 4 vectors of 8 lanes. Rows are added
    lane by lane, 16 at a time; then come the vectors that fill no row, then the 4 vectors are added up, then
    the values that fill no vector and the 8 lanes. (Past 8,192 values of a task the last bit may differ.)
    """
    n = values.shape[0]
    member = tasks[:, None] == jnp.arange(num_tasks)  # [N, tasks]
    count = member.sum(0)
    rank = (jnp.cumsum(member, 0) - 1)[jnp.arange(n), jnp.minimum(tasks, num_tasks - 1)]
    vectors = (count // 8)[jnp.minimum(tasks, num_tasks - 1)]
    rows = vectors // 4

    blocks = n // 512 + 1  # of 16 rows of 32
    in_rows, in_vectors = rank < rows * 32, rank < vectors * 8
    grid = _placed(values, in_rows, tasks, rank, (num_tasks, blocks * 16 * 32))
    spare = _placed(values, in_vectors & ~in_rows, tasks, rank - rows * 32, (num_tasks, 24)).reshape(-1, 3, 8)
    tail = _placed(values, ~in_vectors, tasks, rank - vectors * 8, (num_tasks, 7))

    sums = _in_order(grid.reshape(num_tasks, blocks, 16, 32), 2)  # [tasks, blocks, 32]
    whole = jnp.arange(blocks) < (count // 512)[:, None]
    cascade = _in_order(jnp.where(whole[..., None], sums, 0.0), 1)
    lanes = (_in_order(jnp.where(whole[..., None], 0.0, sums), 1) + cascade).reshape(num_tasks, 4, 8)
    first = _in_order(jnp.concatenate([lanes[:, :1], spare], 1), 1)
    vector = _in_order(jnp.concatenate([first[:, None], lanes[:, 1:]], 1), 1)
    total = _in_order(jnp.concatenate([tail, vector], 1), 1)
    return count.astype(jnp.float32), total / jnp.maximum(count, 1).astype(jnp.float32)


def _placed(
    values: jax.Array, where: jax.Array, rows: jax.Array, columns: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Zeros of `shape` with values[i] at (rows[i], columns[i]) for every i in `where`."""
    columns = jnp.where(where, columns, shape[1])
    return jnp.zeros(shape, values.dtype).at[rows, columns].set(values, mode="drop")


def _in_order(values: jax.Array, axis: int) -> jax.Array:
    """Sum along an axis, first to last: a reduction would be free to pair the terms otherwise."""
    values = jnp.moveaxis(values, axis, 0)
    return jax.lax.fori_loop(1, values.shape[0], lambda i, total: total + values[i], values[0])


def _centre(values: jax.Array, segments: jax.Array, num_segments: int) -> tuple[jax.Array, jax.Array]:
    """Each value's segment size and its distance from the segment's mean: exactly 0 where all are equal."""
    count = jax.ops.segment_sum(jnp.ones_like(values), segments, num_segments)[segments]
    shifted = values - jax.ops.segment_max(values, segments, num_segments)[segments]
    return count, shifted - jax.ops.segment_sum(shifted, segments, num_segments)[segments] / count


# Arithmetic on pairs (Dekker 1971, Knuth 1997). Every product below is of two 12-bit factors, hence exact: a
# compiler that contracts a product and a sum into one instruction changes nothing.


def _pairs(moments: TaskMoments) -> tuple[Pair, Pair]:
    zeros = jnp.zeros_like(moments.m1)
    m1_low = zeros if moments.m1_low is None else moments.m1_low
    m2_low = zeros if moments.m2_low is None else moments.m2_low
    return (moments.m1, m1_low), (moments.m2, m2_low)


def _two_sum(a: jax.Array, b: jax.Array) -> Pair:
    """The sum a + b exactly, as a pair."""
    high = a + b
    b_part = high - a
    return high, (a - (high - b_part)) + (b - b_part)


def _add(a: Pair, b: Pair) -> Pair:
    high, low = _two_sum(a[0], b[0])
    return _two_sum(high, low + (a[1] + b[1]))


def _halves(a: jax.Array) -> Pair:
    """The upper 12 bits of float32's significand, and the rest."""
    bits = jax.lax.bitcast_convert_type(a, jnp.uint32) & jnp.uint32(0xFFFFF000)
    upper = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return upper, a - upper


def _multiply(a: Pair, b: Pair) -> Pair:
    (a1, a2), (b1, b2) = _halves(a[0]), _halves(b[0])
    product = _add(_two_sum(a1 * b1, a1 * b2), _two_sum(a2 * b1, a2 * b2))
    return _two_sum(product[0], product[1] + (a[0] * b[1] + a[1] * b[0]))


def _scale(a: Pair, factor: float) -> Pair:
    """A pair times a Python number, which has more digits than float32."""
    high = np.float32(factor)
    return _multiply(a, (jnp.full_like(a[0], high), jnp.full_like(a[0], factor - float(high))))
