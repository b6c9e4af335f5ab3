"""Questions of the Shapes world that are to be computed: prices of what is seen, printed sums and numbers."""

import random

from onethinker_jax.data_pipeline.shapes.amounts import count_aloud
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.worlds.english import counted, plural
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable


def _price_shapes(scene: Scene, rng: random.Random) -> Question | None:
    kind = rng.choice(scene.shapes).shape
    price, other = rng.sample(range(1, 6), 2)
    count, counting = count_aloud(scene, plural(kind), lambda shape: shape.shape == kind)
    rest = len(scene.shapes) - count
    problem = f"Each {kind} is worth {price} and any other object {other}. What is the total?"
    total = count * price + rest * other
    thinking = f"{counting} {counted(count, kind)} and {counted(rest, 'other')}: {count} * {price} = {count * price}, "
    thinking += f"{rest} * {other} = {rest * other}, {count * price} + {rest * other} = {total}."
    return Question(problem, str(total), thinking)


def _solve_print(scene: Scene, rng: random.Random) -> Question | None:
    text = scene.prints[0].text
    left, sign, right = text.split()
    result = int(left) + int(right) if sign == "+" else int(left) - int(right)
    return Question("What is the result of the printed sum?", str(result), f"It says {text} = {result}.")


def _combine_numbers(scene: Scene, rng: random.Random) -> Question | None:
    first, second = (int(printed.text) for printed in scene.prints)
    thinking = f"First comes {first}, then {second}. "
    if rng.random() < 0.3 and first >= second:
        result = first - second
        return Question(
            "What is the first number minus the second?",
            str(result),
            f"{thinking}{first} - {second} = {result}.",
        )
    result = first + second
    return Question(
        "What is the sum of the numbers shown?", str(result), f"{thinking}{first} + {second} = {result}."
    )


SUMS: QuestionTable = {
    "math": {
        "image": {
            "shapes": Asked(2, ((1, _price_shapes),)),
            "sum": Asked(2, ((1, _solve_print),)),
        },
        "video": {
            "shapes": Asked(2, ((1, _price_shapes),)),
            "sum": Asked(2, ((1, _combine_numbers),)),
        },
    },
}
