"""Multiple-choice questions of the Photos world. Wrong options are names of the scene's own split."""

import random

from onethinker_jax.data_pipeline.photos.questions.phrases import (
    extreme,
    lone_place,
    names_here,
    options_here,
)
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.choices import choose_place
from onethinker_jax.data_pipeline.worlds.english import listed, sentence, spell
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable, choice
from onethinker_jax.data_pipeline.worlds.stage import deeds, place_sentence, whereabouts


def _choose_present(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Which of four is there."""
    if len(scene.others) < 3:
        return None
    sprite = rng.choice(scene.sprites)
    seen = f"There is {sprite.phrase} {whereabouts(scene, sprite, sprite.life[0])}."
    what = "video" if scene.duration else "picture"
    return choice(rng, f"Which of these is in the {what}?", sprite.name, scene.others[:3], seen)


def _choose_at_place(scene: PhotoScene, rng: random.Random) -> Question | None:
    """What is in a ninth of the picture."""
    sprite, options = lone_place(scene, rng), options_here(scene)
    if sprite is None or len(options) < 4:
        return None
    where = whereabouts(scene, sprite)
    return choice(
        rng, f"Which of these is {where}?", sprite.name, options, f"What is {where} is {sprite.phrase}."
    )


def _choose_extreme(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Which is the largest, the leftmost …, of those that are there."""
    found = extreme(scene, rng)
    if found is None:
        return None
    word, sprite = found
    seen = f"I compare {listed(names_here(scene))}. The {word} is {sprite.definite}."
    return choice(rng, f"Which of these is the {word} in the picture?", sprite.name, names_here(scene), seen)


def _choose_beside(scene: PhotoScene, rng: random.Random) -> Question | None:
    """What alone is left or right of something, by the centres."""
    options = options_here(scene)
    if len(scene.sprites) < 2 or len(options) < 4:
        return None
    sprite, (sign, words) = rng.choice(scene.sprites), rng.choice(((-1, "left of"), (1, "right of")))
    gaps = [(other.origin[0] - sprite.origin[0]) * sign for other in scene.sprites]
    beside = [other for other, gap in zip(scene.sprites, gaps, strict=True) if gap > 0]
    if len(beside) != 1 or any(0 < abs(gap) < 0.06 * scene.width for gap in gaps):
        return None
    others = [name for name in options if name != sprite.name]
    seen = f"{place_sentence(scene, sprite)} {sentence(words)} it is {beside[0].phrase}."
    return choice(rng, f"Which of these is {words} {sprite.definite}?", beside[0].name, others, seen)


def _choose_most(scene: PhotoScene, rng: random.Random) -> Question | None:
    """What is there most often."""
    names, options = [sprite.name for sprite in scene.sprites], options_here(scene)
    counts = sorted(((names.count(name), name) for name in names_here(scene)), reverse=True)
    if len(options) < 4 or counts[0][0] < 2 or (len(counts) > 1 and counts[0][0] == counts[1][0]):
        return None
    seen = f"I see {counts[0][0]} of one kind: the {counts[0][1]}."
    return choice(rng, "Which of these is there most often?", counts[0][1], options, seen)


def _choose_view(scene: PhotoScene, rng: random.Random) -> Question | None:
    """What a photograph shows."""
    if len(scene.others) < 3:
        return None
    seen = f"I look at the photograph. It shows this: {scene.title}."
    return choice(rng, "What does this photograph show?", scene.title, scene.others, seen)


def _choose_map(scene: PhotoScene, rng: random.Random) -> Question | None:
    """What a map shows."""
    if len(scene.others) < 3:
        return None
    labels = listed(sprite.said for sprite in scene.sprites)
    return choice(
        rng, "What does this map show?", scene.title, scene.others, f"{labels} are in {scene.title}."
    )


def _choose_division(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Which labelled division is the largest, the leftmost and so on."""
    found = extreme(scene, rng)
    if found is None:
        return None
    word, sprite = found
    seen = f"The {word} of them is {sprite.said}."
    labels = [other.said for other in scene.sprites]
    return choice(rng, f"Which of the labelled divisions is the {word}?", sprite.said, labels, seen)


def _choose_written(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Which word is on a plate."""
    plates = [sprite for sprite in scene.sprites if sprite.said.isalpha()]
    if not plates or len(scene.others) < 3:
        return None
    plate = rng.choice(plates)
    wrong = [*(other.said for other in plates if other is not plate), *rng.sample(scene.others, 3)][:3]
    return choice(rng, f"Which word is on {plate.definite}?", plate.said, wrong, spell(plate.said))


def _choose_direction(scene: PhotoScene, rng: random.Random) -> Question | None:
    moving = [sprite for sprite in scene.sprites if sprite.moves]
    if not moving:
        return None
    sprite = rng.choice(moving)
    begin, end = whereabouts(scene, sprite, sprite.life[0]), whereabouts(scene, sprite, sprite.life[1])
    seen = f"{sentence(sprite.definite)} begins {begin} and ends {end}."
    wrong = ("left", "right", "up", "down")
    return choice(rng, f"Which way does {sprite.definite} move?", sprite.direction, wrong, seen)


def _choose_event(scene: PhotoScene, rng: random.Random) -> Question | None:
    verb = rng.choice(("appears", "vanishes", "moves"))
    doing = [s for s in scene.sprites if any(deed.startswith(verb) for deed in deeds(scene, s))]
    options = options_here(scene)
    if len(doing) != 1 or len(options) < 4:
        return None
    seen = f"{sentence(doing[0].definite)} {listed(deeds(scene, doing[0]))}."
    return choice(rng, f"Which of these {verb}?", doing[0].name, options, seen)


def _choose_turn(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Which shot comes first or last."""
    number, word = rng.choice(((0, "first"), (-1, "last")))
    names = [shot.name for shot in scene.shots]
    wrong = [
        *(name for name in names if name != names[number]),
        *rng.sample(scene.others, min(3, len(scene.others))),
    ]
    if len(wrong) < 3:
        return None
    seen = f"In order I see {listed(names)}."
    return choice(rng, f"What is shown {word}?", names[number], wrong[:3], seen)


CHOICES: QuestionTable = {
    "multiple choice": {
        "image": {
            "objects": Asked(
                3,
                (
                    (2, _choose_present),
                    (1, _choose_at_place),
                    (1, choose_place),
                    (1, _choose_extreme),
                    (1, _choose_beside),
                ),
            ),
            "herd": Asked(1, ((2, _choose_most), (1, _choose_present))),
            "view": Asked(2, ((1, _choose_view),)),
            "map": Asked(1, ((2, _choose_division), (1, _choose_map))),
            "words": Asked(1, ((1, _choose_written), (1, choose_place))),
        },
        "video": {
            "objects": Asked(4, ((2, _choose_direction), (2, _choose_event), (1, _choose_present))),
            "shots": Asked(3, ((1, _choose_turn),)),
        },
    },
}
