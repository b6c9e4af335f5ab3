"""Scenes that are a whole picture: one named photograph, a map, a video of spliced shots."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.photos.library import Clip, Division, Map, Photo
from onethinker_jax.data_pipeline.photos.scenes import pictures
from onethinker_jax.data_pipeline.photos.scenes.placing import RATES
from onethinker_jax.data_pipeline.photos.scenes.pools import Pools, phrase_of_view, told_apart
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene, Shot, Sprite
from onethinker_jax.data_pipeline.worlds.groundings import Span

LEAST_DIVISION = 350
"""Pixels of a division that is asked about."""
_LONGEST_LABEL = 16
_LIT = 0.75  # of a label's pixels that must lie on its division
_STILL: dict[str, Any] = {"life": (0.0, 0.0), "move": (0.0, 0.0)}


def picture_of_view(rng: random.Random, pools: Pools, side: int) -> PhotoScene:
    """One named photograph; `others` are names of the same group where there are enough of them."""
    photo = rng.choice(pools.views[rng.choice(sorted(pools.views))])
    image = pictures.photo(pools.path(photo))
    factor = min(1.0, side / max(image.size))
    width, height = (max(2, round(v * factor / 2) * 2) for v in image.size)
    title = photo.name or ""
    far = [name for name in sorted(pools.views) if told_apart(name, title)]
    near = [name for name in far if pools.views[name][0].group == photo.group]
    return PhotoScene(
        pictures.fill(image, (width, height))[None],
        kind="view",
        width=width,
        height=height,
        title=title,
        text=photo.text or "",
        others=tuple(near if len(near) >= 3 else far),
        identities=(photo.identity,),
    )


# ---------------------------------------------------------------- maps


def picture_of_map(rng: random.Random, pools: Pools, side: int) -> PhotoScene | None:
    """A map on which some divisions are labelled with their names; those are the actors."""
    drawn = rng.choice(pools.maps)
    labelled = _labelled(rng, pools, _shrunk(pictures.map_image(pools.path(drawn)), side), drawn)
    if labelled is None:
        return None
    sprites, picture = labelled
    return PhotoScene(
        picture[None],
        sprites,
        kind="map",
        width=picture.shape[1],
        height=picture.shape[0],
        title=drawn.title,
        others=tuple(other.title for other in pools.maps if told_apart(other.title, drawn.title)),
        identities=(drawn.identity,),
    )


def _shrunk(image: Image.Image, side: int) -> np.ndarray:
    """A map no larger than `side`, in its own colours: uint8 [H, W, 3] with even sides."""
    factor = min(1.0, side / max(image.size))
    size = max(2, round(image.width * factor / 2) * 2), max(2, round(image.height * factor / 2) * 2)
    return np.asarray(image.resize(size, Image.Resampling.NEAREST))


def _labelled(
    rng: random.Random, pools: Pools, pixels: np.ndarray, drawn: Map
) -> tuple[tuple[Sprite, ...], np.ndarray] | None:
    """2-4 divisions with room for their names, and the map with these written on it; None without two."""
    picture = Image.fromarray(pixels)
    chosen = rng.choice(pools.fonts)
    path = None if chosen is None else pools.path(chosen)
    sprites: list[Sprite] = []
    wanted = rng.choice((2, 3, 3, 4))
    for division in rng.sample(drawn.divisions, len(drawn.divisions)):
        if len(sprites) == wanted:
            break
        name = division.name
        if len(name) > _LONGEST_LABEL or not name.isascii() or name in [sprite.said for sprite in sprites]:
            continue
        mask = (pixels == division.colour).all(-1)
        label = pictures.written(name, path, 12, (0, 0, 0), halo=(255, 255, 255))
        spot = _room_for(mask, label)
        if spot is not None:
            picture.paste(label, spot, label)
            sprites.append(_division(division, drawn, mask))
    return (tuple(sprites), np.asarray(picture)) if len(sprites) >= 2 else None


def _room_for(mask: np.ndarray, label: Image.Image) -> tuple[int, int] | None:
    """The left top pixel at which most of a label lies on a division, of these the nearest to the division's middle.

    None where that is less than `_LIT` of the label.
    """
    height, width = mask.shape
    if mask.sum() < LEAST_DIVISION or label.width > width or label.height > height:
        return None
    sums = np.pad(mask.astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    high, wide = label.height, label.width
    lit = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    if lit.max() < _LIT * high * wide:
        return None
    tops, lefts = np.nonzero(lit == lit.max())
    rows, columns = np.nonzero(mask)
    away = (tops + high / 2 - rows.mean()) ** 2 + (lefts + wide / 2 - columns.mean()) ** 2
    nearest = int(away.argmin())
    return int(lefts[nearest]), int(tops[nearest])


def _division(division: Division, drawn: Map, mask: np.ndarray) -> Sprite:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    alpha = 255 * mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    high, wide = alpha.shape
    spot = int(columns[0]) + wide // 2, int(rows[0]) + high // 2
    return Sprite(
        f"division labelled {division.name}",
        alpha,
        None,
        identity=drawn.identity,
        phrase=f"the division labelled {division.name}",
        said=division.name,
        origin=spot,
        target=spot,
        **_STILL,
    )


# ---------------------------------------------------------------- spliced videos


def video_of_shots(rng: random.Random, pools: Pools, side: int) -> PhotoScene:
    """2-4 shots one after another, cut at half seconds: clips, and photographs that the camera moves over."""
    fps, size = rng.choice(RATES), (side // 2 * 2, round(side * rng.choice((0.75, 0.5625)) / 2) * 2)
    wanted, names = rng.choice((2, 3, 3, 4)), list[str]()
    if pools.films and rng.random() < 0.75:
        names.append(rng.choice(sorted(pools.films)))
    every = sorted({*pools.views, *pools.films})
    for name in rng.sample(every, len(every)):
        if len(names) < wanted and all(told_apart(name, other) for other in names):
            names.append(name)
    rng.shuffle(names)
    items = {name: rng.choice((pools.films if name in pools.films else pools.views)[name]) for name in names}
    shots: list[Shot] = []
    frames: list[np.ndarray] = []
    for name in names:
        length, item = rng.randint(2, 5) / 2, items[name]
        if isinstance(item, Clip):
            length = max(1.0, min(length, int(2 * pictures.clip_length(pools.path(item))) / 2))
        start = shots[-1].end if shots else 0.0
        shots.append(Shot(said_of(item), start, start + length))
        frames.append(_shot(rng, pools, item, round(length * fps), fps, size))
    return PhotoScene(
        np.concatenate(frames),
        kind="shots",
        width=size[0],
        height=size[1],
        duration=shots[-1].end,
        fps=fps,
        shots=tuple(shots),
        others=tuple(
            said_of((pools.films if name in pools.films else pools.views)[name][0])
            for name in every
            if all(told_apart(name, other) for other in names)
        ),
        identities=tuple(items[name].identity for name in names),
    )


def said_of(item: Photo | Clip) -> str:
    """What a shot shows, in words that stand in a sentence: "a photograph of an owl", "a film of a street"."""
    if isinstance(item, Clip):
        return f"a film of {item.name}"
    return f"a photograph of {phrase_of_view(item.name or '')}"


def _shot(
    rng: random.Random, pools: Pools, item: Photo | Clip, count: int, fps: int, size: tuple[int, int]
) -> np.ndarray:
    path = pools.path(item)
    if isinstance(item, Clip):
        last = max(0.0, pictures.clip_length(path) - count / fps)
        return pictures.clip_frames(path, rng.randint(0, int(last)), count, fps, size)
    image = pictures.photo(path)
    large = round(size[0] * 1.12), round(size[1] * 1.12)
    whole = pictures.fill(image, large, down=0.3)  # what counts is rarely at the foot of a high picture
    right, down = large[0] - size[0], large[1] - size[1]
    ends = rng.sample(((0, 0), (right, 0), (0, down), (right, down)), 2)
    return np.stack([_window(whole, size, ends, step / max(1, count - 1)) for step in range(count)])


def _window(
    whole: np.ndarray, size: tuple[int, int], ends: Sequence[tuple[int, int]], share: float
) -> np.ndarray:
    (x0, y0), (x1, y1) = ends
    x, y = round(x0 + (x1 - x0) * share), round(y0 + (y1 - y0) * share)
    return whole[y : y + size[1], x : x + size[0]]


def shot_spans(scene: PhotoScene) -> list[Span]:
    """The spans of the shots; a shot's last frame is the one before the next shot's first."""
    return [(shot.name, (shot.start, shot.end), "shown") for shot in scene.shots]
