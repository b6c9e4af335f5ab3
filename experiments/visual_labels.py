"""Pictures of the Shapes world drawn by lot, and what each of their visual tokens shows, as numbers of classes.

A visual token covers 32 x 32 pixels of two frames: of an image twice the same one, of a video two that are half a
second apart. Each frame is told by itself, so a token also says what comes, goes and moves within it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import ImageFont

from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.processor.patches import QWEN3_VL, cut_video
from onethinker_jax.data_pipeline.shapes.random_scenes import SIZES, image_scene, video_scene
from onethinker_jax.data_pipeline.shapes.rendering import render
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, Print, Scene, Shape
from onethinker_jax.data_pipeline.shapes.stamps import text_stamp
from onethinker_jax.data_pipeline.worlds.masks import mask_box
from onethinker_jax.data_pipeline.worlds.stage import PLACES, place
from onethinker_jax.model.inputs import VisionInputs, patch_geometry

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
WAYS = ("still", "left", "right", "up", "down")
"""Where an object moves between the two frames."""
CLASSES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES, "place": PLACES, "way": WAYS}
"""What a visual token says of the object under it; one more class is the background."""


@dataclass(frozen=True)
class Group:
    """`count` labels of `classes` classes each; the last of them is "nothing" where `has_nothing`.

    Where classes are `ordered`, those beside the true one are nearly right.
    """

    count: int
    classes: int
    has_nothing: bool
    ordered: bool = False


GROUPS = {
    **{name: Group(1, len(words) + 1, has_nothing=True) for name, words in CLASSES.items()},
    "hundreds": Group(4, 11, has_nothing=False),
    "fiftieth": Group(4, 51, has_nothing=False, ordered=True),
    "character": Group(4, len(CHARACTERS) + 1, has_nothing=True),
}
"""The labels of a token in one frame: the object's words; of the four sides of its box in thousandths of the frame the
hundreds, as answers write them, and the nearest fiftieth; and the characters in reading order."""
LABELS = sum(group.count for group in GROUPS.values())
OUTPUTS = sum(group.count * group.classes for group in GROUPS.values())
"""Labels, and logits of their classes, of a token in one frame."""
NOT_TOLD = -1
"""A label that counts for nothing: the sides where there is no object."""
FEWEST_PIXELS = 64
"""Of the 1,024 of a visual token, below which it counts as background."""
PATCHES = 64  # of a row: an image, or as many pairs of frames as fit
Kind = tuple[str, str]
"""A medium, and what a scene of it shows."""
KINDS: tuple[Kind, ...] = (
    *(("video", "shapes"), ("image", "words"), ("image", "shapes"), ("video", "sum"), ("video", "shapes")),
    *(("image", "sum"), ("image", "shapes"), ("video", "words"), ("video", "shapes"), ("image", "words")),
    *(("video", "shapes"), ("image", "sum"), ("image", "shapes"), ("video", "shapes"), ("video", "words")),
)
"""The kinds of pictures, in turn."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pictures:
    """A batch of R rows of P patches, P / 4 visual tokens."""

    vision: VisionInputs
    labels: np.ndarray  # int32 [R, P / 4, 2, LABELS], NOT_TOLD in padding


def labels_of(pictures: Pictures, group: str) -> np.ndarray:
    """What the visual tokens say of a group: int32 [R, P / 4, 2, count]."""
    names = list(GROUPS)
    first = sum(GROUPS[name].count for name in names[: names.index(group)])
    return pictures.labels[..., first : first + GROUPS[group].count]


def draw_pair(
    rng: random.Random, number: int, palette: Sequence[str] = CLASSES["colour"], kinds: Sequence[Kind] = KINDS
) -> tuple[Scene, tuple[float, float]]:
    """The scene of a picture, kinds in turn, its objects in colours of the palette, and the times of its two frames."""
    medium, kind = kinds[number % len(kinds)]
    scene = image_scene(rng, kind) if medium == "image" else video_scene(rng, kind)
    shapes = tuple(
        shape if shape.colour in palette else replace(shape, colour=rng.choice(palette))
        for shape in scene.shapes
    )
    apart, times = scene.fps // 2, scene.times
    first = rng.randrange(len(times) - apart)
    return replace(scene, shapes=shapes), (times[first], times[first + apart])


def token_labels(scene: Scene, moments: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """What the M tokens of two frames say that reach the model in `size`, (height, width): int32 [M, 2, LABELS]."""
    ways = [_way(shape, moments) for shape in scene.shapes]
    return np.stack([_frame_labels(scene, moment, ways, size) for moment in moments], axis=1)


def _way(shape: Shape, moments: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = (shape.centre(moment) for moment in moments)
    return replace(shape, origin=(x0, y0), target=(x1, y1)).direction or "still"


def _frame_labels(scene: Scene, moment: float, ways: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    factor = QWEN3_VL.factor
    seen = scene.labels(moment)
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int)
        for n, m in zip(size, seen.shape, strict=True)
    )
    grid = size[0] // factor, size[1] // factor
    blocks = seen[rows][:, columns].reshape(grid[0], factor, grid[1], factor).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(grid[0] * grid[1], -1)
    labels = np.tile(_nothing(), (len(blocks), 1))
    objects = [_object_labels(scene, index, moment, ways[index], seen) for index in range(len(scene.shapes))]
    areas = np.stack(
        [(blocks == index + 1).sum(1) for index in range(len(objects))] or [np.zeros(len(blocks))]
    )
    for token, index in enumerate(areas.argmax(0)):
        if areas[index, token] >= FEWEST_PIXELS:
            labels[token, : len(objects[index])] = objects[index]
    slots = GROUPS["character"].count
    written: list[list[tuple[float, float, str]]] = [[] for _ in blocks]
    for printed in scene.prints:
        if printed.life[0] <= moment <= printed.life[1]:
            for character, x, y in _middles(printed):
                row, column = int(y * grid[0] / scene.height), int(x * grid[1] / scene.width)
                written[row * grid[1] + column].append((y, x, character))
    for token, characters in enumerate(written):
        for slot, (_, _, character) in enumerate(sorted(characters)[:slots]):
            labels[token, LABELS - slots + slot] = CHARACTERS.index(character)
    return labels


def _nothing() -> np.ndarray:
    """The labels of a token without an object and without characters."""
    return np.concatenate(
        [
            np.full(group.count, group.classes - 1 if group.has_nothing else NOT_TOLD, np.int32)
            for group in GROUPS.values()
        ]
    )


def _object_labels(scene: Scene, index: int, moment: float, way: str, seen: np.ndarray) -> list[int]:
    """The labels of the tokens of an object, all but their characters; none where it is not seen."""
    if not (mask := seen == index + 1).any():
        return []
    shape = scene.shapes[index]
    said = shape.colour, shape.shape, shape.size, place(scene, shape, moment), way
    sides = mask_box(mask)
    return [
        *(words.index(word) for words, word in zip(CLASSES.values(), said, strict=True)),
        *(side // 100 for side in sides),
        *(round(side / 20) for side in sides),
    ]


def _middles(printed: Print) -> Iterator[tuple[str, float, float]]:
    """Each character but spaces, and the pixel of its middle: by the font's advances, scaled to the ink."""
    ink, font = text_stamp(printed.text, printed.height), ImageFont.load_default(size=printed.height)
    scale = ink.shape[1] / font.getlength(printed.text)
    for index, character in enumerate(printed.text):
        if character != " ":
            middle = (font.getlength(printed.text[:index]) + font.getlength(printed.text[: index + 1])) / 2
            yield character, printed.corner[0] + middle * scale, printed.corner[1] + ink.shape[0] / 2


def draw_batch(
    seed: int,
    step: int,
    rows: int,
    bounds: dict[str, PixelBounds],
    grid_side: int,
    palette: Sequence[str] = CLASSES["colour"],
    kinds: Sequence[Kind] = KINDS,
) -> Pictures:
    """The pictures of an update: a function of the arguments alone."""
    rng = random.Random(f"{seed}/{step}")

    def drawn(number: int) -> tuple[Scene, tuple[float, float]]:
        return draw_pair(rng, number, palette, kinds)

    made = [_draw_row(partial(drawn, step * rows + row), bounds, grid_side) for row in range(rows)]
    arrays = [np.stack(column) for column in zip(*made, strict=True)]
    return Pictures(VisionInputs(*arrays[:-1]), arrays[-1])


def _draw_row(
    drawn: Callable[[], tuple[Scene, tuple[float, float]]], bounds: dict[str, PixelBounds], grid_side: int
) -> tuple[np.ndarray, ...]:
    """Patches, their geometry, and labels of one row: an image, or as many pairs of video frames as fit."""
    media, labels, used = [], [], 0
    while True:
        scene, moments = drawn()
        shown = {moment: bounds[scene.data_type].fit(render(scene, moment)) for moment in set(moments)}
        frames = np.stack([shown[moment] for moment in moments])
        medium = cut_video(Video(frames, np.array(moments), scene.duration, scene.fps, Path()), QWEN3_VL)
        if used + len(medium.patches) > PATCHES:
            break
        used += len(medium.patches)
        media.append(medium)
        labels.append(token_labels(scene, moments, frames.shape[1:3]))
        if scene.data_type == "image":
            break
    geometry = patch_geometry(np.array([medium.grid for medium in media]), QWEN3_VL.merge_size, grid_side)
    arrays = np.concatenate([medium.patches for medium in media]), *geometry
    return (
        *(_padded(array, PATCHES) for array in arrays),
        _padded(np.concatenate(labels), PATCHES // 4, NOT_TOLD),
    )


def _padded(array: np.ndarray, length: int, value: int = 0) -> np.ndarray:
    missing = [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, missing, constant_values=value)
