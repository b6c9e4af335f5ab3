"""Fills the folder of a library: pictures are cropped, shrunk and written, and what cannot be used is counted.

Composing a scene opens a dozen pictures, so none is kept larger than a scene needs.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from onethinker_jax.data_pipeline.photos.library import (
    INDEX,
    Clip,
    Coin,
    Cutout,
    Digit,
    Division,
    Font,
    Library,
    LibraryError,
    Map,
    Photo,
)

CUTOUT_SIDE, PHOTO_SIDE, MAP_SIDE = 512, 640, 1400
"""Longest sides in pixels of what is written; a map that is larger is left out, as shrinking mixes its colours."""

SMALLEST_CUTOUT, SMALLEST_PHOTO = 40, 160
"""Pixels: the longest side of a cut-out and the shortest side of a photograph from which on they are of use."""

_VISIBLE, _SOLID = 16, 0.68
_SPECK = 0.01
_FULLEST, _EMPTIEST = 0.97, 0.1


@dataclass(frozen=True)
class Origin:
    """What is known of a file before it is opened: the fields that all items share."""

    identity: str
    source: str
    licence: str


class LibraryWriter:
    """Writes files below `folder` / `place` and collects their items; paths are relative to `folder`."""

    def __init__(self, folder: Path, place: str = ""):
        self.folder, self.place = folder, place
        self.items: dict[str, list[Any]] = {}
        self.left_out: Counter[str] = Counter()
        self._names: set[str] = set()

    def library(self) -> Library:
        """All items so far; the index is not written."""
        return Library(self.folder, **_tuples(self.items), left_out=dict(sorted(self.left_out.items())))

    def leave_out(self, reason: str) -> str:
        """Counts a file that is not taken; returns the reason."""
        self.left_out[reason] += 1
        return reason

    def cutout(
        self, picture: Image.Image, origin: Origin, *, name: str, caption: str, group: str
    ) -> str | None:
        """Writes one object; returns why it is left out where its alpha shows none."""
        path, reason = self._object("cutouts", picture, name)
        if path:
            self._add("cutouts", Cutout(path, **vars(origin), name=name, caption=caption, group=group))
        return reason

    def coin(self, picture: Image.Image, origin: Origin, *, name: str, value: int, unit: str) -> str | None:
        """Writes a coin; returns why it is left out."""
        path, reason = self._object("coins", picture, name)
        if path:
            self._add("coins", Coin(path, **vars(origin), name=name, value=value, unit=unit))
        return reason

    def photo(self, picture: Image.Image, origin: Origin, **known: Any) -> str | None:
        """Writes a photograph; returns why it is left out. `known` are the further fields of `Photo`."""
        picture = ImageOps.exif_transpose(picture).convert("RGB")
        if min(picture.size) < SMALLEST_PHOTO:
            return self.leave_out(f"a photograph's side is shorter than {SMALLEST_PHOTO} px")
        picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        path = self.path_of("photos", known.get("name") or origin.identity, "jpg")
        picture.save(self.folder / path, quality=92)
        self._add("photos", Photo(path, **vars(origin), **known))
        return None

    def map(
        self, picture: Image.Image, origin: Origin, *, title: str, divisions: list[Division]
    ) -> str | None:
        """Writes a map as it is; returns why it is left out."""
        if max(picture.size) > MAP_SIDE:
            return self.leave_out(f"a map's side is longer than {MAP_SIDE} px")
        path = self.path_of("maps", title, "png")
        picture.convert("RGB").save(self.folder / path)
        self._add("maps", Map(path, **vars(origin), title=title, divisions=tuple(divisions)))
        return None

    def digit(self, pixels: np.ndarray, origin: Origin, *, value: int) -> None:
        """Writes a digit's grey levels, uint8 [height, width]."""
        path = self.path_of("digits", str(value), "png")
        Image.fromarray(pixels).save(self.folder / path)
        self._add("digits", Digit(path, **vars(origin), value=value))

    def font(self, content: bytes, origin: Origin, *, name: str, suffix: str) -> None:
        """Writes a font's file."""
        path = self.path_of("fonts", name, suffix)
        (self.folder / path).write_bytes(content)
        self._add("fonts", Font(path, **vars(origin), name=name))

    def clip(self, path: str, origin: Origin, *, name: str) -> None:
        """Notes a clip that is at `path`, which `path_of` gave."""
        self._add("clips", Clip(path, **vars(origin), name=name))

    def path_of(self, kind: str, name: str, suffix: str) -> str:
        """A new file's path that its name can be told from."""
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        stem = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:60] or "unnamed"
        path = Path(self.place, kind, f"{stem}.{suffix}")
        number = 1
        while str(path) in self._names:
            number += 1
            path = Path(self.place, kind, f"{stem}_{number}.{suffix}")
        self._names.add(str(path))
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def _object(self, kind: str, picture: Image.Image, name: str) -> tuple[str | None, str | None]:
        """The path of an object's picture, or why there is none."""
        picture = without_specks(picture.convert("RGBA"))
        box = picture.getchannel("A").getbbox()
        reason = "nothing is visible" if box is None else why_not_an_object(picture.crop(box))
        if reason:
            return None, self.leave_out(f"a cut-out: {reason}")
        picture = picture.crop(box)
        picture.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE), Image.Resampling.LANCZOS)
        path = self.path_of(kind, name, "png")
        picture.save(self.folder / path)
        return path, None

    def _add(self, kind: str, item: Any) -> None:
        self.items.setdefault(kind, []).append(item)


def without_specks(picture: Image.Image) -> Image.Image:
    """The RGBA picture with what is hardly visible, and parts much smaller than the largest one, made transparent.

    A box around an object is measured on its alpha, so that a speck in a corner would make it too large.
    """
    alpha = np.array(picture.getchannel("A"))
    visible = (alpha >= _VISIBLE).astype(np.uint8)
    parts, labels, facts, _ = cv2.connectedComponentsWithStats(visible, connectivity=8)
    sizes = facts[1:, cv2.CC_STAT_AREA]
    if parts > 1:
        kept = np.flatnonzero(sizes >= _SPECK * sizes.max()) + 1
        visible = np.isin(labels, kept)
    picture = picture.copy()
    picture.putalpha(Image.fromarray(np.where(visible, alpha, 0).astype(np.uint8)))
    return picture


def why_not_an_object(picture: Image.Image) -> str | None:
    """Why a cropped RGBA picture is no cut-out of an object, or None."""
    alpha = np.asarray(picture.getchannel("A"))
    visible = alpha >= _VISIBLE
    if max(picture.size) < SMALLEST_CUTOUT:
        return f"its longest side is under {SMALLEST_CUTOUT} px"
    if alpha[visible].mean() < _SOLID * 255:
        return "it is see-through"
    if visible.mean() > _FULLEST:
        return "it is opaque all over"
    if visible.mean() < _EMPTIEST:
        return f"less than {_EMPTIEST:.0%} of its box is visible"
    return None


def summary(library: Library) -> list[str]:
    """How many items of each kind and split there are, and how many files were left out for which reason."""
    counts = Counter((type(item).__name__.lower(), item.split) for item in library.items)
    kinds = dict.fromkeys(kind for kind, _ in counts)
    lines = [f"{kind}: {counts[kind, 'train']} train, {counts[kind, 'heldout']} heldout" for kind in kinds]
    return lines + [f"left out: {reason}: {count}" for reason, count in library.left_out.items()]


def refuse_other_folders(out: Path) -> None:
    """Raises LibraryError where `out` is there and holds something else than a library, which would be replaced."""
    if out.exists() and not (out / INDEX).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise LibraryError(f"{out} is there already and is no library: name another folder")


def together(folder: Path, writers: list[LibraryWriter]) -> Library:
    """The library of all that several writers have written below `folder`."""
    items: dict[str, list[Any]] = {}
    left_out: Counter[str] = Counter()
    for writer in writers:
        left_out.update({f"{writer.place}: {reason}": count for reason, count in writer.left_out.items()})
        for kind, made in writer.items.items():
            items.setdefault(kind, []).extend(made)
    return Library(folder, **_tuples(items), left_out=dict(sorted(left_out.items())))


def _tuples(items: dict[str, list[Any]]) -> dict[str, Any]:
    return {kind: tuple(made) for kind, made in items.items()}
