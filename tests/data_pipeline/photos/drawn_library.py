"""A library of the Photos world, drawn: cut-outs of one colour each, grey photographs, maps of squares, clips."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from onethinker_jax.data_pipeline.photos.library import (
    Clip,
    Coin,
    Cutout,
    Digit,
    Division,
    Library,
    Map,
    Photo,
    Split,
    split_of,
)
from onethinker_jax.data_pipeline.worlds.film import write_mp4

# fmt: off
NOUNS = (
    "zebra", "owl", "camel", "tiger", "apple", "banana", "carrot", "violin", "hammer",
    "bucket", "kettle", "tractor", "balloon", "rabbit", "beaver", "turtle", "falcon", "walnut",
)
PLACES = ("Oslo", "Lima", "Cairo", "Paris", "Rome", "Delhi", "Tokyo", "Quito", "Accra", "Minsk", "Sofia", "Dakar")
# fmt: on
SPLITS: tuple[Split, Split] = ("train", "heldout")
ORIGIN = {"source": "drawn", "licence": "none"}


def of_split(split: Split, name: str) -> str:
    """An identity of this split that begins with `name`."""
    return next(identity for number in range(1000) if split_of(identity := f"{name} {number}") == split)


def draw_library(folder: Path, *, heldout: int = 9) -> Library:
    """Writes and returns a library with 9 names of cut-outs in training, and `heldout` held out."""
    folder.mkdir(exist_ok=True)
    nouns = {"train": NOUNS[:9], "heldout": NOUNS[9 : 9 + heldout]}
    places = {"train": PLACES[:6], "heldout": PLACES[6:]}
    hues = {name: number / len(NOUNS) for number, name in enumerate(NOUNS)}
    library = Library(
        folder,
        cutouts=tuple(_cutout(folder, s, name, hues[name]) for s in SPLITS for name in nouns[s]),
        coins=tuple(_coin(folder, s, value) for s in SPLITS for value in (1, 2, 5)),
        photos=tuple(_photo(folder, s, place, place != places[s][0]) for s in SPLITS for place in places[s]),
        clips=tuple(_clip(folder, s, places[s][0]) for s in SPLITS),
        maps=tuple(_map(folder, s, place) for s in SPLITS for place in places[s][:4]),
        digits=tuple(_digit(folder, s, value) for s in SPLITS for value in range(10)),
    )
    library.write()
    return library


def colour_of(library: Library, name: str) -> np.ndarray:
    """The colour of a cut-out, uint8 [3]."""
    item = next(item for item in library.cutouts if item.name == name)
    pixels = np.asarray(Image.open(library.folder / item.path))
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, :3]


def _cutout(folder: Path, split: Split, noun: str, hue: float) -> Cutout:
    """A soft ellipse with a hole of alpha around it."""
    colour = tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.95, 0.9))
    alpha = Image.new("L", (90, 70))
    ImageDraw.Draw(alpha).ellipse((8, 6, 80, 66), fill=255)
    image = Image.new("RGBA", alpha.size, (*colour, 255))
    image.putalpha(alpha.filter(ImageFilter.GaussianBlur(1)))
    image.save(folder / f"{noun}.png")
    said = {"name": noun, "caption": f"A {noun}.", "group": "animals" if hue < 0.5 else "things"}
    return Cutout(f"{noun}.png", of_split(split, noun), **ORIGIN, **said)


def _photo(folder: Path, split: Split, place: str, named: bool) -> Photo:
    grey = np.linspace(90, 150, 240 * 180).reshape(180, 240) + len(place)
    Image.fromarray(np.repeat(grey[..., None], 3, 2).astype(np.uint8)).save(folder / f"{place}.png")
    known = (
        {"name": place, "group": "cities", "text": f"{place} lies at a river. It is old."} if named else {}
    )
    return Photo(f"{place}.png", of_split(split, place), **ORIGIN, **known, ground=0.5)


def _digit(folder: Path, split: Split, value: int) -> Digit:
    image = Image.new("L", (28, 28))
    ImageDraw.Draw(image).text((10, 8), str(value), fill=255)
    path = f"digit_{split}_{value}.png"
    image.save(folder / path)
    return Digit(path, of_split(split, f"digit {value}"), **ORIGIN, value=value)


def _coin(folder: Path, split: Split, value: int) -> Coin:
    image = Image.new("RGBA", (60, 60))
    ImageDraw.Draw(image).ellipse((2, 2, 57, 57), fill=(190, 160, 60, 255))
    path = f"coin_{split}_{value}.png"
    image.save(folder / path)
    said = {"name": f"{value} cent coin", "unit": "cents"}
    return Coin(path, of_split(split, f"coin {value}"), **ORIGIN, **said, value=value)


def _map(folder: Path, split: Split, place: str) -> Map:
    pixels = np.full((160, 240, 3), 255, np.uint8)
    divisions = []
    for number, name in enumerate(("Nord", "Sud", "Est", "Ovest")):
        row, column = divmod(number, 2)
        colour = (60 + 40 * number, 200 - 30 * number, 90)
        wide = 110 if number else 80
        pixels[80 * row + 4 : 80 * row + 74, 120 * column + 4 : 120 * column + 4 + wide] = colour
        divisions.append(Division(name, colour))
    Image.fromarray(pixels).save(folder / f"map_{place}.png")
    return Map(
        f"map_{place}.png",
        of_split(split, f"map of {place}"),
        **ORIGIN,
        title=place,
        divisions=tuple(divisions),
    )


def _clip(folder: Path, split: Split, place: str) -> Clip:
    """9 s in which a dark bar wanders over grey."""
    frames = []
    for step in range(72):
        frame = np.full((96, 128, 3), 140, np.uint8)
        frame[:, step : step + 8] = 60
        frames.append(frame)
    write_mp4(frames, 8, folder / f"film_{place}.mp4")
    return Clip(
        f"film_{place}.mp4",
        of_split(split, f"film of {place}"),
        **ORIGIN,
        name=f"a bar that wanders over {place}",
    )
