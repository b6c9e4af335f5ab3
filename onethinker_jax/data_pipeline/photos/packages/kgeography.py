"""Maps out of KGeography: an XML file (`.kgm`) names the divisions and their colours, a PNG shows them.

A division is taken where its colour is in the picture on enough pixels, so that its mask is exact: all pixels of the
colour. Frontiers, water and neighbours are marked `ignore` in the file.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from onethinker_jax.data_pipeline.photos.library import Division, LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

WANTED = r"usr/share/kgeography/[^/]*\.(kgm|png)"

FEWEST_PIXELS = 100
"""A smaller division is hard to see and to point at."""

FEWEST_DIVISIONS = 3

_RIVERS = "Waters (World-Class)"
"""The title of the one map whose divisions are lines."""


def read_maps(files: Iterable[tuple[str, bytes]], writer: LibraryWriter, licences: Licences) -> None:
    """Fills `writer` with the maps among a package's files.

    Raises LibraryError naming a file that cannot be read.
    """
    contents = {PurePosixPath(path).name: (path, content) for path, content in files}
    for name in sorted(contents):
        if name.endswith(".kgm"):
            path, content = contents[name]
            _read(name, content, contents, writer, licences.of(path))


def _read(
    name: str, content: bytes, contents: dict[str, tuple[str, bytes]], writer: LibraryWriter, licence: str
) -> None:
    where = f"{writer.place}: {name}"
    try:
        root = ET.fromstring(content)
        shown = (root.findtext("mapFile") or "").strip()
        title = (root.findtext("name") or "").strip()
        named = [division for entry in root.iter("division") if (division := _division(entry))]
        picture = Image.open(io.BytesIO(contents[shown][1])).convert("RGB")
    except KeyError as error:
        raise LibraryError(f"{where} names the picture {error}, which is not there") from None
    except (ET.ParseError, ValueError, UnidentifiedImageError, OSError) as error:
        raise LibraryError(f"{where} cannot be read: {error}") from error
    if title == _RIVERS:
        writer.leave_out("a map of rivers")
        return
    pixels = pixels_by_colour(np.asarray(picture))
    seen = [division for division in named if pixels.get(division.colour, 0) >= FEWEST_PIXELS]
    colours = [division.colour for division in named]
    single = [division for division in seen if colours.count(division.colour) == 1]
    for _ in range(len(named) - len(single)):
        writer.leave_out(f"a division of a map: under {FEWEST_PIXELS} px, or its colour is another's too")
    if len(single) < FEWEST_DIVISIONS:
        writer.leave_out(f"a map of fewer than {FEWEST_DIVISIONS} divisions")
        return
    writer.map(picture, Origin(country_of(title), writer.place, licence), title=title, divisions=single)


def country_of(title: str) -> str:
    """The identity of a map: two maps of one country, divided otherwise, share it."""
    short = re.sub(r" (\(|by |districts|provinces|continents).*", "", title, flags=re.IGNORECASE)
    return f"map of {re.sub('^(the|republic of) ', '', short, flags=re.IGNORECASE)}"


def _division(entry: ET.Element) -> Division | None:
    """None for what the game does not ask about at all."""
    if (entry.findtext("ignore") or "no").strip() not in ("no", "allowClickMode"):
        return None
    name, capital = ((entry.findtext(key) or "").strip() for key in ("name", "capital"))
    colour = entry.find("color")
    if not name or colour is None:
        raise ValueError("a division without name or colour")
    r, g, b = (int(colour.findtext(key) or "") for key in ("red", "green", "blue"))
    return Division(name, (r, g, b), capital or None)


def pixels_by_colour(picture: np.ndarray) -> dict[tuple[int, int, int], int]:
    """How many pixels of each colour a picture has; uint8 [height, width, 3]."""
    values = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, counts = np.unique(values, return_counts=True)
    return {
        (int(colour) >> 16, int(colour) >> 8 & 255, int(colour) & 255): int(count)
        for colour, count in zip(colours, counts, strict=True)
    }
