"""Contact sheets of a library: every picture small, with its name, so that a person can look at all of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onethinker_jax.data_pipeline.photos.library import Clip, Font, Item, Library, Map

CELL, LINE, COLUMNS, ROWS = 120, 13, 14, 10
_GROUND = (90, 140, 90)
KINDS = ("cutouts", "coins", "photos", "clips", "maps", "digits", "fonts")


def write_sheets(library: Library, folder: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Writes PNG files of up to 140 pictures each, `cutouts_1.png` and so on; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in kinds:
        items = getattr(library, kind)
        for number, first in enumerate(range(0, len(items), COLUMNS * ROWS), 1):
            path = folder / f"{kind}_{number}.png"
            sheet(library, items[first : first + COLUMNS * ROWS]).save(path)
            paths.append(path)
    return paths


def sheet(library: Library, items: Sequence[Item]) -> Image.Image:
    """One picture of these items, a held-out one's name in yellow."""
    rows = -(-len(items) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + 2 * LINE)), _GROUND)
    draw = ImageDraw.Draw(page)
    for number, item in enumerate(items):
        x, y = number % COLUMNS * CELL, number // COLUMNS * (CELL + 2 * LINE)
        picture = thumbnail(library, item)
        page.paste(picture, (x, y), picture)
        colour = "yellow" if item.split == "heldout" else "white"
        for line, text in enumerate(_labels(item)):
            draw.text((x + 2, y + CELL + line * LINE - 2), text[:19], fill=colour)
    return page


def thumbnail(library: Library, item: Item) -> Image.Image:
    """A small RGBA picture of an item; of a clip its middle frame, of a font its letters."""
    path = library.folder / item.path
    if isinstance(item, Font):
        picture = Image.new("RGBA", (CELL - 4, CELL // 2), "white")
        ImageDraw.Draw(picture).text((4, 8), "Agx 358", "black", ImageFont.truetype(str(path), 26))
    elif isinstance(item, Clip):
        with av.open(str(path)) as film:
            frames: Iterator[Any] = film.decode(video=0)
            kept = [frame.to_image() for frame in frames]
        picture = kept[len(kept) // 2].convert("RGBA")
    elif isinstance(item, Map):
        picture = Image.fromarray(np.asarray(Image.open(path).convert("RGBA")))
    else:
        picture = Image.open(path).convert("RGBA")
    picture.thumbnail((CELL - 4, CELL - 4))
    return picture


def _labels(item: Item) -> tuple[str, str]:
    name = getattr(item, "name", None) or getattr(item, "title", None) or str(getattr(item, "value", ""))
    return name, item.identity
