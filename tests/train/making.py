"""A very small policy, batches for it, and the paths of its parameters, for the tests of training."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.packing import Batch
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, tree_shardings
from tests.model import tiny

CONFIG = tiny.variant(
    text={"num_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "num_kv_heads": 1},
    vision={"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 1, "out_hidden_size": 32}
    | {"deepstack_layers": (0,)},
)


def policy(seed: int = 0) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph and fresh parameters, on a mesh of one device."""
    mesh = make_mesh()
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(CONFIG, rngs=nnx.Rngs(0))))
    fresh = jax.jit(
        lambda: nnx.state(Qwen3VL(CONFIG, rngs=nnx.Rngs(seed))), out_shardings=tree_shardings(shapes, mesh)
    )
    return graphdef, fresh()


def batch(kinds: list[list[str]], *, tokens: int = 64, patches: int = 96) -> Batch:
    """Rows of examples of the kinds that ``tiny`` names; every token after a third of each is a target."""
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
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path): np.asarray(leaf)
        for path, leaf in leaves
    }
