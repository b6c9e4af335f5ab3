"""Texts on pictures: captions in lines that fit, and the time below a frame."""

import contextlib
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from onethinker_jax.data_pipeline.drawing.draw import PREDICTED
from onethinker_jax.text_output import visible

BACKGROUND, INK, FAINT = (255, 255, 255), (24, 28, 34), (101, 109, 118)
MOST_LINES, MOST_CHARACTERS = 12, 2_000  # of a caption's text
SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "DejaVuSans.ttf", "arial.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption(text: str, width: int, ink: tuple[int, int, int], *, stripe: bool = False) -> Image.Image:
    """A text in lines of `width` pixels, with a stripe of the answer's colour before it if asked for."""
    font, height = load_font(18, text.isascii()), 25
    indent = 14 if stripe else 0
    lines = wrapped(text[:MOST_CHARACTERS], font, width - indent)
    if len(lines) > MOST_LINES or len(text) > MOST_CHARACTERS:
        lines = [*lines[: MOST_LINES - 1], "..."]
    image = Image.new("RGB", (width, height * len(lines)), BACKGROUND)
    pen = ImageDraw.Draw(image)
    if stripe:
        pen.rectangle((0, 2, 4, image.height - 3), fill=PREDICTED)
    for number, line in enumerate(lines):
        pen.text((indent, number * height + height // 2), line, ink, font, anchor="lm")
    return image


def labelled(cell: Image.Image, time: float, named: bool) -> Image.Image:
    """The frame over its time, which has a dot of the answer's colour where the answer names it."""
    font = load_font(15)
    label = Image.new("RGB", (cell.width, cell.height + 24), BACKGROUND)
    label.paste(cell, (0, 0))
    pen, middle = ImageDraw.Draw(label), cell.height + 13
    if named:
        pen.ellipse((1, middle - 5, 11, middle + 5), fill=PREDICTED)
    pen.text((17 if named else 1, middle), f"{time:.1f} s", INK if named else FAINT, font, anchor="lm")
    return label


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces where there are any."""
    lines = []
    for line in visible(text).splitlines() or [""]:
        rest = line.strip()
        while (fits := _characters_that_fit(rest, font, width)) < len(rest):
            cut = rest.rfind(" ", 1, fits + 1)
            cut = cut if cut > 0 else fits
            lines.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        lines.append(rest)
    return lines


def _characters_that_fit(text: str, font: Font, width: int) -> int:
    """How many of a text's characters, at least one, are no wider than `width` pixels together."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return min(low, len(text))


@lru_cache
def load_font(size: int, ascii_only: bool = True) -> Font:
    """Pillow's own font, which is there on every machine; beyond ASCII, the first of `SYSTEM_FONTS` that is."""
    for name in () if ascii_only else SYSTEM_FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
