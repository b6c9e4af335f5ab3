"""An answer as one picture.

Its boxes, points and masks stand on the image, or on a contact sheet of the video's frames over a bar with its times;
below them stand the question and, where it is a text, the answer.
"""

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.drawing.captions import BACKGROUND, FAINT, INK, caption, labelled
from onethinker_jax.data_pipeline.drawing.draw import Annotations, annotations_at, draw
from onethinker_jax.data_pipeline.drawing.time_bar import TimeBar, bar_length, has_time, is_named
from onethinker_jax.data_pipeline.drawing.views import Masks, View
from onethinker_jax.rewards.answers import StructuredAnswer

MARGIN = 16
SMALLEST, LARGEST = 640, 1280  # pixels of an image's longer side, and of a contact sheet's width
LEAST_WIDTH = 480  # so that a caption has room below a narrow image


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
    bars = []
    if view.times is not None and has_time(annotations):
        bars = [TimeBar(bar_length(view.duration, view.times), width).picture(annotations, view.times)]
    captions = [caption(view.question, width, FAINT)]
    if text is not None:
        captions.append(caption(text or "(empty)", width, INK, stripe=True))
    return stacked([*sheets, *bars, *captions], width)


def stacked(parts: list[Image.Image], width: int) -> Image.Image:
    """The parts below each other in `width` pixels, with a margin around them all."""
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
        cell = draw(frame, Annotations(), here, drawn_width(frame, most))
        cells.append(
            cell if time is None else labelled(cell, time, is_named(annotations, time, view.times or ()))
        )
    across, down = max(cell.width for cell in cells), max(cell.height for cell in cells)
    rows = -(-len(cells) // columns)
    size = columns * (across + MARGIN) - MARGIN, rows * (down + MARGIN) - MARGIN
    sheet = Image.new("RGB", size, BACKGROUND)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (column * (across + MARGIN), row * (down + MARGIN)))
    return sheet


def drawn_width(frame: np.ndarray, most: int) -> int:
    """The width at which the longer side is at most `most`, and at least `SMALLEST` if that is less."""
    height, width = frame.shape[:2]
    longer = max(height, width)
    return max(round(width / longer * min(max(longer, SMALLEST), most)), 1)
