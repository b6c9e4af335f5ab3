"""Questions of the Shapes world: for every task, a question on a scene, its true answer and a short chain
of thought.

Each builder takes a scene and a random generator and returns a `Question`, or None where the scene cannot
carry one (then another kind of question, or another scene, is taken). Answers are computed from the scene,
never from a drawn label; what could be misread (two nearly equal sizes, a centre on a border line) is not
asked. This file holds the tasks answered in text and puts the table of all tasks together; `groundings` holds the tasks
answered in JSON.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

from onethinker_jax.data_pipeline.shapes import scenes
from onethinker_jax.data_pipeline.shapes.groundings import IN_JSON
from onethinker_jax.data_pipeline.shapes.phrases import (
    Asked,
    Question,
    QuestionTable,
    clear_place,
    counted,
    deeds,
    extreme,
    inventory,
    life_spans,
    listed,
    lone_ones,
    other_names,
    seconds_text,
    whereabouts,
    with_article,
)
from onethinker_jax.data_pipeline.shapes.scenes import COLOURS, SHAPES, WORDS, Scene
from onethinker_jax.tasks import TASKS, Task, complete

NUMBER_WORDS = ("no", "one", "two", "three", "four")


def ask_task(scene: Scene, problem_type: str, rng: random.Random) -> Question | None:
    """A question of `problem_type` on `scene`, or None if the scene offers none."""
    builders = list(QUESTIONS[Task.of(problem_type, scene.data_type)][scene.kind].builders)
    while builders:
        weights = [weight for weight, _ in builders]
        pick = rng.choices(range(len(builders)), weights)[0]
        question = builders.pop(pick)[1](scene, rng)
        if question is not None:
            if scene.shapes:
                question = replace(question, thinking=f"{inventory(scene)} {question.thinking}".strip())
            return question
    return None


def _choice(
    rng: random.Random, stem: str, right: str, wrong: Iterable[str], thinking: str, count: int = 4
) -> Question:
    """A multiple-choice question with `count` lettered options in random order."""
    others = [option for option in dict.fromkeys(wrong) if option != right]
    options = [right, *rng.sample(others, min(count - 1, len(others)))]
    rng.shuffle(options)
    letter = "ABCD"[options.index(right)]
    lettered = tuple(f"{a}. {option}" for a, option in zip("ABCD", options, strict=False))
    return Question(stem, letter, f"{thinking} That is {letter}.", lettered)


# ---------------------------------------------------------------- multiple choice


def _choose_colour(scene: Scene, rng: random.Random) -> Question | None:
    lone = lone_ones(scene, "shape")
    if not lone:
        return None
    shape = rng.choice(lone)
    where = whereabouts(scene, shape, shape.life[0])
    seen = f"The {shape.shape} {where} is {shape.colour}."
    if rng.random() < 0.5:
        seen = f"I find the {shape.shape} {where}. It is {shape.colour}."
    return _choice(rng, f"What colour is the {shape.shape}?", shape.colour, COLOURS, seen)


def _choose_shape(scene: Scene, rng: random.Random) -> Question | None:
    lone = lone_ones(scene, "colour")
    if not lone:
        return None
    shape = rng.choice(lone)
    where = whereabouts(scene, shape, shape.life[0])
    seen = f"The {shape.colour} object {where} is a {shape.shape}."
    if rng.random() < 0.5:
        seen = f"I find something {shape.colour} {where}. It is a {shape.shape}."
    return _choice(rng, f"Which shape is {shape.colour}?", shape.shape, SHAPES, seen)


def _choose_place(scene: Scene, rng: random.Random) -> Question | None:
    clear = [shape for shape in scene.shapes if clear_place(scene, shape)]
    if not clear:
        return None
    shape = rng.choice(clear)
    places = [
        f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "middle", "right")
    ]
    places[4] = "centre"
    seen = f"I look for the {shape.name}. It is {whereabouts(scene, shape)}."
    return _choice(rng, f"Where is the {shape.name}?", scenes.place(scene, shape, 0.0), places, seen)


def _choose_extreme(scene: Scene, rng: random.Random) -> Question | None:
    found = extreme(scene, rng)
    if found is None:
        return None
    word, shape = found
    here = [other.name for other in scene.shapes]
    seen = f"I see {listed(map(with_article, here))}. The {word} is the {shape.name}."
    names = here if len(here) == 4 else (here + other_names(scene, rng)[len(here) :])[:4]
    return _choice(rng, f"Which object is the {word}?", shape.name, names, seen)


def _choose_word(scene: Scene, rng: random.Random) -> Question | None:
    words = [printed.text for printed in scene.prints if printed.text.isalpha()]
    if not words:
        return None
    text = rng.choice(words)
    return _choice(rng, "Which word is printed?", text, rng.sample(WORDS, 4), _spell(text))


def _choose_turn(scene: Scene, rng: random.Random) -> Question | None:
    turn = rng.choice((0, 1))
    text, other = scene.prints[turn].text, scene.prints[1 - turn].text
    fillers = [str(rng.randint(10, 99)), *rng.sample(WORDS, 3)]
    wrong = [other, *[filler for filler in fillers if filler not in (text, other)][:2]]
    stem = f"Which text is shown {('first', 'last')[turn]}?"
    return _choice(rng, stem, text, wrong, f"First {scene.prints[0].text}, then {scene.prints[1].text}.")


def _choose_direction(scene: Scene, rng: random.Random) -> Question | None:
    moving = [shape for shape in scene.shapes if shape.moves]
    if not moving:
        return None
    shape = rng.choice(moving)
    begin, end = whereabouts(scene, shape, shape.life[0]), whereabouts(scene, shape, shape.life[1])
    seen = f"The {shape.name} begins {begin} and ends {end}."
    wrong = ("left", "right", "up", "down")
    return _choice(rng, f"Which way does the {shape.name} move?", shape.direction, wrong, seen)


def _choose_event(scene: Scene, rng: random.Random) -> Question | None:
    verb = rng.choice(("appears", "vanishes", "moves"))
    doing = [s for s in scene.shapes if any(deed.startswith(verb.rstrip("s")) for deed in deeds(scene, s))]
    if len(doing) != 1:
        return None
    shape = doing[0]
    seen = f"The {shape.name} {listed(deeds(scene, shape))}."
    here = [other.name for other in scene.shapes]
    names = (here + other_names(scene, rng)[len(here) :])[:4]
    return _choice(rng, f"Which object {verb}?", shape.name, names, seen)


# ---------------------------------------------------------------- numbers


def _list_count(items: list[str], what: str) -> str:
    if not items:
        return f"I see {what}: none."
    return f"I see {what}: " + ", ".join(f"{i + 1} {item}" for i, item in enumerate(items)) + "."


def _count_all(scene: Scene, rng: random.Random) -> Question | None:
    items = [shape.name for shape in scene.shapes]
    return Question("How many objects are there?", str(len(items)), _list_count(items, "objects"))


def _count_kind(scene: Scene, rng: random.Random) -> Question | None:
    attribute = rng.choice(("colour", "shape"))
    values = [getattr(shape, attribute) for shape in scene.shapes]
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    draw = rng.random()
    pool = list(COLOURS) if attribute == "colour" else list(SHAPES)
    value = rng.choice(repeated) if repeated and draw < 0.7 else rng.choice(values if draw < 0.9 else pool)
    items = [shape.name for shape in scene.shapes if getattr(shape, attribute) == value]
    what = f"{value} objects" if attribute == "colour" else counted(0, value)[2:]
    return Question(f"How many {what} are there?", str(len(items)), _list_count(items, what))


def _count_beside(scene: Scene, rng: random.Random) -> Question | None:
    if len(scene.shapes) < 2:
        return None
    shape = rng.choice(scene.shapes)
    axis, sign, words = rng.choice(
        ((0, -1, "left of"), (0, 1, "right of"), (1, -1, "above"), (1, 1, "below"))
    )
    gaps = [(other.origin[axis] - shape.origin[axis]) * sign for other in scene.shapes if other is not shape]
    if any(abs(gap) < 8 for gap in gaps):
        return None
    items = [o.name for o in scene.shapes if (o.origin[axis] - shape.origin[axis]) * sign > 0]
    thinking = f"The {shape.name} is {whereabouts(scene, shape)}. " + _list_count(items, words)
    return Question(f"How many objects are {words} the {shape.name}?", str(len(items)), thinking)


def _count_moment(scene: Scene, rng: random.Random) -> Question | None:
    time = rng.choice((0.0, scene.duration - 0.5, *(float(s) for s in range(1, int(scene.duration)))))
    if any(visible < 0.2 for visible in _shares_of_present(scene, time)):
        return None
    items = [shape.name for shape in scene.shapes if shape.present(time)]
    thinking = _list_count(items, f"at {seconds_text(time)} seconds")
    return Question(
        f"How many objects are visible at {seconds_text(time)} seconds?", str(len(items)), thinking
    )


def _shares_of_present(scene: Scene, time: float) -> list[float]:
    present = [i for i, shape in enumerate(scene.shapes) if shape.present(time)]
    return [scenes.visible_share(scene, i, time) for i in present]


def _count_moving(scene: Scene, rng: random.Random) -> Question | None:
    items = [shape.name for shape in scene.shapes if shape.moves]
    return Question("How many objects move?", str(len(items)), _list_count(items, "moving"))


def _read_number(scene: Scene, rng: random.Random) -> Question | None:
    numbers = [printed.text for printed in scene.prints if printed.text.isdigit()]
    if len(numbers) != 1:
        return None
    thinking = f"The digits are {' '.join(numbers[0])}."
    return Question(
        "What number is shown?" if scene.duration else "What number is printed?", numbers[0], thinking
    )


def _estimate_extent(scene: Scene, rng: random.Random) -> Question | None:
    index = rng.randrange(len(scene.shapes))
    if scenes.visible_share(scene, index, 0.0) < 1.0:
        return None
    shape, axis = scene.shapes[index], rng.choice((0, 1))
    box = scenes.mask_box(scenes.visible_mask(scene, index, 0.0))
    low, high = box[axis], box[axis + 2]
    side, word = ("width", "wide") if axis == 0 else ("height", "tall")
    problem = f"How {word} is the {shape.name} in percent of the image {side}?"
    thinking = f"The {shape.name} is {shape.size}. It spans {low} to {high} of 1000."
    return Question(problem, str(round((high - low) / 10)), thinking)


def _estimate_position(scene: Scene, rng: random.Random) -> Question | None:
    shape, axis = rng.choice(scene.shapes), rng.choice((0, 1))
    side, edge = ("width", "left edge") if axis == 0 else ("height", "top")
    share = (shape.origin[axis] + 0.5) / (scene.width, scene.height)[axis]
    problem = f"How far is the centre of the {shape.name} from the {edge} in percent of the image {side}?"
    return Question(problem, str(round(100 * share)), f"The {shape.name} is {whereabouts(scene, shape)}.")


def _estimate_stay(scene: Scene, rng: random.Random) -> Question | None:
    spans = life_spans(scene)
    if not spans:
        return None
    what, (start, end), _ = rng.choice(spans)
    thinking = f"{what.capitalize()} is seen from {seconds_text(start)} to {seconds_text(end)} seconds."
    return Question(f"For how many seconds is {what} visible?", seconds_text(end - start), thinking)


def _estimate_way(scene: Scene, rng: random.Random) -> Question | None:
    moving = [shape for shape in scene.shapes if shape.moves]
    if not moving:
        return None
    shape = rng.choice(moving)
    axis = 0 if shape.direction in ("left", "right") else 1
    size = (scene.width, scene.height)[axis]
    begin, end = (round(100 * (spot[axis] + 0.5) / size) for spot in (shape.origin, shape.target))
    problem = f"How far does the {shape.name} move in percent of the frame {('width', 'height')[axis]}?"
    return Question(problem, str(abs(end - begin)), f"It moves {shape.direction} from {begin} to {end}.")


# ---------------------------------------------------------------- math and OCR


def _price_shapes(scene: Scene, rng: random.Random) -> Question | None:
    kind = rng.choice(scene.shapes).shape
    price, other = rng.sample(range(1, 6), 2)
    count = sum(shape.shape == kind for shape in scene.shapes)
    rest = len(scene.shapes) - count
    problem = f"Each {kind} is worth {price} and any other object {other}. What is the total?"
    thinking = f"I see {counted(count, kind)} and {counted(rest, 'other')}. "
    thinking += f"{count} * {price} + {rest} * {other} = {count * price + rest * other}."
    return Question(problem, str(count * price + rest * other), thinking)


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


def _spell(text: str) -> str:
    return f"The {'digits' if text.isdigit() else 'letters'} are {' '.join(text)}."


def _read_print(scene: Scene, rng: random.Random) -> Question | None:
    texts = [printed.text for printed in scene.prints]
    if len(texts) > 1 and rng.random() < 0.4:
        texts = [rng.choice(texts)]
    what = "text" if len(texts) > 1 else "number" if texts[0].isdigit() else "word"
    return Question(f"Read the printed {what}.", " ".join(texts), " ".join(_spell(text) for text in texts))


def _read_sum(scene: Scene, rng: random.Random) -> Question | None:
    left, sign, right = scene.prints[0].text.split()
    word = "plus" if sign == "+" else "minus"
    return Question("Read the printed sum.", scene.prints[0].text, f"It is {left} {word} {right}.")


def _read_turns(scene: Scene, rng: random.Random) -> Question | None:
    texts = [printed.text for printed in scene.prints]
    draw = rng.random()
    if draw < 0.5:
        thinking = f"First {_spell(texts[0])[0].lower()}{_spell(texts[0])[1:]} Then {' '.join(texts[1])}."
        return Question("Read the texts in the order shown.", " ".join(texts), thinking)
    position = 0 if draw < 0.75 else 1
    return Question(
        f"Read the text shown {('first', 'last')[position]}.", texts[position], _spell(texts[position])
    )


# ---------------------------------------------------------------- open-ended


def list_objects(scene: Scene) -> Question:
    """A caption that is nothing but what is to be seen."""
    return Question("List the objects.", inventory(scene), "I look row by row.")


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
    spots = [scenes.place(scene, shape, 0.0) for shape in scene.shapes]
    clear = [shape for shape in clear if spots.count(scenes.place(scene, shape, 0.0)) == 1]
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
    thinking = f"I see {listed(with_article(other.name) for other in scene.shapes)}. "
    thinking += f"The {word} is {whereabouts(scene, shape)}."
    return Question(f"What object is the {word}?", f"the {shape.size} {shape.name}", thinking)


def _caption_video(scene: Scene, rng: random.Random) -> Question | None:
    order = sorted(scene.shapes, key=lambda shape: (shape.life, shape.name))
    if len(order) > 3:
        return None
    items = [f"the {shape.name} {listed(deeds(scene, shape))}" for shape in order]
    answer = "; ".join(items)
    thinking = f"There are {NUMBER_WORDS[len(items)]} objects: {listed(shape.name for shape in order)}."
    return Question("Describe what happens.", f"{answer[0].upper()}{answer[1:]}.", thinking)


def _tell_deed(scene: Scene, rng: random.Random) -> Question | None:
    shape = rng.choice(scene.shapes)
    begin, end = whereabouts(scene, shape, shape.life[0]), whereabouts(scene, shape, shape.life[1])
    thinking = f"The {shape.name} is first {begin} and last {end}."
    return Question(f"What does the {shape.name} do?", f"it {listed(deeds(scene, shape))}", thinking)


_IN_TEXT: QuestionTable = {
    "multiple choice": {
        "image": {
            "shapes": Asked(
                7, ((1, _choose_colour), (1, _choose_shape), (1, _choose_place), (1, _choose_extreme))
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
    "numerical": {
        "image": {
            "shapes": Asked(5, ((1, _count_all), (2, _count_kind), (2, _count_beside))),
            "words": Asked(1, ((1, _read_number),)),
        },
        "video": {
            "shapes": Asked(4, ((2, _count_moment), (1, _count_moving), (1, _count_kind))),
            "words": Asked(1, ((1, _read_number),)),
        },
    },
    "regression": {
        "image": {
            "shapes": Asked(4, ((1, _estimate_extent), (1, _estimate_position))),
        },
        "video": {
            "shapes": Asked(4, ((1, _estimate_stay), (1, _estimate_way))),
        },
    },
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
    "open-ended": {
        "image": {
            "shapes": Asked(6, ((1, _caption_image), (1, _name_place), (0.5, _name_extreme))),
        },
        "video": {
            "shapes": Asked(5, ((1, _caption_video), (1, _tell_deed))),
        },
    },
}

QUESTIONS: Mapping[Task, Mapping[str, Asked]] = complete(
    "shapes/questions.py",
    {
        Task(problem_type, medium): kinds
        for problem_type, media in {**_IN_TEXT, **IN_JSON}.items()
        for medium, kinds in media.items()
    },
    (task for task in TASKS if task.medium != "text"),  # every question is about a scene
)
"""Task -> kind of scene -> the share of the records that it has, and who makes its questions."""
