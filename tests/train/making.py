"""A very small policy, batches for it, and the paths of its parameters, for the tests of training."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.batches.packing import Batch
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, shard_rows, tree_shardings
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.sft import sft_update
from onethinker_jax.train.state import init_state
from tests.model import tiny

CONFIG = tiny.variant(
    text={"num_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "num_kv_heads": 1},
    vision={"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 1, "out_hidden_size": 32}
    | {"deepstack_layers": (0,)},
)


def config_for(processor: Processor) -> Qwen3VLConfig:
    """`CONFIG` with a processor's vocabulary and ids."""
    return replace(
        CONFIG,
        text=replace(CONFIG.text, vocab_size=len(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=processor.vision_start_token_id,
        vision_end_token_id=processor.vision_end_token_id,
    )


# Every size a multiple of two, so that all three axes of a mesh can have two devices.
CONFIG_FOR_TWO = tiny.variant(text={"num_layers": 2}, vision={"depth": 2, "deepstack_layers": (0,)})


def policy(seed: int = 0) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph and fresh parameters, on a mesh of one device."""
    mesh = make_mesh()
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(CONFIG, rngs=nnx.Rngs(0))))
    fresh = jax.jit(
        lambda: nnx.state(Qwen3VL(CONFIG, rngs=nnx.Rngs(seed))), out_shardings=tree_shardings(shapes, mesh)
    )
    return graphdef, fresh()


def batch(kinds: list[list[str]], *, tokens: int = 64, patches: int = 96) -> Batch:
    """Rows of examples of the kinds that `tiny` names; every token after a third of each is a target."""
    samples = [
        [tiny.example(kind, 10 * row + number) for number, kind in enumerate(row_kinds)]
        for row, row_kinds in enumerate(kinds)
    ]
    inputs = tiny.rows(
        samples, batch=len(kinds), tokens=tokens, patches=patches, side=CONFIG.vision.grid_side
    )
    segments = np.asarray(inputs.segment_ids)
    follows = np.zeros(segments.shape, bool)
    follows[:, :-1] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, :-1] > 0)
    targets = np.where(follows, np.roll(inputs.tokens, -1, axis=1), 0).astype(np.int32)
    text = targets < tiny.IMAGE
    return Batch(inputs, targets, follows & text & (np.arange(tokens) % 3 > 0))


def rows_of(whole: Batch, rows: slice) -> Batch:
    """Some rows of a batch."""
    return jax.tree.map(lambda array: array[rows], whole)


def named(tree: Any) -> dict[str, np.ndarray]:
    """{dotted path: array} of a tree of parameters."""
    return {name: np.asarray(leaf) for name, leaf in leaves_of(tree).items()}


def leaves_of(tree: Any) -> dict[str, jax.Array]:
    """{dotted path: leaf}, left where it lies."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path): leaf
        for path, leaf in leaves
    }


ROWS = [["text"], ["one image", "text"], ["text", "text"], ["video"]]


def sharded_update(mesh: Mesh, mine: slice = slice(None)) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss, summed gradients and stepped parameters of one SFT update of `ROWS`, by name, laid over `mesh`.

    `mine` are this process's rows.
    """
    settings = replace(shapes().sft, steps=4, optimizer=OptimizerSettings(learning_rate=1e-3, warmup=0.0))
    graphdef, sizes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(CONFIG_FOR_TWO, rngs=nnx.Rngs(0))))
    optimizer = make_optimizer(settings.optimizer, 4, train_vision=True)
    with jax.set_mesh(mesh):
        fresh = jax.jit(
            lambda: nnx.state(Qwen3VL(CONFIG_FOR_TWO, rngs=nnx.Rngs(0))),
            out_shardings=tree_shardings(sizes, mesh),
        )
        params = fresh()
        state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
        update = sft_update(Policy(graphdef, mesh), optimizer, settings)
        gradients = update.zeros(params)
        gradients, sums = update.accumulate(
            params, None, gradients, shard_rows(rows_of(batch(ROWS), mine), mesh)
        )
        state, _ = update.apply(state, gradients, sums["tokens"], sums["loss"])
    arrays = {f"gradients.{name}": leaf for name, leaf in leaves_of(gradients).items()}
    arrays |= {f"params.{name}": leaf for name, leaf in leaves_of(state.params).items()}
    return sums["loss"], arrays
