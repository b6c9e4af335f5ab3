"""Open-ended questions of the Shapes world: what is to be seen, where it is, what it does."""

import random

from onethinker_jax.data_pipeline.shapes.phrases import extreme
from onethinker_jax.data_pipeline.shapes.scene import Scene, Shape
from onethinker_jax.data_pipeline.worlds.english import NUMBER_WORDS, listed, span_words, with_article
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable
from onethinker_jax.data_pipeline.worlds.stage import clear_place, deeds, place, whereabouts


def _caption_image(scene: Scene, rng: random.Random) -> Question | None:
    if len(scene.shapes) > 3:
        return None
    order = sorted(scene.shapes, key=lambda shape: shape.origin)
    items = [f"{with_article(shape.size)} {shape.name} {whereabouts(scene, shape)}" for shape in order]
    count = NUMBER_WORDS[len(items)]
    verb = "is" if len(items) == 1 else "are"
    thinking = f"From left to right there {verb} {count}: {listed(shape.name for shape in order)}."
    return Question("Describe the image.", listed(items).capitalize() + ".", thinking)


def _name_place(scene: Scene, rng: random.Random) -> Question | None:
    clear = [shape for shape in scene.shapes if clear_place(scene, shape)]
    spots = [place(scene, shape, 0.0) for shape in scene.shapes]
    clear = [shape for shape in clear if spots.count(place(scene, shape, 0.0)) == 1]
    if not clear:
        return None
    shape = rng.choice(clear)
    where = whereabouts(scene, shape)
    thinking = f"The object {where} is {shape.colour} and {shape.size}, with the form of a {shape.shape}."
    return Question(f"What object is {where}?", f"a {shape.size} {shape.name}", thinking)


def _name_extreme(scene: Scene, rng: random.Random) -> Question | None:
    found = extreme(scene, rng)
    if found is None:
        return None
    word, shape = found
    thinking = f"The {word} is {whereabouts(scene, shape)}."
    return Question(f"What object is the {word}?", f"the {shape.size} {shape.name}", thinking)


def _caption_video(scene: Scene, rng: random.Random) -> Question | None:
    order = sorted(scene.shapes, key=lambda shape: (shape.life, shape.name))
    if len(order) > 3:
        return None
    items = [f"the {shape.name} {listed(deeds(scene, shape))}" for shape in order]
    answer = "; ".join(items)
    thinking = (
        f"There are {NUMBER_WORDS[len(items)]}: {'; '.join(_history(scene, shape) for shape in order)}."
    )
    return Question("Describe what happens.", f"{answer[0].upper()}{answer[1:]}.", thinking)


def _tell_deed(scene: Scene, rng: random.Random) -> Question | None:
    shape = rng.choice(scene.shapes)
    thinking = f"There is the {_history(scene, shape)}."
    return Question(f"What does the {shape.name} do?", f"it {listed(deeds(scene, shape))}", thinking)


def _history(scene: Scene, shape: Shape) -> str:
    """When an object is there, and where first and last: "red star from 0.0 to 3.5, centre to upper left"."""
    first, last = (place(scene, shape, time) for time in shape.life)
    return f"{shape.name} {span_words(*shape.life)}, {first} to {last}"


CAPTIONS: QuestionTable = {
    "open-ended": {
        "image": {
            "shapes": Asked(6, ((1, _caption_image), (1, _name_place), (0.5, _name_extreme))),
        },
        "video": {
            "shapes": Asked(5, ((1, _caption_video), (1, _tell_deed))),
        },
    },
}
