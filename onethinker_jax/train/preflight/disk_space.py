"""Whether a run's checkpoints and its model fit on the disk, from shapes alone: said before anything is trained."""

import math
from typing import Any

import jax
from flax import nnx

from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.parameters import split_adapters
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.health.disk import check_space
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import abstract_model
from onethinker_jax.train.state import optimizer_shapes


def check_disk_space(config: TrainConfig) -> None:
    """Raises DiskError naming what is free and what is needed; the run's base must be there."""
    shapes = nnx.state(abstract_model(Qwen3VLConfig.from_directory(config.folder.base), config.model))
    checkpoint = max(checkpoint_bytes(config, shapes).values(), default=0)
    settings = config.checkpoints
    keep = (
        1 if settings.keep.last is None else settings.keep.last
    )  # of all that are kept one must fit, at least
    if settings.directory is not None:
        checkpoint = 0  # they are elsewhere, perhaps in a bucket
    check_space(config.folder, checkpoint=checkpoint, model=tree_bytes(shapes), keep=keep)


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
