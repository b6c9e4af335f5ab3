"""Questions of the Photos world that ask for what is written: words on plates, handwritten digits, labels of maps."""

import random

from onethinker_jax.data_pipeline.photos.questions.phrases import extreme
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.english import listed, spell
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable


def _read_plate(scene: PhotoScene, rng: random.Random) -> Question | None:
    plate = rng.choice(scene.sprites)
    return Question(f"What is written on {plate.definite}?", plate.said, spell(plate.said))


def _read_plates(scene: PhotoScene, rng: random.Random) -> Question | None:
    """All plates from left to right, as they are ordered in pictures."""
    if len(scene.sprites) < 2:
        return None
    texts = [plate.said for plate in scene.sprites]
    names = listed(plate.definite for plate in scene.sprites)
    problem = "Read the plates from left to right."
    return Question(
        problem, " ".join(texts), f"From left to right there are {names}. {' '.join(map(spell, texts))}"
    )


def _read_digits(scene: PhotoScene, rng: random.Random) -> Question | None:
    digits = [sprite.said for sprite in scene.sprites]
    thinking = f"From left to right I read {listed(digits)}."
    return Question("Read the handwritten digits from left to right.", " ".join(digits), thinking)


def _read_label(scene: PhotoScene, rng: random.Random) -> Question | None:
    found = extreme(scene, rng)
    if found is None:
        return None
    word, division = found
    thinking = f"The {word} of the labelled divisions is {division.said}."
    return Question(f"Read the label of the {word} labelled division.", division.said, thinking)


def _read_turns(scene: PhotoScene, rng: random.Random) -> Question | None:
    texts = [sprite.said for sprite in scene.sprites]
    what = "digits" if scene.kind == "digits" else "plates"
    draw = rng.random()
    if draw < 0.5:
        thinking = f"First I read {texts[0]}, then {texts[1]}."
        return Question(f"Read the {what} in the order shown.", " ".join(texts), thinking)
    number, word = (0, "first") if draw < 0.75 else (1, "last")
    thinking = f"It is a {texts[number]}." if scene.kind == "digits" else spell(texts[number])
    return Question(f"Read the {what[:-1]} that is shown {word}.", texts[number], thinking)


READINGS: QuestionTable = {
    "OCR": {
        "image": {
            "words": Asked(3, ((1, _read_plate), (1, _read_plates))),
            "digits": Asked(1.5, ((1, _read_digits),)),
            "map": Asked(0.5, ((1, _read_label),)),
        },
        "video": {
            "words": Asked(3, ((1, _read_turns),)),
            "digits": Asked(1, ((1, _read_turns),)),
        },
    },
}
