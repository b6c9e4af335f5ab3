"""What questions on a scene of the Photos world have in common: what is worth asking, and how it is said."""

import random
from collections.abc import Callable, Sequence

from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene, Sprite
from onethinker_jax.data_pipeline.photos.scenes.views import shot_spans
from onethinker_jax.data_pipeline.worlds.groundings import Span, box_at
from onethinker_jax.data_pipeline.worlds.stage import PLACES, clear_place, place

INVENTORIED = ("objects", "herd", "words", "coins", "map")
"""Kinds of scenes about which reasoning begins with what is where."""


def inventory(scene: PhotoScene) -> str:
    """What is there, row by row: the place and the name of each sprite."""
    seen = [
        (place(scene, sprite, sprite.life[0]), sprite.said if scene.kind == "map" else sprite.name)
        for sprite in scene.sprites
    ]
    order = sorted(seen, key=lambda one: (PLACES.index(one[0]), one[1]))
    return f"I see {', '.join(f'{where} {what}' for where, what in order)}."


def names_here(scene: PhotoScene) -> list[str]:
    """The names of the sprites, each once."""
    return list(dict.fromkeys(sprite.name for sprite in scene.sprites))


def options_here(scene: PhotoScene) -> list[str]:
    """Names of the sprites, then of what is not there, four in all where there are as many."""
    return [*names_here(scene), *scene.others][: max(4, len(names_here(scene)))]


def lone_place(scene: PhotoScene, rng: random.Random) -> Sprite | None:
    """A sprite that is clearly in a ninth of the picture in which no other's centre is."""
    spots = [place(scene, sprite, 0.0) for sprite in scene.sprites]
    clear = [
        sprite
        for sprite, spot in zip(scene.sprites, spots, strict=True)
        if clear_place(scene, sprite) and spots.count(spot) == 1
    ]
    return rng.choice(clear) if clear else None


Superlative = tuple[str, Callable[[PhotoScene, int], float], float, bool]
"""A word, by what it is measured, the margin that the first must have, and whether as a ratio."""


def _area(scene: PhotoScene, index: int) -> float:
    return float(scene.visible_mask(index, 0.0).sum())


def extreme(scene: PhotoScene, rng: random.Random) -> tuple[str, Sprite] | None:
    """A superlative and the sprite that it singles out by a clear margin (pictures): by seen area or by the box."""
    if len(scene.sprites) < 2 or any(scene.visible_share(i, 0.0) < 0.9 for i in range(len(scene.sprites))):
        return None
    words: list[Superlative] = [
        ("largest", lambda s, i: _area(s, i), 1.3, True),
        ("smallest", lambda s, i: 1 / _area(s, i), 1.3, True),
        ("leftmost", lambda s, i: -float(s.sprites[i].origin[0]), 0.06, False),
        ("rightmost", lambda s, i: float(s.sprites[i].origin[0]), 0.06, False),
        ("tallest", lambda s, i: float(s.sprites[i].alpha.shape[0]), 1.2, True),
    ]
    rng.shuffle(words)
    for word, measure, margin, ratio in words:
        order = sorted(range(len(scene.sprites)), key=lambda index: measure(scene, index), reverse=True)
        first, second = (measure(scene, index) for index in order[:2])
        if ratio and first >= margin * second:
            return word, scene.sprites[order[0]]
        if not ratio and first - second >= margin * scene.width and _edges_agree(scene, order[0], word):
            return word, scene.sprites[order[0]]
    return None


def _edges_agree(scene: PhotoScene, index: int, word: str) -> bool:
    """Whether the sprite whose middle is the leftmost (rightmost) has the leftmost (rightmost) edges too."""
    boxes = [box_at(scene, number, 0.0) for number in range(len(scene.sprites))]
    furthest = min if word == "leftmost" else max
    return all(boxes[index][edge] == furthest(box[edge] for box in boxes) for edge in (0, 2))


def life_spans(scene: PhotoScene) -> list[Span]:
    """The spans of all that is there for a part of the video only, and is well seen."""
    spans: list[Span] = [
        (sprite.definite, sprite.life, "visible")
        for index, sprite in enumerate(scene.sprites)
        if sprite.life != (0.0, scene.duration) and scene.well_seen(index, *sprite.life)
    ]
    if scene.kind == "digits":
        said = [sprite.said for sprite in scene.sprites]
        spans = [
            (f"the digit {sprite.said}", sprite.life, "shown")
            for sprite in scene.sprites
            if said.count(sprite.said) == 1
        ]
    return spans + shot_spans(scene)


def extent(scene: PhotoScene, index: int, axis: int) -> float:
    """Width (axis 0) or height (axis 1) of a sprite's visible part, in percent of the picture's."""
    box = box_at(scene, index, 0.0)
    return (box[axis + 2] - box[axis]) / 10


def whole_ones(scene: PhotoScene) -> Sequence[int]:
    """The numbers of the sprites that nothing covers (pictures)."""
    return [index for index in range(len(scene.sprites)) if scene.visible_share(index, 0.0) >= 0.999]
