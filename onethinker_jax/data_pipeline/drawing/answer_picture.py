"""An answer as one picture.

Its boxes, points and masks stand on the image, or on a contact sheet of the video's frames over a bar with its times;
below them stand the question and, where it is a text, the answer.
"""

import contextlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onethinker_jax.data_pipeline.drawing.draw import PREDICTED, Annotations, annotations_at, draw
from onethinker_jax.data_pipeline.drawing.views import Masks, View, tick_step
from onethinker_jax.rewards.answers import StructuredAnswer
from onethinker_jax.text_output import visible

MARGIN = 16
SMALLEST, LARGEST = 640, 1280  # pixels of an image's longer side, and of a contact sheet's width
LEAST_WIDTH = 480  # so that a caption has room below a narrow image
BACKGROUND, INK, FAINT, LANE = (255, 255, 255), (24, 28, 34), (101, 109, 118), (225, 228, 232)
MOST_LINES, MOST_CHARACTERS = 12, 2_000  # of a caption's text
SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "DejaVuSans.ttf", "arial.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def answer_picture(
    view: View, annotations: StructuredAnswer | None, masks: Masks | None = None, *, text: str | None = None
) -> Image.Image:
    """The media of `view`, where there are any, with the answer's annotations drawn on them.

    Args:
        view: of the record that was asked about.
        annotations: the answer, where it has boxes, points or times.
        masks: made from its box and points.
        text: the answer as the caption shows it; None leaves it out.
    """
    sheets = [_sheet(view, annotations, masks)] if view.frames else []
    width = max([LEAST_WIDTH, *(sheet.width for sheet in sheets)])
    captions = [_caption(view.question, width, FAINT)]
    if text is not None:
        captions.append(_caption(text or "(empty)", width, INK, stripe=True))
    bar = _time_bar(view, annotations, width)
    parts = [*sheets, *([] if bar is None else [bar]), *captions]
    height = sum(part.height for part in parts) + MARGIN * (len(parts) + 1)
    whole = Image.new("RGB", (width + 2 * MARGIN, height), BACKGROUND)
    top = MARGIN
    for part in parts:
        whole.paste(part, (MARGIN, top))
        top += part.height + MARGIN
    return whole


def columns_of(count: int) -> int:
    """Frames in one row of a contact sheet: up to four in one, more in two rows."""
    return count if count <= 4 else -(-count // 2)


def _sheet(view: View, annotations: StructuredAnswer | None, masks: Masks | None) -> Image.Image:
    """All pictures in rows; those of a video each with its time below."""
    columns = columns_of(len(view.frames)) if view.times is not None else 1
    most = (LARGEST - (columns - 1) * MARGIN) // columns
    cells = []
    for number, frame in enumerate(view.frames):
        time = None if view.times is None else view.times[number]
        mask = masks.near(time) if masks else None
        here = annotations_at(annotations, time, view.times or (), mask)
        cell = draw(frame, Annotations(), here, _drawn_width(frame, most))
        cells.append(
            cell if time is None else _labelled(cell, time, _is_named(annotations, time, view.times or ()))
        )
    across, down = max(cell.width for cell in cells), max(cell.height for cell in cells)
    rows = -(-len(cells) // columns)
    size = columns * (across + MARGIN) - MARGIN, rows * (down + MARGIN) - MARGIN
    sheet = Image.new("RGB", size, BACKGROUND)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (column * (across + MARGIN), row * (down + MARGIN)))
    return sheet


def _drawn_width(frame: np.ndarray, most: int) -> int:
    """The width at which the longer side is at most `most`, and at least `SMALLEST` if that is less."""
    height, width = frame.shape[:2]
    longer = max(height, width)
    return max(round(width / longer * min(max(longer, SMALLEST), most)), 1)


def _is_named(annotations: StructuredAnswer | None, time: float, times: Sequence[float]) -> bool:
    """Whether `time`, of the frames' `times`, lies in the answer's span or is the nearest to its key time."""
    if annotations is not None and annotations.span is not None:
        return annotations.span[0] <= time <= annotations.span[1]
    key = annotations.key_time if annotations is not None else None
    return key is not None and time == min(times, key=lambda other: abs(other - key))


def _labelled(cell: Image.Image, time: float, named: bool) -> Image.Image:
    """The frame over its time, which has a dot of the answer's colour where the answer names it."""
    font = _font(15)
    label = Image.new("RGB", (cell.width, cell.height + 24), BACKGROUND)
    label.paste(cell, (0, 0))
    pen, middle = ImageDraw.Draw(label), cell.height + 13
    if named:
        pen.ellipse((1, middle - 5, 11, middle + 5), fill=PREDICTED)
    pen.text((17 if named else 1, middle), f"{time:.1f} s", INK if named else FAINT, font, anchor="lm")
    return label


def _time_bar(view: View, annotations: StructuredAnswer | None, width: int) -> Image.Image | None:
    """The video's length with the answer's span or key time on it; None where there is neither."""
    if (
        view.times is None
        or annotations is None
        or (annotations.span is None and annotations.key_time is None)
    ):
        return None
    start, end = annotations.span if annotations.span is not None else (annotations.key_time or 0.0,) * 2
    length = max(view.duration, *view.times, 1e-3)
    bar = Image.new("RGB", (width, 62), BACKGROUND)
    pen, font = ImageDraw.Draw(bar), _font(15)
    reach = width - 40  # the last tick's text has room

    def place(time: float) -> int:
        return 6 + round(reach * min(max(time / length, 0.0), 1.0))

    pen.rounded_rectangle((place(0), 24, place(length), 38), 4, fill=LANE)
    for time in view.times:
        pen.line((place(time), 24, place(time), 38), fill=FAINT, width=1)
    left, right = place(start), place(end)
    right = max(right, left + 4)  # a moment, or a span that ends before it begins, still shows
    pen.rounded_rectangle((left, 21, right, 41), 3, fill=PREDICTED)
    said = time_text(annotations)
    pen.text((min(left, width - round(font.getlength(said))), 8), said, INK, font, anchor="lm")
    step = tick_step(length)
    for number in range(int(length / step) + 1):
        at = place(number * step)
        pen.line((at, 42, at, 46), fill=FAINT, width=1)
        pen.text((at, 54), f"{number * step:g} s", FAINT, font, anchor="lm" if number == 0 else "mm")
    return bar


def time_text(annotations: StructuredAnswer) -> str:
    """The answer's span, or its key time."""
    if annotations.span is not None:
        return f"{annotations.span[0]:g} to {annotations.span[1]:g} s"
    return f"{annotations.key_time:g} s"


def _caption(text: str, width: int, ink: tuple[int, int, int], *, stripe: bool = False) -> Image.Image:
    """A text in lines of `width` pixels, with a stripe of the answer's colour before it if asked for."""
    font, height = _font(18, text.isascii()), 25
    indent = 14 if stripe else 0
    lines = _wrapped(text[:MOST_CHARACTERS], font, width - indent)
    if len(lines) > MOST_LINES or len(text) > MOST_CHARACTERS:
        lines = [*lines[: MOST_LINES - 1], "..."]
    image = Image.new("RGB", (width, height * len(lines)), BACKGROUND)
    pen = ImageDraw.Draw(image)
    if stripe:
        pen.rectangle((0, 2, 4, image.height - 3), fill=PREDICTED)
    for number, line in enumerate(lines):
        pen.text((indent, number * height + height // 2), line, ink, font, anchor="lm")
    return image


def _wrapped(text: str, font: Font, width: int) -> list[str]:
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
def _font(size: int, ascii_only: bool = True) -> Font:
    """Pillow's own font, which is there on every machine; beyond ASCII, the first of `SYSTEM_FONTS` that is."""
    for name in () if ascii_only else SYSTEM_FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
