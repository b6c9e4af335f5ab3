"""Scenes of objects: cut-outs that stand on the ground of a photograph, larger the nearer they are; videos of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onethinker_jax.data_pipeline.photos.library import Cutout, Photo
from onethinker_jax.data_pipeline.photos.scenes import pictures
from onethinker_jax.data_pipeline.photos.scenes.pools import Pools, phrase_of, words_in, words_of_item
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene, Sprite

FLOATING = ("space",)
"""Groups of what has no ground below it."""
MIRRORED = ("animals", "food", "plants")
"""Groups of what carries no text and may be turned round."""
CLIP_GROUND = 0.55  # of the height: clips do not say where their ground begins
RATES = (4, 4, 6, 8)
DURATIONS = (4.0, 5.0, 5.0, 6.0, 8.0)
_ASPECTS = ((1.0, 0.75), (1.0, 0.75), (1.0, 0.5625), (0.75, 0.75), (0.75, 1.0))


@dataclass(frozen=True)
class Frame:
    """What a scene is drawn on: pixels of its sides, where its ground begins, its backdrop [N, H, W, 3].

    `words` are those of the backdrop's name: nothing that has one of them is pasted.
    """

    width: int
    height: int
    ground: int
    backdrop: np.ndarray
    words: frozenset[str]
    identity: str


def frame_size(rng: random.Random, side: int) -> tuple[int, int]:
    """Width and height of a frame whose longer side is `side` pixels or a little less; both even."""
    width, height = rng.choice(_ASPECTS)
    side = side if rng.random() < 0.7 else round(side * 0.8)
    return round(width * side / 2) * 2, round(height * side / 2) * 2


def photo_frame(rng: random.Random, pools: Pools, size: tuple[int, int], photo: Photo) -> Frame:
    """A photograph as a backdrop: its lower edge stays, its sides are cut at random."""
    image = pictures.photo(pools.path(photo))
    pixels = pictures.fill(image, size, across=rng.random())
    high = pictures.covering(image.size, size)[1]
    ground = round(photo.ground * high) - (high - size[1])
    words = words_of_item(photo) if photo.name else frozenset()
    return Frame(*size, max(ground, size[1] // 4), pixels[None], words, photo.identity)


def video_frame(
    rng: random.Random,
    pools: Pools,
    size: tuple[int, int],
    duration: float,
    fps: int,
    photos: Sequence[Photo],
) -> Frame:
    """A part of a clip, as fast as it was taken, where one is long enough, else or as often one of `photos`."""
    clips = [clip for clip in pools.clips if pictures.clip_length(pools.path(clip)) >= duration]
    if not clips or rng.random() < 0.6:
        return photo_frame(rng, pools, size, rng.choice(photos))
    clip = rng.choice(clips)
    path = pools.path(clip)
    start = rng.randint(0, int(pictures.clip_length(path) - duration))
    pixels = pictures.clip_frames(path, start, round(duration * fps), fps, size)
    return Frame(*size, round(CLIP_GROUND * size[1]), pixels, words_in(clip.name), clip.identity)


def picture_of_objects(rng: random.Random, pools: Pools, side: int, kind: str) -> PhotoScene | None:
    """A picture of 1-4 objects on a photograph; of kind "herd", with up to 4 pictures of one of them.

    None where they do not fit, as from all who draw scenes: then another one is drawn.
    """
    frame = photo_frame(rng, pools, frame_size(rng, side), rng.choice(pools.grounds))
    count = rng.choice((1, 2, 2, 3, 3, 4)) if kind == "objects" else rng.choice((1, 2, 2))
    items = pools.draw_cutouts(rng, count, set(frame.words))
    if not items:
        return None
    shown = [*items, *[items[0]] * rng.choice((0, 1, 1, 2, 2, 3))] if kind == "herd" else items
    sprites = _stand(rng, pools, frame, shown, overlap=kind == "objects" and rng.random() < 1 / 6)
    return None if sprites is None else _scene(rng, pools, kind, frame, sprites, items)


def _scene(
    rng: random.Random,
    pools: Pools,
    kind: str,
    frame: Frame,
    sprites: tuple[Sprite, ...],
    items: list[Cutout],
    **video: float | int,
) -> PhotoScene:
    return PhotoScene(
        frame.backdrop,
        sprites,
        kind=kind,
        width=frame.width,
        height=frame.height,
        others=tuple(pools.other_names(rng, items, set(frame.words))),
        identities=(frame.identity,),
        **video,  # pyright: ignore[reportArgumentType]
    )


@dataclass(frozen=True)
class Spot:
    """Where a cut-out stands: the column of its centre, the row of its lowest pixels, its size in pixels."""

    item: Cutout
    x: int
    foot: int
    wide: int
    high: int

    @property
    def centre(self) -> tuple[int, int]:
        """Of its stamp."""
        return self.x, self.foot - self.high + self.high // 2

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom pixel, the last two outside it."""
        left = self.x - self.wide // 2
        return left, self.foot - self.high, left + self.wide, self.foot

    def reach(self, frame: Frame) -> tuple[int, int]:
        """The least and the largest column of its centre at which it is in the frame."""
        return self.wide // 2 + 1, frame.width - 1 - (self.wide - self.wide // 2)

    def apart(self, other: "Spot") -> bool:
        """Whether their boxes do not touch."""
        a, b = self.box, other.box
        return a[2] + 3 <= b[0] or b[2] + 3 <= a[0] or a[3] + 3 <= b[1] or b[3] + 3 <= a[1]

    def sprite(self, rng: random.Random, pools: Pools) -> Sprite:
        """The cut-out there; some are turned round."""
        image, item = pictures.cutout(pools.path(self.item)), self.item
        mirrored = item.group in MIRRORED and rng.random() < 0.5
        rgb, alpha = pictures.scaled(image, (self.wide, self.high), mirrored=mirrored)
        return Sprite(
            item.name,
            alpha,
            rgb,
            identity=item.identity,
            phrase=phrase_of(item),
            caption=item.caption,
            group=item.group,
            shadow=item.group not in FLOATING,
            life=(0.0, 0.0),
            move=(0.0, 0.0),
            origin=self.centre,
            target=self.centre,
        )


def _near(frame: Frame, foot: int) -> float:
    """0 where the ground begins, 1 at the frame's lower edge."""
    return max(0.0, (foot - frame.ground) / max(1, frame.height - frame.ground))


def _draw_spot(rng: random.Random, pools: Pools, frame: Frame, item: Cutout, small: float) -> Spot | None:
    """A place on the ground, the larger the nearer, times `small`; None where the cut-out does not fit there."""
    top = round(0.4 * frame.height) if item.group in FLOATING else frame.ground
    foot = rng.randint(min(top + 4, frame.height - 4), frame.height - 2)
    share = small * (0.24 + 0.28 * _near(frame, foot)) * rng.uniform(0.85, 1.15)
    width, height = pictures.cutout(pools.path(item)).size
    high = min(round(share * frame.height), round(0.5 * frame.width * height / width), round(1.5 * height))
    spot = Spot(item, 0, foot, max(1, round(width * high / height)), high)
    low, most = spot.reach(frame)
    return None if high < 12 or high > foot or low > most else replace(spot, x=rng.randint(low, most))


def _stand(
    rng: random.Random, pools: Pools, frame: Frame, items: list[Cutout], *, overlap: bool
) -> tuple[Sprite, ...] | None:
    """The items side by side, the nearest last; with `overlap` two of them cover each other in part."""
    small = {1: 1.25, 2: 1.1, 3: 1.0}.get(len(items), 0.85)
    for _ in range(12):
        placed: list[Spot] = []
        for item in items:
            for _ in range(15):
                spot = _draw_spot(rng, pools, frame, item, small)
                if spot is not None and all(spot.apart(other) for other in placed):
                    placed.append(spot)
                    break
        if len(placed) == len(items):
            if overlap and len(placed) > 1:
                placed[1] = _overlapping(placed[0], placed[1], frame, rng)
            ordered = sorted(placed, key=lambda spot: spot.foot)
            sprites = tuple(spot.sprite(rng, pools) for spot in ordered)
            if not overlap or _mostly_seen(frame, sprites):
                return sprites
    return None


def _overlapping(one: Spot, other: Spot, frame: Frame, rng: random.Random) -> Spot:
    """The other one moved beside the first, so near that their boxes overlap by a part."""
    low, high = other.reach(frame)
    gap = round((one.wide + other.wide) / 2 * rng.uniform(0.6, 0.85))
    x = one.x + rng.choice((-gap, gap))
    return replace(other, x=min(max(x, low), high))


def _mostly_seen(frame: Frame, sprites: tuple[Sprite, ...]) -> bool:
    scene = PhotoScene(frame.backdrop, sprites, kind="", width=frame.width, height=frame.height)
    return all(scene.visible_share(index, 0.0) >= 0.6 for index in range(len(sprites)))


# ---------------------------------------------------------------- videos


def video_of_objects(rng: random.Random, pools: Pools, side: int) -> PhotoScene | None:
    """A video of 2-3 objects on a photograph or a clip: one moves, one comes or goes, others do either or rest."""
    duration, fps = rng.choice(DURATIONS), rng.choice(RATES)
    frame = video_frame(rng, pools, frame_size(rng, side), duration, fps, pools.grounds)
    for _ in range(6):
        roles = ["anchor", "visitor", *rng.choices(("visitor", "still", "anchor"), k=rng.choice((0, 0, 1)))]
        items = pools.draw_cutouts(rng, len(roles), set(frame.words))
        actors = [_actor(rng, pools, frame, duration, *one) for one in zip(items, roles, strict=False)]
        sprites = tuple(sprite for sprite in actors if sprite is not None)
        if len(sprites) == len(roles):
            sprites = tuple(sorted(sprites, key=lambda sprite: sprite.corner(0.0)[1] + len(sprite.alpha)))
            scene = _scene(rng, pools, "objects", frame, sprites, items, duration=duration, fps=fps)
            if _all_seen(scene):
                return scene
    return None


def _actor(
    rng: random.Random, pools: Pools, frame: Frame, duration: float, item: Cutout, role: str
) -> Sprite | None:
    """One object of a video; times are multiples of half a second. It moves along the ground, at one distance."""
    spot = _draw_spot(rng, pools, frame, item, 1.05)
    if spot is None:
        return None
    low, high = spot.reach(frame)
    if high - low < frame.width // 4:
        return None
    halves = round(2 * duration)
    life = (0.0, duration)
    if role == "visitor":
        length = rng.randint(3, min(9, halves - 2))
        start = rng.choice((0, halves - length, rng.randint(0, halves - length)))
        life = (start / 2, (start + length) / 2)
    begin = end = rng.randint(low, high)
    if role == "anchor" or (role == "visitor" and rng.random() < 0.5):
        way = round((high - low) * rng.uniform(0.5, 1.0))
        start = low + rng.randint(0, high - low - way)
        begin, end = (start, start + way) if rng.random() < 0.5 else (start + way, start)
    move = life
    if role == "anchor" and rng.random() < 0.4:  # it moves in a part of its life only
        length = rng.randint(3, halves - 2)
        start = rng.randint(0, halves - length)
        move = (start / 2, (start + length) / 2)
    row = spot.centre[1]
    return replace(
        spot.sprite(rng, pools), life=life, origin=(begin, row), target=(end, row), move=move, role=role
    )


def _all_seen(scene: PhotoScene) -> bool:
    """Whether every object is at some half second hardly covered."""
    halves = [half / 2 for half in range(round(2 * scene.duration))]
    return all(
        any(scene.visible_share(index, time) >= 0.8 for time in halves) for index in range(len(scene.sprites))
    )
