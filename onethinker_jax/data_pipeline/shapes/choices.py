"""Multiple-choice questions of the Shapes world: colours, shapes, places, words, and what happens."""

import random

from onethinker_jax.data_pipeline.shapes.phrases import extreme, in_order, lone_ones, other_names
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, WORDS, Scene
from onethinker_jax.data_pipeline.worlds.choices import choose_place
from onethinker_jax.data_pipeline.worlds.english import listed, sentence, spell
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable, choice
from onethinker_jax.data_pipeline.worlds.stage import deeds, whereabouts


def _choose_colour(scene: Scene, rng: random.Random) -> Question | None:
    lone = lone_ones(scene, "shape")
    if not lone:
        return None
    shape = rng.choice(lone)
    where = whereabouts(scene, shape, shape.life[0])
    seen = f"The {shape.shape} {where} is {shape.colour}."
    if rng.random() < 0.5:
        seen = f"I find the {shape.shape} {where}. It is {shape.colour}."
    return choice(rng, f"What colour is the {shape.shape}?", shape.colour, COLOURS, seen)


def _choose_shape(scene: Scene, rng: random.Random) -> Question | None:
    lone = lone_ones(scene, "colour")
    if not lone:
        return None
    shape = rng.choice(lone)
    where = whereabouts(scene, shape, shape.life[0])
    seen = f"The {shape.colour} object {where} is a {shape.shape}."
    if rng.random() < 0.5:
        seen = f"I find something {shape.colour} {where}. It is a {shape.shape}."
    return choice(rng, f"Which shape is {shape.colour}?", shape.shape, SHAPES, seen)


def _choose_extreme(scene: Scene, rng: random.Random) -> Question | None:
    found = extreme(scene, rng)
    if found is None:
        return None
    word, shape = found
    here = [other.name for other in scene.shapes]
    seen = f"The {word} is the {shape.name}."
    names = here if len(here) == 4 else (here + other_names(scene, rng)[len(here) :])[:4]
    return choice(rng, f"Which object is the {word}?", shape.name, names, seen)


def _choose_word(scene: Scene, rng: random.Random) -> Question | None:
    words = [printed.text for printed in scene.prints if printed.text.isalpha()]
    if not words:
        return None
    text = rng.choice(words)
    return choice(rng, "Which word is printed?", text, rng.sample(WORDS, 4), spell(text))


def _choose_turn(scene: Scene, rng: random.Random) -> Question | None:
    turn = rng.choice((0, 1))
    text, other = scene.prints[turn].text, scene.prints[1 - turn].text
    fillers = [str(rng.randint(10, 99)), *rng.sample(WORDS, 3)]
    wrong = [other, *[filler for filler in fillers if filler not in (text, other)][:2]]
    stem = f"Which text is shown {('first', 'last')[turn]}?"
    return choice(rng, stem, text, wrong, f"First {scene.prints[0].text}, then {scene.prints[1].text}.")


def _choose_direction(scene: Scene, rng: random.Random) -> Question | None:
    moving = [shape for shape in scene.shapes if shape.moves]
    if not moving:
        return None
    shape = rng.choice(moving)
    begin, end = whereabouts(scene, shape, shape.life[0]), whereabouts(scene, shape, shape.life[1])
    seen = f"The {shape.name} begins {begin} and ends {end}."
    wrong = ("left", "right", "up", "down")
    return choice(rng, f"Which way does the {shape.name} move?", shape.direction, wrong, seen)


def _choose_event(scene: Scene, rng: random.Random) -> Question | None:
    verb = rng.choice(("appears", "vanishes", "moves"))
    doing = [s for s in scene.shapes if any(deed.startswith(verb.rstrip("s")) for deed in deeds(scene, s))]
    if len(doing) != 1:
        return None
    shape = doing[0]
    told = "; ".join(f"the {one.name} {listed(deeds(scene, one))}" for one in in_order(scene))
    seen = f"{sentence(told)}."
    here = [other.name for other in scene.shapes]
    names = (here + other_names(scene, rng)[len(here) :])[:4]
    return choice(rng, f"Which object {verb}?", shape.name, names, seen)


CHOICES: QuestionTable = {
    "multiple choice": {
        "image": {
            "shapes": Asked(
                7, ((1, _choose_colour), (1, _choose_shape), (1, choose_place), (1, _choose_extreme))
            ),
            "words": Asked(1, ((1, _choose_word),)),
        },
        "video": {
            "shapes": Asked(
                6, ((2, _choose_direction), (2, _choose_event), (1, _choose_colour), (1, _choose_shape))
            ),
            "words": Asked(1, ((1, _choose_turn),)),
        },
    },
}
