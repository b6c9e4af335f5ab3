"""Questions of the Photos world whose answer is a number: counted, read or estimated."""

import random
from collections.abc import Sequence

from onethinker_jax.data_pipeline.photos.questions.phrases import extent, life_spans, names_here, whole_ones
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene, Sprite
from onethinker_jax.data_pipeline.worlds.english import listed, seconds_text, sentence, span_words
from onethinker_jax.data_pipeline.worlds.groundings import box_at
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable
from onethinker_jax.data_pipeline.worlds.stage import place_sentence, whereabouts


def _numbered(items: Sequence[str]) -> str:
    return ", ".join(f"{i} {item}" for i, item in enumerate(items, 1)) + "." if items else "None."


def _among(scene: PhotoScene, rng: random.Random) -> list[str]:
    """Names that are there and names that are not, in random order: what a count is asked among."""
    names = [*names_here(scene), *scene.others[: rng.choice((1, 2, 2, 3))]]
    rng.shuffle(names)
    return names


def _count_copies(scene: PhotoScene, rng: random.Random) -> Question | None:
    sprite = rng.choice(scene.sprites)
    spots = [whereabouts(scene, other) for other in scene.sprites if other.name == sprite.name]
    return Question(
        f"In how many places is there {sprite.phrase}?", str(len(spots)), f"I look for it: {_numbered(spots)}"
    )


def _count_present(scene: PhotoScene, rng: random.Random) -> Question | None:
    names = _among(scene, rng)
    here = [name for name in names if name in names_here(scene)]
    what = "video" if scene.duration else "picture"
    problem = f"How many of these are in the {what}: {listed(names)}?"
    return Question(problem, str(len(here)), f"Those I find are: {_numbered(here)}")


def _count_beside(scene: PhotoScene, rng: random.Random) -> Question | None:
    if len(scene.sprites) < 2:
        return None
    sprite, (sign, words) = rng.choice(scene.sprites), rng.choice(((-1, "left of"), (1, "right of")))
    others = [other for other in scene.sprites if other is not sprite]
    gaps = {other.name: (other.origin[0] - sprite.origin[0]) * sign for other in others}
    if any(abs(gap) < 0.06 * scene.width for gap in gaps.values()):
        return None
    names = [name for name in _among(scene, rng) if name != sprite.name]
    there = [name for name in names if gaps.get(name, -1) > 0]
    problem = f"How many of these are {words} {sprite.definite}: {listed(names)}?"
    thinking = f"{place_sentence(scene, sprite)} {sentence(words)} it: {_numbered(there)}"
    return Question(problem, str(len(there)), thinking)


def _count_moment(scene: PhotoScene, rng: random.Random) -> Question | None:
    time = rng.choice((0.0, scene.duration - 0.5, *(float(s) for s in range(1, int(scene.duration)))))
    shares = [scene.visible_share(i, time) for i, sprite in enumerate(scene.sprites) if sprite.present(time)]
    if any(share < 0.2 for share in shares):
        return None
    names = _among(scene, rng)
    here = {sprite.name for sprite in scene.sprites if sprite.present(time)}
    there = [name for name in names if name in here]
    problem = f"How many of these are visible at {seconds_text(time)} seconds: {listed(names)}?"
    return Question(problem, str(len(there)), f"At {seconds_text(time)} seconds I see: {_numbered(there)}")


def _count_moving(scene: PhotoScene, rng: random.Random) -> Question | None:
    moving = [sprite.name for sprite in scene.sprites if sprite.moves]
    names = names_here(scene)
    problem = f"How many of these move from one place to another: {listed(names)}?"
    return Question(problem, str(len(moving)), f"Those that move: {_numbered(moving)}")


def _count_shots(scene: PhotoScene, rng: random.Random) -> Question | None:
    names = [shot.name for shot in scene.shots]
    return Question(
        "How many shots is the video made of?", str(len(names)), f"I see in turn: {_numbered(names)}"
    )


def _count_sprites(scene: PhotoScene, rng: random.Random) -> Question | None:
    what = {
        "coins": "coins are pasted into the picture",
        "digits": "slips with a handwritten digit are there",
    }[scene.kind]
    spots = [whereabouts(scene, sprite) for sprite in scene.sprites]
    return Question(f"How many {what}?", str(len(spots)), f"From left to right: {_numbered(spots)}")


def _count_labels(scene: PhotoScene, rng: random.Random) -> Question | None:
    labels = [sprite.said for sprite in scene.sprites]
    return Question(
        "How many divisions of the map are labelled?", str(len(labels)), f"I read: {_numbered(labels)}"
    )


def _largest_digit(scene: PhotoScene, rng: random.Random) -> Question | None:
    values = [sprite.worth for sprite in scene.sprites]
    if len(values) < 2:
        return None
    word, value = rng.choice((("largest", max(values)), ("smallest", min(values))))
    thinking = f"The digits are {listed(map(str, values))}."
    return Question(f"What is the {word} handwritten digit?", str(value), thinking)


def _read_number(scene: PhotoScene, rng: random.Random) -> Question | None:
    numbers = [sprite for sprite in scene.sprites if sprite.said.isdigit()]
    if not numbers:
        return None
    plate = rng.choice(numbers)
    return Question(
        f"What number is on {plate.definite}?", plate.said, f"The digits are {' '.join(plate.said)}."
    )


# ---------------------------------------------------------------- estimates


def _named(scene: PhotoScene, sprite: Sprite) -> str:
    return f"the division {sprite.said}" if scene.kind == "map" else sprite.definite


def _estimate_extent(scene: PhotoScene, rng: random.Random) -> Question | None:
    whole = whole_ones(scene)
    if not whole:
        return None
    index, axis = rng.choice(whole), rng.choice((0, 1))
    sprite, box = scene.sprites[index], box_at(scene, index, 0.0)
    side, word = ("width", "wide") if axis == 0 else ("height", "tall")
    problem = f"How {word} is {_named(scene, sprite)} in percent of the picture's {side}?"
    thinking = f"It spans {box[axis]} to {box[axis + 2]} of 1000."
    return Question(problem, str(round(extent(scene, index, axis))), thinking)


def _estimate_area(scene: PhotoScene, rng: random.Random) -> Question | None:
    """The share of the picture, in percent with one decimal, that what is seen of it covers."""
    index = rng.randrange(len(scene.sprites))
    share = 100 * float(scene.visible_mask(index, 0.0).mean())
    if share < 1:
        return None
    sprite = scene.sprites[index]
    wide, tall = (round(extent(scene, index, axis)) for axis in (0, 1))
    problem = f"How many percent of the picture does {_named(scene, sprite)} cover?"
    thinking = f"Its box is {wide} percent wide and {tall} percent tall, and it fills a part of that."
    return Question(problem, f"{share:.1f}", thinking)


def _estimate_ratio(scene: PhotoScene, rng: random.Random) -> Question | None:
    """How many times as tall as another one something is; two decimals are not read off, so one is asked."""
    whole = whole_ones(scene)
    if len(whole) < 2:
        return None
    one, other = rng.sample(list(whole), 2)
    tall, small = extent(scene, one, 1), extent(scene, other, 1)
    if tall < small:
        one, other, tall, small = other, one, small, tall
    names = _named(scene, scene.sprites[one]), _named(scene, scene.sprites[other])
    problem = f"How many times as tall as {names[1]} is {names[0]} in the picture?"
    thinking = f"{sentence(names[0])} is {tall:.0f} percent tall, {names[1]} {small:.0f} percent."
    return Question(problem, f"{tall / small:.1f}", thinking)


def _estimate_position(scene: PhotoScene, rng: random.Random) -> Question | None:
    sprite, axis = rng.choice(scene.sprites), rng.choice((0, 1))
    side, edge = ("width", "left edge") if axis == 0 else ("height", "top")
    share = (sprite.origin[axis] + 0.5) / (scene.width, scene.height)[axis]
    problem = (
        f"How far is the centre of {sprite.definite} from the {edge} in percent of the picture's {side}?"
    )
    return Question(problem, str(round(100 * share)), place_sentence(scene, sprite))


def _estimate_stay(scene: PhotoScene, rng: random.Random) -> Question | None:
    spans = life_spans(scene)
    if not spans:
        return None
    what, (start, end), verb = rng.choice(spans)
    thinking = f"{sentence(what)} is {verb} {span_words(start, end)} seconds."
    return Question(f"For how many seconds is {what} {verb}?", seconds_text(end - start), thinking)


def _estimate_way(scene: PhotoScene, rng: random.Random) -> Question | None:
    moving = [sprite for sprite in scene.sprites if sprite.moves]
    if not moving:
        return None
    sprite = rng.choice(moving)
    begin, end = (round(100 * (spot[0] + 0.5) / scene.width) for spot in (sprite.origin, sprite.target))
    problem = f"How far does {sprite.definite} move in percent of the frame's width?"
    return Question(problem, str(abs(end - begin)), f"It moves {sprite.direction} from {begin} to {end}.")


AMOUNTS: QuestionTable = {
    "numerical": {
        "image": {
            "objects": Asked(2, ((1, _count_present), (1, _count_beside))),
            "herd": Asked(2, ((1, _count_copies),)),
            "coins": Asked(1, ((1, _count_sprites),)),
            "digits": Asked(1, ((1, _count_sprites), (1, _largest_digit))),
            "map": Asked(0.5, ((1, _count_labels),)),
        },
        "video": {
            "objects": Asked(3, ((2, _count_moment), (1, _count_moving), (1, _count_present))),
            "shots": Asked(1, ((1, _count_shots),)),
            "words": Asked(1, ((1, _read_number),)),
        },
    },
    "regression": {
        "image": {
            "objects": Asked(
                3, ((1, _estimate_extent), (1, _estimate_area), (1, _estimate_ratio), (1, _estimate_position))
            ),
            "map": Asked(1, ((1, _estimate_extent), (1, _estimate_area))),
        },
        "video": {
            "objects": Asked(2.5, ((1, _estimate_stay), (1, _estimate_way))),
            "shots": Asked(1.5, ((1, _estimate_stay),)),
        },
    },
}
