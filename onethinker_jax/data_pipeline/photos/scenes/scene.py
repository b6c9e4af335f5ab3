"""What a scene of the Photos world is: pictures with alpha over a photograph or a clip.

Sprites are blended by their alpha, later ones over earlier ones; a sprite's mask is where its alpha is at least one
half and no later one's is. A division of a map is a sprite too: its pixels are the map's own.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from onethinker_jax.data_pipeline.photos.scenes.pictures import OPAQUE
from onethinker_jax.data_pipeline.worlds import film
from onethinker_jax.data_pipeline.worlds.stage import Actor, Stage

SHADOW = 0.45  # how much of the light a shadow takes at most


@dataclass(frozen=True, eq=False)
class Sprite(Actor):
    """Pixels that are pasted: `alpha` uint8 [h, w] and `rgb` uint8 [h, w, 3], None where the backdrop has them.

    `called` is its name, `phrase` that with its article ("a zebra"), `caption` a sentence, `said` the text that is
    written on it, `worth` its value in numbers.
    """

    called: str
    alpha: np.ndarray
    rgb: np.ndarray | None
    identity: str = ""
    phrase: str = ""
    caption: str = ""
    group: str = ""
    said: str = ""
    worth: int = 0
    shadow: bool = False

    @property
    def name(self) -> str:
        """What questions call it."""
        return self.called

    @property
    def definite(self) -> str:
        """The name after its article; that of a planet has none."""
        return self.called if self.phrase == self.called else f"the {self.called}"

    @property
    def mask(self) -> np.ndarray:
        """Where it is opaque, bool [h, w]."""
        return self.alpha >= OPAQUE

    @cached_property
    def shade(self) -> tuple[np.ndarray, tuple[int, int]]:
        """A soft ellipse where the sprite meets the ground: uint8 [h, w], and its corner from the sprite's."""
        height, width = self.alpha.shape
        foot = np.flatnonzero(self.mask[-max(2, height // 8) :].any(0))
        ends = (int(foot[0]), int(foot[-1])) if len(foot) else (0, width - 1)
        reach = max(6.0, (ends[1] - ends[0]) * 0.62)
        depth = max(3.0, min(reach * 0.22, height * 0.12))
        margin = round(depth)
        wide, high = 2 * round(reach) + 2 * margin, 2 * round(depth) + 2 * margin
        rows, columns = np.mgrid[0:high, 0:wide]
        inside = ((columns - wide / 2) / reach) ** 2 + ((rows - high / 2) / depth) ** 2 <= 1
        soft = Image.fromarray((255 * inside).astype(np.uint8)).filter(ImageFilter.GaussianBlur(depth / 2))
        left, top = sum(ends) / 2 - wide / 2, height - depth * 0.7 - high / 2
        return np.asarray(soft), (round(left), round(top))

    def corner(self, time: float) -> tuple[int, int]:
        """The left top pixel of its stamp in the frame."""
        x, y = self.centre(time)
        return x - self.alpha.shape[1] // 2, y - self.alpha.shape[0] // 2


@dataclass(frozen=True)
class Shot:
    """A part of a video of spliced shots: what it shows, from when to when (seconds)."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class PhotoScene(Stage):
    """Sprites over a `backdrop`, uint8 [N, H, W, 3]: one frame that stays, or one for every time.

    `title` and `text` say what the photograph or map itself shows, where that is asked; `shots` are the parts of a
    spliced video; `others` are names of the same split for options of multiple choice: of objects, photographs or
    words, by what the scene's kind is about.
    """

    backdrop: np.ndarray
    sprites: tuple[Sprite, ...] = ()
    title: str = ""
    text: str = ""
    shots: tuple[Shot, ...] = ()
    others: tuple[str, ...] = ()
    unit: str = ""
    identities: tuple[str, ...] = ()
    """Of the items that the scene is made of, sprites' own aside."""
    _labels: dict[float, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def actors(self) -> tuple[Sprite, ...]:
        """The sprites."""
        return self.sprites

    def labels(self, time: float) -> np.ndarray:
        """uint8 [H, W]: 0 background, i + 1 where sprite i is the topmost."""
        if time not in self._labels:
            labels = np.zeros((self.height, self.width), np.uint8)
            for index, sprite in enumerate(self.sprites):
                if sprite.present(time):
                    (x, y), (h, w) = sprite.corner(time), sprite.alpha.shape
                    labels[y : y + h, x : x + w][sprite.mask] = index + 1
            self._labels[time] = labels
        return self._labels[time]

    def whole_area(self, index: int) -> int:
        """The opaque pixels of a sprite."""
        return int(self.sprites[index].mask.sum())

    def render(self, time: float) -> np.ndarray:
        """uint8 [H, W, 3]: the frame at `time` seconds."""
        number = min(round(time * self.fps), len(self.backdrop) - 1)
        frame = self.backdrop[number].copy()
        for sprite in self.sprites:
            if sprite.rgb is not None and sprite.present(time):
                corner = sprite.corner(time)
                if sprite.shadow:
                    _darken(frame, *sprite.shade, corner)
                _blend(frame, sprite.rgb, sprite.alpha, corner)
        return frame

    def write(self, path: Path, crf: int) -> None:
        """As JPEG, PNG or MP4, by the path's ending."""
        if self.duration:
            film.write_mp4((self.render(time) for time in self.times), self.fps, path, crf=crf)
        elif path.suffix == ".png":
            Image.fromarray(self.render(0.0)).save(path, compress_level=4)
        else:
            Image.fromarray(self.render(0.0)).save(path, quality=92)


def _blend(frame: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, corner: tuple[int, int]) -> None:
    (x, y), (h, w) = corner, alpha.shape
    below, share = frame[y : y + h, x : x + w], alpha[..., None].astype(np.uint16)
    below[...] = ((rgb * share + below * (255 - share) + 127) // 255).astype(np.uint8)


def _darken(frame: np.ndarray, shade: np.ndarray, offset: tuple[int, int], corner: tuple[int, int]) -> None:
    left, top = corner[0] + offset[0], corner[1] + offset[1]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + shade.shape[1], frame.shape[1]), min(top + shade.shape[0], frame.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    light = 255 - (SHADOW * shade[y0 - top : y1 - top, x0 - left : x1 - left]).astype(np.uint16)
    below = frame[y0:y1, x0:x1]
    below[...] = (below * light[..., None] // 255).astype(np.uint8)
