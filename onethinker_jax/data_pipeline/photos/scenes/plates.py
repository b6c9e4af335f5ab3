"""Scenes of things to be read on a photograph: words on coloured plates, handwritten digits on slips, coins."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from onethinker_jax.data_pipeline.photos.scenes import pictures
from onethinker_jax.data_pipeline.photos.scenes.placing import (
    DURATIONS,
    RATES,
    Frame,
    frame_size,
    photo_frame,
    video_frame,
)
from onethinker_jax.data_pipeline.photos.scenes.pools import Pools, phrase_of_coin
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene, Sprite

PLATES = {
    "yellow": ((246, 206, 52), (20, 20, 20)),
    "white": ((244, 244, 240), (20, 20, 20)),
    "blue": ((26, 70, 160), (250, 250, 250)),
    "red": ((178, 28, 36), (250, 250, 250)),
    "green": ((20, 104, 60), (250, 250, 250)),
    "black": ((18, 18, 20), (250, 250, 250)),
}
"""Colours of plates and of what is written on them."""
SLIP, PEN = (250, 247, 238), (24, 32, 84)
_STILL: dict[str, Any] = {"life": (0.0, 0.0), "move": (0.0, 0.0), "origin": (0, 0), "target": (0, 0)}


def picture_to_read(rng: random.Random, pools: Pools, side: int, kind: str) -> PhotoScene | None:
    """A picture of a kind of `TO_READ`."""
    frame = photo_frame(rng, pools, frame_size(rng, side), rng.choice(pools.backdrops))
    sprites, unit = TO_READ[kind](rng, pools, frame)
    placed = _scattered(rng, frame, sprites)
    return None if placed is None else _scene(pools, kind, frame, placed, unit)


def video_to_read(rng: random.Random, pools: Pools, side: int, kind: str) -> PhotoScene | None:
    """A video of two words, or of two handwritten digits, in turn on a photograph or a clip."""
    duration, fps = rng.choice(DURATIONS), rng.choice(RATES)
    size = frame_size(rng, side)
    frame = video_frame(rng, pools, size, duration, fps, pools.backdrops)
    sprites, unit = (_words if kind == "words" else _digits)(rng, pools, frame, count=2)
    placed = [one for sprite in sprites for one in _scattered(rng, frame, [sprite]) or ()]
    turn = rng.randint(3, round(2 * duration) - 3) / 2  # the first is last seen at `turn` seconds
    lives = (
        (rng.choice((0.0, 0.0, 0.5)), turn),
        (turn + 0.5, rng.choice((duration, duration, duration - 0.5))),
    )
    if len(placed) < 2:
        return None
    shown = tuple(replace(one, life=life, move=life) for one, life in zip(placed, lives, strict=True))
    return _scene(pools, kind, frame, shown, unit, duration=duration, fps=fps)


def _scene(
    pools: Pools, kind: str, frame: Frame, sprites: tuple[Sprite, ...], unit: str, **video: Any
) -> PhotoScene:
    said = {sprite.said for sprite in sprites}
    others = tuple(word for word in pools.words if word not in said)
    return PhotoScene(
        frame.backdrop,
        sprites,
        kind=kind,
        width=frame.width,
        height=frame.height,
        others=others,
        unit=unit,
        identities=(frame.identity,),
        **video,
    )


Drawn = tuple[list[Sprite], str]
"""What is to be placed, and the unit of its worth."""


def _words(rng: random.Random, pools: Pools, frame: Frame, count: int = 0) -> Drawn:
    """Plates of different colours, each with a word or a number."""
    texts: list[str] = rng.sample(pools.words, count or rng.choice((1, 2, 2)))
    if rng.random() < 0.45:
        texts[-1] = str(rng.randint(10, 99) if rng.random() < 0.6 else rng.randint(100, 999))
        if count and rng.random() < 0.6:  # two numbers in turn, to be added
            texts = [str(rng.randint(1, 29)), str(rng.randint(1, 29))]
    colours = rng.sample(sorted(PLATES), len(texts))
    return [_plate(rng, pools, frame, *one) for one in zip(texts, colours, strict=True)], ""


def _plate(rng: random.Random, pools: Pools, frame: Frame, text: str, colour: str) -> Sprite:
    ground, paint = PLATES[colour]
    chosen = rng.choice(pools.fonts)
    high = round(frame.height * rng.uniform(0.11, 0.16))
    ink = pictures.written(text, None if chosen is None else pools.path(chosen), high, paint)
    wide = round(0.6 * frame.width)
    if ink.width > wide:
        ink = ink.resize((wide, max(1, round(ink.height * wide / ink.width))), Image.Resampling.LANCZOS)
    margin = max(5, high // 4)
    plate = Image.new("RGBA", (ink.width + 2 * margin, ink.height + 2 * margin), (*ground, 255))
    plate = ImageOps.expand(
        ImageOps.crop(plate, 1), 1, fill=(*paint, 255)
    )  # seen on a ground of its own colour
    plate.alpha_composite(ink, (margin, margin))
    pixels = np.asarray(plate)
    return Sprite(
        f"{colour} plate",
        pixels[..., 3],
        pixels[..., :3],
        identity="" if chosen is None else chosen.identity,
        phrase=f"a {colour} plate",
        said=text,
        worth=int(text) if text.isdigit() else 0,
        **_STILL,
    )


def _digits(rng: random.Random, pools: Pools, frame: Frame, count: int = 0) -> Drawn:
    """Slips of paper, each with a handwritten digit."""
    chosen = rng.sample(pools.digits, count or rng.choice((1, 2, 2, 3, 3, 4)))
    side = round(frame.height * rng.uniform(0.16, 0.24))
    made = []
    for number, digit in enumerate(chosen, 1):
        ink = np.asarray(
            pictures.ink(pools.path(digit)).resize((side, side), Image.Resampling.BICUBIC), np.uint16
        )
        share = ink[..., None]
        pixels = (np.array(PEN) * share + np.array(SLIP) * (255 - share) + 127) // 255
        opaque = np.full((side, side), 255, np.uint8)
        made.append(
            Sprite(
                f"slip {number}",
                opaque,
                pixels.astype(np.uint8),
                identity=digit.identity,
                phrase="a slip of paper",
                said=str(digit.value),
                worth=digit.value,
                **_STILL,
            )
        )
    return made, ""


def _coins(rng: random.Random, pools: Pools, frame: Frame) -> Drawn:
    """1-4 coins of one currency; the same coin may lie there twice."""
    kind = rng.choice(sorted(pools.coins))
    side = round(min(frame.width, frame.height) * rng.uniform(0.2, 0.26))
    made = []
    for coin in rng.choices(pools.coins[kind], k=rng.choice((1, 2, 2, 3, 3, 4))):
        image = pictures.cutout(pools.path(coin))
        rgb, alpha = pictures.scaled(image, (max(1, round(image.width * side / image.height)), side))
        made.append(
            Sprite(
                coin.name,
                alpha,
                rgb,
                identity=coin.identity,
                phrase=phrase_of_coin(coin),
                worth=coin.value,
                **_STILL,
            )
        )
    return made, kind[0]


TO_READ: dict[str, Callable[..., Drawn]] = {"words": _words, "digits": _digits, "coins": _coins}
"""Kind of scene -> what is drawn for it."""


def _scattered(rng: random.Random, frame: Frame, sprites: list[Sprite]) -> tuple[Sprite, ...] | None:
    """The sprites where none covers another, from left to right; None where they do not fit."""
    for _ in range(60):
        placed: list[tuple[int, int, Sprite]] = []
        for sprite in sprites:
            high, wide = sprite.alpha.shape
            if high > frame.height - 4 or wide > frame.width - 4:
                return None
            left, top = rng.randint(2, frame.width - 2 - wide), rng.randint(2, frame.height - 2 - high)
            if all(_clear(left, top, sprite, *other) for other in placed):
                placed.append((left, top, sprite))
        if len(placed) == len(sprites):
            return tuple(
                replace(sprite, origin=_middle(left, top, sprite), target=_middle(left, top, sprite))
                for left, top, sprite in sorted(placed, key=lambda one: one[:2])
            )
    return None


def _middle(left: int, top: int, sprite: Sprite) -> tuple[int, int]:
    high, wide = sprite.alpha.shape
    return left + wide // 2, top + high // 2


def _clear(left: int, top: int, sprite: Sprite, x: int, y: int, other: Sprite) -> bool:
    """Whether two sprites are apart, and it is clear which of their middles is further left."""
    (high, wide), (tall, broad) = sprite.alpha.shape, other.alpha.shape
    apart = left + wide + 4 <= x or x + broad + 4 <= left or top + high + 4 <= y or y + tall + 4 <= top
    return apart and abs((left + wide / 2) - (x + broad / 2)) >= 0.6 * min(wide, broad)
