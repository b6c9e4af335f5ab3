"""Whether a run's checkpoints and its model fit on the disk, from shapes alone: said before anything is trained."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.parameters import split_adapters
from onethinker_jax.train.config.checkpoints import KeepSettings
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.health.disk import ROLLOUTS, check_space
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import abstract_model
from onethinker_jax.train.state import optimizer_shapes

SCORE_BYTES = 120  # of a sample, in the JSON beside it


def check_disk_space(config: TrainConfig) -> None:
    """Raises DiskError naming what is free and what is needed; the run's base must be there."""
    shapes = nnx.state(abstract_model(Qwen3VLConfig.from_directory(config.folder.base), config.model))
    sizes = checkpoint_bytes(config, shapes)
    largest, count, standing = max(sizes.values(), default=0), 0, 0
    if config.checkpoints.directory is None:  # else they are elsewhere, perhaps in a bucket
        count, standing = most_at_a_time(saves_of(config), config.checkpoints.keep, sizes)
    check_space(
        config.folder,
        checkpoints=standing,
        count=count,
        largest=largest if count else 0,
        beside={
            "the model": tree_bytes(shapes),
            "the state of an update kept for a replay": largest
            * (config.health.max_consecutive_nonfinite > 0),
            ROLLOUTS: saved_rollout_bytes(config),
        },
    )


@dataclass(frozen=True)
class Save:
    """A checkpoint of a run that nothing disturbs."""

    number: int
    stage: str
    scored: bool = False  # on the held-out records


def saves_of(config: TrainConfig) -> list[Save]:
    """The checkpoints of a run in order."""
    sft, rl, every = config.sft, config.rl, config.evaluation.every
    saves = [
        Save(step, "sft")
        for step in range(1, sft.steps + 1)
        if step % sft.save_every == 0 or step == sft.steps
    ]
    for step in range(1, rl.steps + 1):
        scored = every > 0 and step % every == 0
        if scored or step % rl.save_every == 0 or step == rl.steps:
            saves.append(Save(sft.steps + step, "rl", scored))
    return saves


def most_at_a_time(saves: Sequence[Save], keep: KeepSettings, sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many checkpoints stand at a time, the one that is being written among them, and their bytes, at the most.

    `sizes` are in bytes by stage. Of those that are kept for their score the worst is taken: none is kept for another
    reason.
    """
    newest: deque[Save] = deque()
    count = held = best = 0  # kept as the newest or by number; kept by score beside these, at the most
    most = (0, 0)
    for save in saves:
        beside = min(best, keep.best)
        most = max(
            most,
            (count + beside + 1, held + beside * sizes.get("rl", 0) + sizes[save.stage]),
            key=lambda found: found[1],
        )
        newest.append(save)
        count, held = count + 1, held + sizes[save.stage]
        if keep.last is not None and len(newest) > keep.last:
            old = newest.popleft()
            if keep.every is not None and old.number % keep.every == 0:
                continue
            count, held, best = count - 1, held - sizes[old.stage], best + old.scored
    return most


def saved_rollout_bytes(config: TrainConfig) -> int:
    """Of the samples on disk at a time, those of two checkpoints' steps and one more, each as long as it may get.

    Of a step that draws its prompts in several rounds one is counted: few samples are so long.
    """
    rl = config.rl
    if not rl.steps or not rl.save_rollouts:
        return 0
    sample = 8 * rl.rollout.max_new_tokens + SCORE_BYTES
    return min(2 * rl.save_every + 1, rl.steps) * rl.prompts_per_step * rl.rollout.group_size * sample


def checkpoint_bytes(config: TrainConfig, shapes: nnx.State) -> dict[str, int]:
    """Bytes of a checkpoint of each stage that has steps; `shapes` are those of the whole model."""
    trained, _ = split_adapters(shapes)

    def state(settings: OptimizerSettings, *, train_vision: bool) -> int:
        optimizer = make_optimizer(settings, 1, train_vision=train_vision)
        return tree_bytes(trained) + tree_bytes(optimizer_shapes(optimizer, trained))

    found = {}
    if config.sft.steps:
        found["sft"] = state(config.sft.optimizer, train_vision=config.sft.train_vision)
    if config.rl.steps:
        rl, copies = config.rl, tree_bytes(trained)
        found["rl"] = state(rl.optimizer, train_vision=True)
        found["rl"] += copies * ((rl.loss.kl_coefficient > 0) + rl.overlap)
    return found


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, each counted once, however it is sharded."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
