"""What visual tokens are taught to say: of hand-made scenes, and of every picture that is drawn."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.vision_pretraining import Arguments, pretrain, take_tower, target_probabilities, token_loss
from experiments.visual_labels import (
    CHARACTERS,
    CLASSES,
    GROUPS,
    KINDS,
    LABELS,
    NOT_TOLD,
    OUTPUTS,
    PATCHES,
    Pictures,
    draw_batch,
    draw_pair,
    labels_of,
    token_labels,
)
from experiments.word_accuracy import word_class
from experiments.words import name_of_model
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, Print, Scene, Shape
from onethinker_jax.model.hf_weights import load_hf
from onethinker_jax.train.config.presets import TINY_MEDIA, shapes

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


NOTHING = {name: group.classes - 1 for name, group in GROUPS.items() if group.has_nothing}


def named(labels: np.ndarray) -> dict[str, list[int]]:
    """The labels of a token in one frame, by group."""
    ends = np.cumsum([group.count for group in GROUPS.values()])[:-1]
    return {name: part.tolist() for name, part in zip(GROUPS, np.split(labels, ends), strict=True)}


def words_of(labels: np.ndarray) -> list[str | None]:
    """Colour, shape, size, place and way; None where the token says nothing."""
    said = [named(labels)[name][0] for name in CLASSES]
    return [None if n == NOTHING[name] else CLASSES[name][n] for n, name in zip(said, CLASSES, strict=True)]


def text_of(labels: np.ndarray) -> str:
    return "".join(CHARACTERS[n] for n in named(labels)["character"] if n != NOTHING["character"])


def test_a_token_says_what_most_of_its_pixels_belong_to() -> None:
    """A square within one token's 32 x 32 pixels, a circle over four tokens; tokens row by row."""
    square, circle = a_shape("red", "square", 12, (16, 16)), a_shape("blue", "circle", 20, (64, 64))
    scene = a_scene("shapes", 96, shapes=(square, circle))
    labels = token_labels(scene, (0.0, 0.0), (96, 96))
    assert labels.shape == (9, 2, LABELS) and np.array_equal(labels[:, 0], labels[:, 1])
    told = labels[:, 0]
    assert words_of(told[0]) == ["red", "square", "small", "upper left", "still"]
    assert all(
        words_of(told[token]) == ["blue", "circle", "small", "lower right", "still"] for token in (4, 5, 7, 8)
    )
    assert all(words_of(told[token]) == [None] * 5 for token in (1, 2, 3, 6))
    sides = [4 / 96, 4 / 96, 29 / 96, 29 / 96]
    thousandths = [round(1000 * side) for side in sides]
    assert named(told[0])["hundreds"] == [n // 100 for n in thousandths]
    assert named(told[0])["fiftieth"] == [round(50 * side) for side in sides]
    assert named(told[8])["fiftieth"] == [round(50 * side) for side in (44 / 96, 44 / 96, 85 / 96, 85 / 96)]
    for name in ("hundreds", "fiftieth"):
        assert named(told[1])[name] == [NOT_TOLD] * 4
    assert not any(text_of(token) for token in told)


def test_labels_follow_a_picture_that_is_shrunk() -> None:
    square = a_shape("green", "square", 25, (40, 120))
    labels = token_labels(a_scene("shapes", 160, shapes=(square,)), (0.0, 0.0), (128, 128))
    seen = (labels[:, 0, 0] == list(COLOURS).index("green")).reshape(4, 4)
    assert seen[2:].any() and not seen[:2].any() and seen[3, 1] and not seen[:, 3].any()


def test_each_frame_of_a_pair_is_told_by_itself() -> None:
    """A square that goes right by a token's width, and one that is gone in the second frame."""
    mover = Shape(
        "red", "square", "small", 12, life=(0.0, 2.0), origin=(16, 16), target=(80, 16), move=(0.0, 1.0)
    )
    guest = Shape(
        "blue", "star", "small", 12, life=(0.0, 0.0), origin=(16, 80), target=(16, 80), move=(0.0, 0.0)
    )
    scene = Scene(
        (120, 120, 120), (mover, guest), (), kind="shapes", width=96, height=96, duration=2.0, fps=4
    )
    first, second = token_labels(scene, (0.0, 0.5), (96, 96)).transpose(1, 0, 2)
    assert words_of(first[0]) == ["red", "square", "small", "upper left", "right"]
    assert words_of(second[1]) == ["red", "square", "small", "upper middle", "right"]
    assert words_of(first[1]) == words_of(second[0]) == [None] * 5
    assert words_of(first[6])[:2] == ["blue", "star"] and words_of(second[6]) == [None] * 5


def test_characters_are_in_order_and_lie_where_their_ink_is() -> None:
    """The tokens of a word that is as wide as the frame, left to right, spell it; another time's print is not read."""
    prints = (Print("LAMP", 30, (4, 34), (0.0, 0.0)), Print("77", 30, (4, 2), (1.0, 1.0)))
    told = token_labels(a_scene("words", 96, prints=prints), (0.0, 0.0), (96, 96))[:, 0]
    texts = [text_of(token) for token in told]
    assert "".join(texts[3:6]) == "LAMP" and texts[3].startswith("L") and texts[5].endswith("P")
    assert not any(texts[:3] + texts[6:])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    one, again, other = (a_batch(rows=len(KINDS), seed=seed, step=3) for seed in (0, 0, 1))
    assert np.array_equal(one.vision.patches, again.vision.patches)
    assert not np.array_equal(one.vision.patches, other.vision.patches)
    assert one.vision.patches.shape[:2] == (len(KINDS), PATCHES)
    assert ((one.labels[..., 0] != NOT_TOLD).all(-1) == (one.vision.frame_ids[:, ::4] > 0)).all()
    assert (one.labels < [group.classes for group in GROUPS.values() for _ in range(group.count)]).all()
    moving = one.labels[..., 0, :] != one.labels[..., 1, :]
    assert moving.any() and not moving[[KINDS[row][0] == "image" for row in range(len(KINDS))]].any()


def a_batch(
    *, rows: int, seed: int = 0, step: int = 0, palette: Sequence[str] = CLASSES["colour"]
) -> Pictures:
    return draw_batch(seed, step * len(KINDS), rows, BOUNDS, 16, palette)


def test_every_kind_of_scene_is_drawn() -> None:
    drawn = {
        (scene.data_type, scene.kind)
        for scene, _ in (draw_pair(random.Random(n), n) for n in range(len(KINDS)))
    }
    assert drawn == set(KINDS) and {kind for _, kind in drawn} == {"shapes", "words", "sum"}


def test_the_frames_of_a_pair_are_half_a_second_apart() -> None:
    for number, (medium, _) in enumerate(KINDS):
        _, (first, second) = draw_pair(random.Random(number), number)
        assert second - first == pytest.approx(0.5 if medium == "video" else 0.0)


def test_a_palette_of_one_colour() -> None:
    pictures = a_batch(rows=len(KINDS), palette=CLASSES["colour"][:1])
    assert set(np.unique(pictures.labels[..., 0])) == {NOT_TOLD, 0, NOTHING["colour"]}


def test_the_loss_is_that_of_each_token_alone() -> None:
    """Padding counts for nothing, and outputs that name everything have no loss and all right."""
    pictures = a_batch(rows=4)
    outputs = np.full((2, *pictures.labels.shape[:3], OUTPUTS), -50.0, np.float32)
    first = 0
    for name, group in GROUPS.items():
        said = np.asarray(target_probabilities(group, jnp.asarray(labels_of(pictures, name))))
        last = first + group.count * group.classes
        outputs[..., first:last] = np.log(np.maximum(said, 1e-30)).reshape(*said.shape[:3], -1)
        first = last
    flat = outputs.reshape(*outputs.shape[:3], 2 * OUTPUTS)
    loss, counts = token_loss(jnp.asarray(flat), pictures)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    shown, right = counts.T
    assert (right[:-1] == shown[:-1]).all() and (shown[:-1] > 0).all() and right[-1] == 0
    padding = (pictures.labels == NOT_TOLD).all((-2, -1))
    assert padding.any()
    flat[:, padding] = 7.0
    assert float(token_loss(jnp.asarray(flat), pictures)[0]) == pytest.approx(0.0, abs=1e-5)
    at = tuple(np.argwhere(pictures.labels[..., 0, len(CLASSES)] != NOT_TOLD)[0])  # one with an object
    flat[0, *at] = -flat[0, *at]
    worse, counts = token_loss(jnp.asarray(flat), pictures)
    assert float(worse) > 1 and (counts[:-1, 1] < counts[:-1, 0]).any()


@pytest.mark.parametrize(("heads_first", "steps", "moves"), [(2, 0, False), (1, 1, True)])
def test_heads_are_trained_before_the_tower(
    heads_first, steps, moves, model: Path, processor, capsys
) -> None:
    net = load_hf(model, dtype=jnp.float32)
    full, sizes = shapes(), net.config
    config = replace(
        full,
        model=replace(
            full.model,
            hidden_size=sizes.text.hidden_size,
            deepstack_layers=sizes.vision.deepstack_layers,
        ),
    )
    before = jax.tree.map(np.asarray, nnx.state(net.visual))
    arguments = Arguments(Path(), steps, rows=2, heads_first=heads_first, log_every=1)
    after = pretrain(net, config, processor, arguments)
    same = jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), before, after))
    assert all(same) is not moves
    losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 2 and losses[1] != losses[0]


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
