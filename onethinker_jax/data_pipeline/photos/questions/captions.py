"""Open-ended questions of the Photos world: captions of what was pasted, published texts of what is photographed."""

import random
import re

from onethinker_jax.data_pipeline.photos.questions.phrases import lone_place
from onethinker_jax.data_pipeline.photos.scenes.pools import phrase_of_view
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.english import NUMBER_WORDS, listed, sentence
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable
from onethinker_jax.data_pipeline.worlds.stage import deeds, whereabouts

PASTED = "Which objects are pasted into the picture, and where?"
LONGEST_TEXT = 40
"""Words of a published text that an answer holds at most: as many whole sentences as fit."""


def _caption_image(scene: PhotoScene, rng: random.Random) -> Question | None:
    order = sorted(scene.sprites, key=lambda sprite: sprite.origin)
    items = [f"{sprite.phrase} {whereabouts(scene, sprite)}" for sprite in order]
    verb = "is" if len(items) == 1 else "are"
    count = NUMBER_WORDS[len(items)]
    thinking = f"From left to right there {verb} {count}: {listed(sprite.name for sprite in order)}."
    return Question(PASTED, sentence(listed(items)) + ".", thinking)


def _name_place(scene: PhotoScene, rng: random.Random) -> Question | None:
    sprite = lone_place(scene, rng)
    if sprite is None:
        return None
    where = whereabouts(scene, sprite)
    thinking = f"I look {where}. There is {sprite.phrase}."
    bare = len(sprite.caption.split()) < 2  # ROUGE-2 has nothing to compare in one word
    answer = f"It is {sprite.phrase}." if bare else sprite.caption
    return Question(f"Which pasted object is {where}?", answer, thinking)


def _caption_herd(scene: PhotoScene, rng: random.Random) -> Question | None:
    names = list(dict.fromkeys(sprite.name for sprite in scene.sprites))
    counts = {name: sum(sprite.name == name for sprite in scene.sprites) for name in names}
    phrases = {sprite.name: sprite.phrase for sprite in scene.sprites}
    items = [
        f"{phrases[n]} {('once', 'twice')[counts[n] - 1] if counts[n] < 3 else f'{NUMBER_WORDS[counts[n]]} times'}"
        for n in names
    ]
    problem = "Which objects are pasted into the picture, and how often?"
    return Question(problem, sentence(listed(items)) + ".", "I count each of them.")


def _tell_view(scene: PhotoScene, rng: random.Random) -> Question | None:
    """The published text, its first sentences; None without one."""
    text = short_form(scene.text)
    if not text:
        return None
    return Question(
        "What is this, and what is worth knowing of it?", text, f"The photograph shows this: {scene.title}."
    )


def _name_view(scene: PhotoScene, rng: random.Random) -> Question | None:
    return Question(
        "What does the photograph show?",
        f"It shows {phrase_of_view(scene.title)}.",
        "I look at the whole photograph.",
    )


def short_form(text: str) -> str:
    """The first whole sentences of a text that have no more than `LONGEST_TEXT` words; "" if there is none."""
    kept: list[str] = []
    for part in re.split(r"(?<=[.!?]) +(?=[A-Z])", " ".join(text.split())):
        if len(" ".join([*kept, part]).split()) > LONGEST_TEXT:
            break
        kept.append(part)
    return " ".join(kept)


def _caption_video(scene: PhotoScene, rng: random.Random) -> Question | None:
    order = sorted(scene.sprites, key=lambda sprite: (sprite.life, sprite.name))
    items = [f"{sprite.definite} {listed(deeds(scene, sprite))}" for sprite in order]
    thinking = f"There are {NUMBER_WORDS[len(items)]} things: {listed(sprite.name for sprite in order)}."
    return Question("What do the pasted objects do?", sentence("; ".join(items)) + ".", thinking)


def _tell_deed(scene: PhotoScene, rng: random.Random) -> Question | None:
    sprite = rng.choice(scene.sprites)
    begin, end = whereabouts(scene, sprite, sprite.life[0]), whereabouts(scene, sprite, sprite.life[1])
    thinking = f"{sentence(sprite.definite)} is first {begin} and last {end}."
    return Question(f"What does {sprite.definite} do?", f"it {listed(deeds(scene, sprite))}", thinking)


def _caption_shots(scene: PhotoScene, rng: random.Random) -> Question | None:
    names = [shot.name for shot in scene.shots]
    answer = f"First {names[0]}, then {', then '.join(names[1:])}."
    thinking = f"The video has {NUMBER_WORDS[len(names)]} shots."
    return Question("Describe what is shown, in order.", answer, thinking)


CAPTIONS: QuestionTable = {
    "open-ended": {
        "image": {
            "objects": Asked(3, ((1, _caption_image), (1, _name_place))),
            "herd": Asked(1, ((1, _caption_herd),)),
            "view": Asked(2, ((1, _tell_view), (1, _name_view))),
        },
        "video": {
            "objects": Asked(3, ((1, _caption_video), (1, _tell_deed))),
            "shots": Asked(2, ((1, _caption_shots),)),
        },
    },
}
