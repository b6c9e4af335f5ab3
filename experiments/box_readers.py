"""How well boxes can be read from a model's vision tower: about as well as a decoder behind it can answer.

    python -m experiments.box_readers MODEL [--medium video]

The tower is not trained. Two readers are, on visual tokens of pictures drawn by lot (`visual_labels.py`): each says of
the object under a token, in each of its two frames, to which fiftieth of the frame the left, top, right and bottom side
of its box is nearest. One is a layer upon the merged token; the other has two, and reads the token's DeepStack features
too. On pictures that they were not trained on, the overlap (IoU) of their boxes with the true ones says what the tower
knows, and whether it says so plainly.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from experiments.vision_pretraining import scaled
from experiments.visual_labels import GROUPS, NOT_TOLD, Pictures, draw_batch, labels_of
from experiments.words import name_of_model, say
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.rewards.metrics import box_iou
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.preflight.prepare import make_processor

PROG = "python -m experiments.box_readers"
SIDES, CLASSES = GROUPS["fiftieth"].count, GROUPS["fiftieth"].classes
FRAMES = 2  # of a visual token
LEARNING_RATE, HIDDEN = 3e-3, 512
TEST_SEED = 1  # of the pictures that no reader was trained on; readers are trained on those of seed 0

Params = dict[str, jax.Array]


@dataclass(frozen=True)
class Arguments:
    """The overlap of the boxes that two readers find in a model's visual tokens, one JSON line each."""

    model: tyro.conf.Positional[Path]
    """Hugging Face directory of a model of the Shapes world."""
    medium: Literal["image", "video"] = "video"
    """Of the pictures."""
    steps: int = 600
    """Updates of the readers."""
    rows: int = 32
    """Images, or rows of video frames, of an update."""
    test_batches: int = 30
    """Batches of as many rows, on which the boxes are compared."""


def first_params(features: int, width: int) -> Params:
    """Both readers before they are trained, of the `features` of a token, `width` numbers each."""
    first, second = jax.random.split(jax.random.key(0))
    outputs = FRAMES * SIDES * CLASSES
    return {
        "linear": jnp.zeros((width, outputs)),
        "inner": jax.random.normal(first, (features * width, HIDDEN)) / np.sqrt(features * width),
        "bias": jnp.zeros(HIDDEN),
        "outer": jax.random.normal(second, (HIDDEN, outputs)) / np.sqrt(HIDDEN),
    }


def read_sides(params: Params, features: jax.Array) -> dict[str, jax.Array]:
    """Logits [R, M, FRAMES, SIDES, CLASSES] by reader, of features [R, M, 1 + DeepStack, D]."""
    features = scaled(features)
    flat = features.reshape(*features.shape[:2], -1)
    logits = {
        "one layer": features[:, :, 0] @ params["linear"],
        "two layers": jax.nn.gelu(flat @ params["inner"] + params["bias"]) @ params["outer"],
    }
    shape = *features.shape[:2], FRAMES, SIDES, CLASSES
    return {name: one.reshape(shape) for name, one in logits.items()}


def reader_loss(params: Params, features: jax.Array, sides: jax.Array) -> jax.Array:
    """The sum over readers of their mean cross entropy; `sides` int [R, M, FRAMES, SIDES], NOT_TOLD where none is."""
    told = sides != NOT_TOLD
    entropies = (
        optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(told, sides, 0))
        for logits in read_sides(params, features).values()
    )
    return sum((jnp.sum(one * told) for one in entropies), jnp.zeros(())) / jnp.maximum(jnp.sum(told), 1)


def overlaps(found: np.ndarray, sides: np.ndarray) -> list[float]:
    """The IoU of each object's box in each row and frame: of its tokens' boxes the median, side by side.

    `found` are sides, float [R, M, FRAMES, SIDES], and `sides` the true ones, int, NOT_TOLD where a token has none.
    Tokens of a row and frame that say the same box are of one object.
    """
    values: list[float] = []
    for row, frame in np.ndindex(sides.shape[0], FRAMES):
        true, said = sides[row, :, frame], found[row, :, frame]
        boxes = np.unique(true[(true != NOT_TOLD).all(-1)], axis=0)
        read = (np.median(said[(true == box).all(-1)], axis=0) for box in boxes)
        values.extend(box_iou(a.tolist(), b.tolist()) for a, b in zip(read, boxes, strict=True))
    return values


def measure(arguments: Arguments, drawn: Callable[[int, int], Pictures]) -> dict[str, float]:
    """The mean IoU of objects' boxes by reader; `drawn` gives the pictures of a seed's step."""
    graphdef, tower = nnx.split(load_hf(arguments.model, dtype=jnp.float32).visual)

    def features_of(pictures: Pictures) -> jax.Array:
        merged, taps = nnx.merge(graphdef, tower)(pictures.vision)
        return jnp.stack([merged, *taps], axis=2)

    _, _, count, width = jax.eval_shape(features_of, drawn(0, 0)).shape
    params = first_params(count, width)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, arguments.steps))
    state = optimizer.init(params)

    @jax.jit
    def update(params: Params, state: Any, pictures: Pictures) -> tuple[Any, Any]:
        sides = jnp.asarray(labels_of(pictures, "fiftieth"))
        gradients = jax.grad(reader_loss)(params, features_of(pictures), sides)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state

    @jax.jit
    def likeliest(params: Params, pictures: Pictures) -> dict[str, jax.Array]:
        return {name: one.argmax(-1) for name, one in read_sides(params, features_of(pictures)).items()}

    for step in range(arguments.steps):
        params, state = update(params, state, drawn(0, step))
    found: dict[str, list[float]] = {}
    for step in range(arguments.test_batches):
        pictures = drawn(TEST_SEED, step)
        for name, sides in likeliest(params, pictures).items():
            found.setdefault(name, []).extend(
                overlaps(np.asarray(sides, float), labels_of(pictures, "fiftieth"))
            )
    return {name: float(np.mean(values)) for name, values in found.items()}


def run(arguments: Arguments) -> None:
    """Reads the model's processor, trains the readers, prints what they reach."""
    processor = make_processor(shapes(), arguments.model)
    bounds = {"image": processor.image_bounds, "video": processor.video_bounds}

    def drawn(seed: int, step: int) -> Pictures:
        kinds = ((arguments.medium, "shapes"),)
        return draw_batch(seed, step, arguments.rows, bounds, processor.grid_side, kinds=kinds)

    for reader, overlap in measure(arguments, drawn).items():
        row = {"model": name_of_model(arguments.model), "medium": arguments.medium, "reader": reader}
        say(json.dumps({**row, "overlap": round(overlap, 3)}))


if __name__ == "__main__":
    sys.exit(command_line.main(Arguments, run, sys.argv[1:], prog=PROG))
