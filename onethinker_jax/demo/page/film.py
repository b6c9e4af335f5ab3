"""The media of a record on the page: images, or a film with a scrubber over a bar of times, answers drawn on them."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from onethinker_jax.data_pipeline.drawing.draw import Annotations, annotations_at, draw
from onethinker_jax.data_pipeline.drawing.views import Masks, View, timeline_html, view_record
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.rewards.answers import StructuredAnswer
from onethinker_jax.scoring import MASK_FPS, MASK_FRAMES

FPS, MOST_FRAMES = 4.0, 64
"""Frames of a film that has no masks; a longer one is sampled evenly."""
BOUNDS = PixelBounds(1, 1, 640 * 480)
"""Of a picture or frame in memory."""
IMAGE_SIDE, FRAME_SIDE = 640, 480
"""Pixels of the longer side as it is drawn."""
JPEG_QUALITY = 90


def check_media(record: Record, media: MediaReader) -> tuple[int, int] | None:
    """Height and width of what is shown, None: nothing. Raises MediaError: missing, damaged, larger than allowed."""
    sizes = [media.image_size(file) for file in record.images]
    for file in record.videos[:1]:
        probe = media.video_size(file, fps=FPS, max_frames=MOST_FRAMES)
        sizes.insert(0, (probe.height, probe.width))
    return sizes[0] if sizes else None


def view_on_page(
    record: Record, answer: StructuredAnswer | None, media: MediaReader, *, masks: bool = False
) -> View:
    """The images, or the frames of the first video: with `masks` those that masks are made on. Raises MediaError."""
    return view_record(
        record,
        answer,
        fps=MASK_FPS if masks else FPS,
        max_frames=MASK_FRAMES if masks else MOST_FRAMES,
        media=media,
        bounds=BOUNDS,
        every_frame=True,
    )


def film_html(
    view: View, answer: StructuredAnswer | None = None, masks: Masks | None = None, *, truth: bool = True
) -> str:
    """Images below each other; of a video one frame, the others behind a scrubber. "" where there is no medium.

    Args:
        view: of the record.
        answer: the model's.
        masks: the answer's.
        truth: whether the record's own answer is drawn too, and stands on the bar.
    """
    if view.times is None:
        return "".join(
            f'<img class="still" alt="picture {number + 1}" src="{_picture(view, number, answer, masks, truth)}">'
            for number in range(len(view.frames))
        )
    times = view.times
    length = max(view.duration, *times, 1e-3)
    first = _first_named(times, answer)
    frames = "".join(
        f'<img alt="frame at {time:.1f} s" data-time="{time:.2f}" data-at="{100 * time / length:.2f}"'
        f'{"" if number == first else " hidden"} src="{_picture(view, number, answer, masks, truth)}">'
        for number, time in enumerate(times)
    )
    spans = {"true": view.annotations if truth else None, "predicted": answer}
    bar, head = timeline_html(length, spans), 100 * times[first] / length
    rail = f'<div class="rail">{bar}<i class="head" style="left:{head:.2f}%"></i></div>' if bar else ""
    return (  # the scrubber is as long as the bar is from its beginning to the last frame
        f'<div class="scrubbed"><div class="screen">{frames}</div><div class="controls">'
        f'<button type="button" class="play" aria-label="Play">▶</button><div class="track">{rail}'
        f'<input type="range" aria-label="Frame" min="0" max="{len(times) - 1}" value="{first}"'
        f' style="width:{100 * times[-1] / length:.2f}%"></div>'
        f"<output>{times[first]:.1f} s</output></div></div>"
    )


def _first_named(times: Sequence[float], answer: StructuredAnswer | None) -> int:
    """The number of the first frame that an answer says something of, else 0."""
    if answer is None:
        return 0
    if answer.boxes:
        wanted = float(min(answer.boxes))
    elif answer.span is not None:
        wanted = answer.span[0]
    else:
        wanted = answer.key_time or 0.0
    return min(range(len(times)), key=lambda number: abs(times[number] - wanted))


def _picture(
    view: View, number: int, answer: StructuredAnswer | None, masks: Masks | None, truth: bool
) -> str:
    """A picture of the view with both answers on it, inside a URI."""
    time = None if view.times is None else view.times[number]
    times = view.times or ()
    true = Annotations()
    if truth:
        true = annotations_at(view.annotations, time, times, view.masks.near(time) if view.masks else None)
    predicted = annotations_at(answer, time, times, masks.near(time) if masks else None)
    height, width = view.frames[number].shape[:2]
    side = IMAGE_SIDE if time is None else FRAME_SIDE
    return _uri(draw(view.frames[number], true, predicted, max(round(width * side / max(height, width)), 1)))


def _uri(picture: Image.Image) -> str:
    """As JPEG: for a whole film `draw.data_uri`, which tries PNG as well, takes too long."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
