"""A fresh vision tower learns to see the Shapes world, visual token by visual token; the decoder stays as it is made.

    python -m experiments.vision_pretraining OUT [--steps 4000] [--tower MODEL] [-- shapes_base --data.…]

What a released Qwen3-VL has from its encoder's pretraining, a model that starts from nothing must get somewhere: from
captions alone it learns colours and places soon, and shapes hardly at all (docs/results.md). Here every visual token,
and every DeepStack feature of it, says what most of its 32 x 32 pixels belong to (colour, shape, size, place and box of
the object, or background) and which characters have their middle in it. With `--digits` the sides of the box are also
said as answers write them, by their hundreds and tens of a thousandth of the frame: a decoder can then copy what it
would have to work out of a number. Linear heads read that; they are thrown away.

The run's data, tokenizer and fresh model are those of the preset `shapes_base`, made in OUT; `OUT/model` is what
`python -m onethinker_jax.train shapes_base --model.init-from OUT/model …` goes on from.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from PIL import ImageFont

from experiments.words import Command, say, split_words
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.processor.patches import QWEN3_VL, cut_image
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.shapes.random_scenes import SIZES, image_scene, video_scene
from onethinker_jax.data_pipeline.shapes.rendering import render
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, Print, Scene
from onethinker_jax.data_pipeline.shapes.stamps import text_stamp
from onethinker_jax.data_pipeline.worlds.masks import mask_box
from onethinker_jax.data_pipeline.worlds.stage import PLACES, place
from onethinker_jax.errors import UserError
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.model.inputs import VisionInputs, patch_geometry
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.train.__main__ import parse as parse_trainer
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.export.directory import export_model
from onethinker_jax.train.hosts import join_hosts
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.run import begin, first_policy, open_log, prepare

PROG = "python -m experiments.vision_pretraining"
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
CLASSES = {"colour": tuple(COLOURS), "shape": tuple(SHAPES), "size": SIZES, "place": PLACES}
"""What a visual token says of the object under it; one more class is the background."""
DIGITS = {"hundreds": 11, "tens": 10}
"""Of a box's side in thousandths of the frame: 1000 has ten hundreds."""
OUTPUTS = sum(len(words) + 1 for words in CLASSES.values()) + 4 * sum(DIGITS.values()) + len(CHARACTERS) + 4
"""The classes, the digits of the box's four sides, the characters, and the box itself."""
BOX_WEIGHT = 10.0
"""Of the mean error of a box's sides, as a share of the frame, beside the cross entropies."""
FEWEST_PIXELS = 64
"""Of the 1,024 of a visual token, below which it counts as background."""
PATCHES = 64  # of a row: an image, or as many frames as fit
KINDS = (
    *(("image", "shapes"), ("image", "shapes"), ("video", "shapes"), ("image", "shapes"), ("image", "words")),
    *(("image", "shapes"), ("video", "shapes"), ("video", "words"), ("image", "shapes"), ("image", "sum")),
)


@dataclass(frozen=True)
class Arguments:
    """Trains a fresh vision tower on pictures drawn by lot; after `--` the trainer's words, by default shapes_base."""

    out: tyro.conf.Positional[Path]
    """Folder of the run; its `model` is a Hugging Face directory."""
    steps: int = 4000
    """Updates."""
    rows: int = 32
    """Images, or rows of video frames, of an update."""
    colours: int = len(COLOURS)
    """How many colours objects have. With one, shapes are learnt from far fewer pictures (docs/results.md)."""
    digits: bool = False
    """The sides of boxes also by their digits."""
    tower: Path | None = None
    """A Hugging Face directory whose tower is trained on, in place of a fresh one. With `--steps 0` it is taken as it
    is, behind it a fresh decoder and a tokenizer of another world."""
    seed: int = 0
    """Of the pictures."""
    log_every: int = 200
    """Updates between lines, which say what share of fresh tokens with an object is named right."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pictures:
    """A batch of R rows of P patches, P / 4 visual tokens."""

    vision: VisionInputs
    objects: np.ndarray  # int32 [R, P / 4, 4], numbers in CLASSES; one more where there is none
    boxes: np.ndarray  # float32 [R, P / 4, 4], left, top, right, bottom of the object as shares of the frame
    characters: (
        np.ndarray
    )  # float32 [R, P / 4, len(CHARACTERS)], 1 where a character has its middle in the token
    known: np.ndarray  # bool [R, P / 4], False in padding


def parse(words: Sequence[str]) -> Command[Arguments]:
    """The command that the words ask for; raises UsageError or SettingError naming what is wrong with it."""
    own, trainer = split_words(words)
    arguments = command_line.parse(Arguments, own, prog=PROG, description=Arguments.__doc__)
    base = parse_trainer(trainer or ["shapes_base"])
    out = arguments.out.resolve()
    return Command(arguments, replace(base, name=out.name, out=out.parent))


# ---------------------------------------------------------------- pictures and what their tokens show


def draw_frame(
    rng: random.Random, number: int, palette: Sequence[str] = CLASSES["colour"]
) -> tuple[Scene, float]:
    """The scene of a picture, kinds in turn, its objects in colours of the palette, and the time that it shows."""
    medium, kind = KINDS[number % len(KINDS)]
    scene = image_scene(rng, kind) if medium == "image" else video_scene(rng, kind)
    shapes = tuple(
        shape if shape.colour in palette else replace(shape, colour=rng.choice(palette))
        for shape in scene.shapes
    )
    return replace(scene, shapes=shapes), rng.choice(scene.times)


def token_labels(scene: Scene, moment: float, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """What the M tokens of a frame say that reaches the model in `size`, (height, width).

    `objects`, `boxes` and `characters` of `Pictures`, without its rows.
    """
    factor = QWEN3_VL.factor
    seen = scene.labels(moment)
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int)
        for n, m in zip(size, seen.shape, strict=True)
    )
    grid = size[0] // factor, size[1] // factor
    blocks = seen[rows][:, columns].reshape(grid[0], factor, grid[1], factor).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(grid[0] * grid[1], -1)
    objects = np.tile([len(words) for words in CLASSES.values()], (len(blocks), 1)).astype(np.int32)
    areas = np.stack(
        [(blocks == index + 1).sum(1) for index in range(len(scene.shapes))] or [np.zeros(len(blocks))]
    )
    boxes = np.zeros((len(blocks), 4), np.float32)
    for token, index in enumerate(areas.argmax(0)):
        if areas[index, token] >= FEWEST_PIXELS:
            shape = scene.shapes[index]
            said = shape.colour, shape.shape, shape.size, place(scene, shape, moment)
            boxes[token] = np.array(mask_box(seen == index + 1)) / 1000
            objects[token] = [words.index(word) for words, word in zip(CLASSES.values(), said, strict=True)]
    characters = np.zeros((len(blocks), len(CHARACTERS)), np.float32)
    for printed in scene.prints:
        if printed.life[0] <= moment <= printed.life[1]:
            for character, x, y in _middles(printed):
                row, column = int(y * grid[0] / scene.height), int(x * grid[1] / scene.width)
                characters[row * grid[1] + column, CHARACTERS.index(character)] = 1.0
    return objects, boxes, characters


def _middles(printed: Print) -> Iterator[tuple[str, float, float]]:
    """Each character but spaces, and the pixel of its middle: by the font's advances, scaled to the ink."""
    ink, font = text_stamp(printed.text, printed.height), ImageFont.load_default(size=printed.height)
    scale = ink.shape[1] / font.getlength(printed.text)
    for index, character in enumerate(printed.text):
        if character != " ":
            middle = (font.getlength(printed.text[:index]) + font.getlength(printed.text[: index + 1])) / 2
            yield character, printed.corner[0] + middle * scale, printed.corner[1] + ink.shape[0] / 2


def draw_batch(arguments: Arguments, step: int, bounds: dict[str, PixelBounds], grid_side: int) -> Pictures:
    """The pictures of an update: a function of the arguments and the step alone."""
    rng, rows = random.Random(f"{arguments.seed}/{step}"), arguments.rows
    palette = CLASSES["colour"][: arguments.colours]
    made = [_draw_row(rng, step * rows + row, palette, bounds, grid_side) for row in range(rows)]
    arrays = [np.stack(column) for column in zip(*made, strict=True)]
    return Pictures(VisionInputs(*arrays[:5]), *arrays[5:])


def _draw_row(
    rng: random.Random, number: int, palette: Sequence[str], bounds: dict[str, PixelBounds], grid_side: int
) -> tuple[np.ndarray, ...]:
    """Patches, their geometry, and labels of one row: pictures of one kind until it is full."""
    media, labels, used = [], [], 0
    while True:
        scene, moment = draw_frame(rng, number, palette)
        picture = bounds[scene.data_type].fit(render(scene, moment))
        medium = cut_image(picture, QWEN3_VL)
        if used + len(medium.patches) > PATCHES:
            break
        used += len(medium.patches)
        media.append(medium)
        labels.append(token_labels(scene, moment, picture.shape[:2]))
    geometry = patch_geometry(np.array([medium.grid for medium in media]), QWEN3_VL.merge_size, grid_side)
    arrays = np.concatenate([medium.patches for medium in media]), *geometry
    tokens = [np.concatenate(column) for column in zip(*labels, strict=True)]
    known = np.ones(used // 4, bool)
    return (
        *(_padded(array, PATCHES) for array in arrays),
        *(_padded(array, PATCHES // 4) for array in (*tokens, known)),
    )


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    return np.pad(array, [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)])


# ---------------------------------------------------------------- training


def token_loss(outputs: jax.Array, pictures: Pictures, *, digits: bool = True) -> tuple[jax.Array, jax.Array]:
    """The mean loss of a token, and counts of the merged tokens, float [10].

    Those with an object, how many of them have each class and digit right, the sum of the errors of their boxes;
    those with a character, and how many name one that is there. `outputs` are float [n, R, P / 4, OUTPUTS]: of the
    merged tokens, then of each DeepStack feature.
    """
    known = pictures.known.astype(jnp.float32)
    losses, right, first = jnp.zeros(outputs.shape[:3]), [], 0
    there = known * (pictures.objects[..., 0] < len(COLOURS))
    for index, words in enumerate(CLASSES.values()):
        part, truth = outputs[..., first : first + len(words) + 1], pictures.objects[..., index]
        first += len(words) + 1
        losses += optax.softmax_cross_entropy_with_integer_labels(
            part, jnp.broadcast_to(truth, part.shape[:3])
        )
        right.append(jnp.sum(there * (part[0].argmax(-1) == truth)))
    sides = jnp.round(pictures.boxes * 1000).astype(jnp.int32)
    for number, truth in zip(DIGITS.values(), (sides // 100, sides // 10 % 10), strict=True):
        part = outputs[..., first : first + 4 * number].reshape(*outputs.shape[:3], 4, number)
        first += 4 * number
        wrong = optax.softmax_cross_entropy_with_integer_labels(part, jnp.broadcast_to(truth, part.shape[:4]))
        losses += digits * wrong.mean(-1) * there
        right.append(jnp.sum(there * (part[0].argmax(-1) == truth).mean(-1)))
    written_as, boxes = outputs[..., first:-4], outputs[..., -4:]
    characters = optax.sigmoid_binary_cross_entropy(written_as, pictures.characters).sum(-1)
    errors = jnp.abs(boxes - pictures.boxes).mean(-1) * there
    written = known * pictures.characters.any(-1)
    found = written_as[0].argmax(-1)
    right.append(jnp.sum(written * jnp.take_along_axis(pictures.characters, found[..., None], -1)[..., 0]))
    loss = jnp.sum((losses + characters) * known + BOX_WEIGHT * errors) / (jnp.sum(known) * len(outputs))
    return loss, jnp.stack([jnp.sum(there), *right[:-1], jnp.sum(errors[0]), jnp.sum(written), right[-1]])


def pretrain(model: Qwen3VL, config: TrainConfig, processor: Processor, arguments: Arguments) -> nnx.State:
    """The tower's parameters after `arguments.steps` updates; a line every `log_every`."""
    graphdef, tower = nnx.split(model.visual)
    count = 1 + len(config.model.deepstack_layers)
    heads = jnp.zeros((count, config.model.hidden_size, OUTPUTS))
    params: dict[str, Any] = {"visual": tower, "heads": heads}
    optimizer = make_optimizer(config.sft.optimizer, arguments.steps, train_vision=True)
    state = optimizer.init(params)
    limits, factor = processor.limits, QWEN3_VL.factor
    bounds = {"image": limits.image_bounds(factor), "video": limits.video_bounds(factor)}

    def loss(params: dict[str, Any], pictures: Pictures) -> tuple[jax.Array, jax.Array]:
        merged, taps = nnx.merge(graphdef, params["visual"])(pictures.vision)
        features = jnp.concatenate([merged[None], taps])
        outputs = jnp.einsum("nrmd,ndo->nrmo", features, params["heads"])
        return token_loss(outputs, pictures, digits=arguments.digits)

    @jax.jit
    def update(
        params: dict[str, Any], state: Any, pictures: Pictures
    ) -> tuple[Any, Any, jax.Array, jax.Array]:
        (value, counts), gradients = jax.value_and_grad(loss, has_aux=True)(params, pictures)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, value, counts

    def drawn(step: int) -> Pictures:
        return draw_batch(arguments, step, bounds, processor.grid_side)

    began, total = time.perf_counter(), np.zeros(len(CLASSES) + len(DIGITS) + 4)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(drawn, 0)
        for step in range(1, arguments.steps + 1):
            pictures, ahead = ahead.result(), pool.submit(drawn, step)
            params, state, value, counts = update(params, state, pictures)
            total += np.asarray(counts)
            if step % arguments.log_every == 0 or step == arguments.steps:
                names = (*CLASSES, *DIGITS, "box_error")
                shares = dict(zip(names, (total[1:-2] / max(total[0], 1)).round(3).tolist(), strict=True))
                shares["character"] = round(float(total[-1] / max(total[-2], 1)), 3)
                seconds = round(time.perf_counter() - began)
                say(json.dumps({"step": step, "loss": round(float(value), 4), **shares, "seconds": seconds}))
                total[:] = 0
    return params["visual"]


def take_tower(model: Qwen3VL, source: Path) -> None:
    """The tower of `source` in place of the model's. Raises UserError where it is of another size."""
    tower = nnx.state(load_hf(source, dtype=jnp.float32).visual)
    own = nnx.state(model.visual)
    if jax.tree.map(jnp.shape, tower) != jax.tree.map(jnp.shape, own):
        raise UserError(f"{source}: its vision tower is of another size than the run's model")
    nnx.update(model.visual, tower)


def run(command: Command[Arguments]) -> None:
    """Data, tokenizer and fresh model as a run makes them; the tower is trained, the whole exported."""
    config = command.base
    hosts = join_hosts(config.hosts)
    begin(config, hosts)
    with open_log(config, hosts) as log:
        ready = prepare(config, hosts, log)
        with jax.set_mesh(ready.mesh):
            policy, params = first_policy(config, ready.mesh, log)
            model = nnx.merge(policy.graphdef, params)
            if command.arguments.tower is not None:
                take_tower(model, command.arguments.tower)
            tower = pretrain(model, config, ready.processor, command.arguments)
            nnx.update(model.visual, tower)
            export_model(model, config.folder.base, config.folder.model)
    say(f"Hugging Face directory: {config.folder.model}")


if __name__ == "__main__":
    sys.exit(command_line.main(parse, run, sys.argv[1:], prog=PROG))
