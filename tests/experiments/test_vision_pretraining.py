"""What visual tokens are taught to say: of hand-made scenes, and of every picture that is drawn."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.vision_pretraining import (
    CHARACTERS,
    CLASSES,
    DIGITS,
    KINDS,
    OUTPUTS,
    PATCHES,
    Arguments,
    Pictures,
    draw_batch,
    draw_frame,
    take_tower,
    token_labels,
    token_loss,
)
from experiments.word_accuracy import word_class
from experiments.words import name_of_model
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, Print, Scene, Shape
from onethinker_jax.data_pipeline.worlds.stage import PLACES
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.train.config.presets import TINY_MEDIA

BOUNDS = {
    "image": PixelBounds(32, TINY_MEDIA.image_min_pixels, TINY_MEDIA.image_max_pixels),
    "video": PixelBounds(32, TINY_MEDIA.video_min_pixels, TINY_MEDIA.video_max_pixels),
}


def a_shape(colour: str, shape: str, radius: int, origin: tuple[int, int]) -> Shape:
    return Shape(
        colour, shape, "small", radius, life=(0.0, 0.0), origin=origin, target=origin, move=(0.0, 0.0)
    )


def a_scene(kind: str, side: int, shapes: tuple[Shape, ...] = (), prints: tuple[Print, ...] = ()) -> Scene:
    return Scene((120, 120, 120), shapes, prints, kind=kind, width=side, height=side)


def test_a_token_says_what_most_of_its_pixels_belong_to() -> None:
    """A square within one token's 32 x 32 pixels, a circle over four tokens; tokens row by row."""
    square, circle = a_shape("red", "square", 12, (16, 16)), a_shape("blue", "circle", 20, (64, 64))
    scene = a_scene("shapes", 96, shapes=(square, circle))
    objects, boxes, characters = token_labels(scene, 0.0, (96, 96))
    none = [len(words) for words in CLASSES.values()]
    red = [list(COLOURS).index("red"), list(SHAPES).index("square"), 0, PLACES.index("upper left")]
    blue = [list(COLOURS).index("blue"), list(SHAPES).index("circle"), 0, PLACES.index("lower right")]
    assert objects[0].tolist() == red
    assert [objects[token].tolist() for token in (4, 5, 7, 8)] == [blue] * 4
    assert [objects[token].tolist() for token in (1, 2, 3, 6)] == [none] * 4
    assert boxes[0] == pytest.approx([4 / 96, 4 / 96, 29 / 96, 29 / 96], abs=0.002)
    assert boxes[8] == pytest.approx([44 / 96, 44 / 96, 85 / 96, 85 / 96], abs=0.002)
    assert not characters.any() and not boxes[1].any()


def test_labels_follow_a_picture_that_is_shrunk() -> None:
    square = a_shape("green", "square", 25, (40, 120))
    scene = a_scene("shapes", 160, shapes=(square,))
    objects, _, _ = token_labels(scene, 0.0, (128, 128))
    seen = (objects[:, 0] == list(COLOURS).index("green")).reshape(4, 4)
    assert seen[2:].any() and not seen[:2].any() and seen[3, 1] and not seen[:, 3].any()


def test_characters_lie_where_their_ink_is() -> None:
    """Of a word as wide as the frame its first letter is in the first column, its last in the last, in order."""
    scene = a_scene("words", 96, prints=(Print("LAMP", 30, (4, 34), (0.0, 0.0)),))
    *_, characters = token_labels(scene, 0.0, (96, 96))
    where = {character: np.flatnonzero(characters[:, CHARACTERS.index(character)]) for character in "LAMP"}
    assert all(len(tokens) == 1 and tokens[0] // 3 == 1 for tokens in where.values())
    columns = [int(where[character][0] % 3) for character in "LAMP"]
    assert columns[0] == 0 and columns == sorted(columns) and columns[-1] >= 1


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    one, again, other = (
        draw_batch(Arguments(Path(), rows=len(KINDS), seed=seed), 3, BOUNDS, 16) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.vision.patches, again.vision.patches)
    assert not np.array_equal(one.vision.patches, other.vision.patches)
    assert one.vision.patches.shape[:2] == (len(KINDS), PATCHES)
    assert (one.known == (one.vision.frame_ids[:, ::4] > 0)).all()
    assert one.characters.any() and (one.objects[one.known][:, 0] < len(COLOURS)).any()


def test_every_kind_of_scene_is_drawn() -> None:
    import random

    drawn = {
        (scene.data_type, scene.kind)
        for scene, _ in (draw_frame(random.Random(n), n) for n in range(len(KINDS)))
    }
    assert drawn == set(KINDS) and {kind for _, kind in drawn} == {"shapes", "words", "sum"}


def test_a_palette_of_one_colour() -> None:
    pictures = draw_batch(Arguments(Path(), rows=len(KINDS), colours=1), 0, BOUNDS, 16)
    colours = set(pictures.objects[pictures.known][:, 0].tolist())
    assert colours == {0, len(COLOURS)}


def test_the_loss_is_that_of_each_token_alone() -> None:
    """Padding counts for nothing, and outputs that name everything have no loss and all right."""
    pictures = draw_batch(Arguments(Path(), rows=4), 0, BOUNDS, 16)
    outputs = np.zeros((2, 4, PATCHES // 4, OUTPUTS), np.float32)
    first = 0
    for index, words in enumerate(CLASSES.values()):
        for row, token in np.ndindex(pictures.known.shape):
            outputs[:, row, token, first + pictures.objects[row, token, index]] = 50.0
        first += len(words) + 1
    sides = np.round(pictures.boxes * 1000).astype(int)
    for number, truth in zip(DIGITS.values(), (sides // 100, sides // 10 % 10), strict=True):
        for row, token, side in np.ndindex(sides.shape):
            outputs[:, row, token, first + number * side + truth[row, token, side]] = 50.0
        first += 4 * number
    outputs[..., first:-4] = 50.0 * (2 * pictures.characters - 1)
    outputs[..., -4:] = pictures.boxes
    loss, counts = token_loss(jnp.asarray(outputs), pictures)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    assert (counts[1:7] == counts[0]).all() and counts[0] > 0
    outputs[:, ~pictures.known] = -7.0
    assert float(token_loss(jnp.asarray(outputs), pictures)[0]) == pytest.approx(0.0, abs=1e-5)
    assert isinstance(pictures, Pictures)


def test_a_tower_is_taken_from_another_model(model: Path) -> None:
    fresh = load_hf(model)
    nnx.update(fresh, jax.tree.map(jnp.zeros_like, nnx.state(fresh)))
    take_tower(fresh, model)
    given = nnx.state(load_hf(model).visual)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(fresh.visual), given)
    assert not np.any(np.asarray(jax.tree.leaves(nnx.state(fresh.decoder))[0]))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (" red", "colour"),
        (" star", "shape"),
        (" small", "size"),
        (" centre", "place"),
        ("7", "number"),
        (" is", "other"),
    ],
)
def test_words_of_captions_have_classes(word: str, said: str) -> None:
    assert word_class(word) == said


@pytest.mark.parametrize(("directory", "name"), [("runs/cold/model", "cold"), ("Qwen3-VL-2B", "Qwen3-VL-2B")])
def test_results_name_a_model_without_its_place(tmp_path: Path, directory: str, name: str) -> None:
    assert name_of_model(tmp_path / directory) == name
