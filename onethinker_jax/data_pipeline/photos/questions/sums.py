"""Questions of the Photos world that are to be computed: coins, handwritten digits, numbers, prices of what is seen."""

import random

from onethinker_jax.data_pipeline.photos.questions.phrases import names_here
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.english import listed
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable


def _sum_coins(scene: PhotoScene, rng: random.Random) -> Question | None:
    values = [coin.worth for coin in scene.sprites]
    problem = f"How many {scene.unit} are the pasted coins worth together?"
    terms = " + ".join(map(str, values))
    thinking = f"{terms} = {sum(values)}." if len(values) > 1 else f"There is no other coin: {terms}."
    return Question(problem, str(sum(values)), thinking)


def _compute_digits(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Their sum, product or difference; in a video, in the order in which they are shown."""
    values = [digit.worth for digit in scene.sprites]
    if len(values) < 2:
        return None
    read = f"I read {listed(map(str, values))}. "
    if rng.random() < 0.25:
        product = 1
        for value in values[:2]:
            product *= value
        if len(values) == 2:
            thinking = f"{read}{values[0]} * {values[1]} = {product}."
            return Question("What is the product of the two handwritten digits?", str(product), thinking)
    thinking = f"{read}{' + '.join(map(str, values))} = {sum(values)}."
    return Question("What is the sum of the handwritten digits?", str(sum(values)), thinking)


def _sum_plates(scene: PhotoScene, rng: random.Random) -> Question | None:
    values = [plate.worth for plate in scene.sprites]
    if not all(plate.said.isdigit() for plate in scene.sprites) or len(values) != 2:
        return None
    thinking = f"First I read {values[0]}, then {values[1]}. {values[0]} + {values[1]} = {sum(values)}."
    return Question("What is the sum of the numbers shown?", str(sum(values)), thinking)


def _price(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Points for what is there and for what is not."""
    names = [*names_here(scene), *scene.others[:1]]
    rng.shuffle(names)
    points = {name: rng.randint(1, 9) for name in names}
    counts = {name: sum(sprite.name == name for sprite in scene.sprites) for name in names}
    found = [name for name in names if counts[name]]
    total = sum(points[name] * counts[name] for name in found)
    terms = " + ".join(
        str(points[name]) if counts[name] == 1 else f"{counts[name]} * {points[name]}" for name in found
    )
    what = "video" if scene.duration else "picture"
    each = " for each time it is there" if scene.kind == "herd" else ""
    asked = ", ".join(f"{name} {points[name]}" for name in names)
    problem = f"Points{each}: {asked}. How many points is the {what} worth?"
    verb = "is" if len(found) == 1 else "are"
    thinking = f"There {verb} {listed(found)}: {terms} = {total}."
    return Question(problem, str(total), thinking)


SUMS: QuestionTable = {
    "math": {
        "image": {
            "coins": Asked(1.5, ((1, _sum_coins),)),
            "digits": Asked(1.5, ((1, _compute_digits),)),
            "herd": Asked(1, ((1, _price),)),
        },
        "video": {
            "digits": Asked(1.5, ((1, _compute_digits),)),
            "objects": Asked(1.5, ((1, _price),)),
            "words": Asked(1, ((1, _sum_plates),)),
        },
    },
}
