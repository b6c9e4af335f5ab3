"""Questions of the Shapes world that ask for printed text."""

import random

from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.worlds.english import spell
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable


def _read_print(scene: Scene, rng: random.Random) -> Question | None:
    texts = [printed.text for printed in scene.prints]
    if len(texts) > 1 and rng.random() < 0.4:
        texts = [rng.choice(texts)]
    what = "text" if len(texts) > 1 else "number" if texts[0].isdigit() else "word"
    return Question(f"Read the printed {what}.", " ".join(texts), " ".join(spell(text) for text in texts))


def _read_sum(scene: Scene, rng: random.Random) -> Question | None:
    left, sign, right = scene.prints[0].text.split()
    word = "plus" if sign == "+" else "minus"
    return Question("Read the printed sum.", scene.prints[0].text, f"It is {left} {word} {right}.")


def _read_turns(scene: Scene, rng: random.Random) -> Question | None:
    texts = [printed.text for printed in scene.prints]
    draw = rng.random()
    if draw < 0.5:
        thinking = f"First {spell(texts[0])[0].lower()}{spell(texts[0])[1:]} Then {' '.join(texts[1])}."
        return Question("Read the texts in the order shown.", " ".join(texts), thinking)
    position = 0 if draw < 0.75 else 1
    return Question(
        f"Read the text shown {('first', 'last')[position]}.", texts[position], spell(texts[position])
    )


READINGS: QuestionTable = {
    "OCR": {
        "image": {
            "words": Asked(4, ((1, _read_print),)),
            "sum": Asked(1, ((1, _read_sum),)),
        },
        "video": {
            "words": Asked(3, ((1, _read_turns),)),
            "sum": Asked(1, ((1, _read_turns),)),
        },
    },
}
