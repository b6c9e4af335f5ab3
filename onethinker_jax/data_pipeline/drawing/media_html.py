"""The media of a record as HTML: its images, or a film of frames over a bar with times, answers drawn on them."""

from html import escape

from onethinker_jax.data_pipeline.drawing.draw import Annotations, annotations_at, data_uri, draw
from onethinker_jax.data_pipeline.drawing.views import Masks, View, timeline_html
from onethinker_jax.rewards.answers import StructuredAnswer


def media_html(
    view: View,
    predicted: StructuredAnswer | None = None,
    masks: Masks | None = None,
    *,
    image_width: int = 384,
    frame_width: int = 240,
    drawn: bool = True,
) -> str:
    """The pictures of `view`, each inside the page, with the true answer and a predicted one on them.

    Args:
        view: of the record.
        predicted: an answer to it.
        masks: the answer's.
        image_width: pixels that an image is drawn at.
        frame_width: pixels that a frame of a video is drawn at.
        drawn: False leaves the pictures as they are.
    """

    def picture(number: int, time: float | None) -> str:
        truth, answer = Annotations(), Annotations()
        if drawn:
            times = view.times or ()
            true_mask = view.masks.near(time) if view.masks else None
            truth = annotations_at(view.annotations, time, times, true_mask)
            answer = annotations_at(predicted, time, times, masks.near(time) if masks else None)
        width = image_width if time is None else frame_width
        said = f"picture {number + 1}" if time is None else f"frame at {time:.1f} s"
        return f'<img alt="{escape(said)}" src="{data_uri(draw(view.frames[number], truth, answer, width))}">'

    if view.times is None:
        return "".join(picture(number, None) for number in range(len(view.frames)))
    cells = "".join(
        f"<figure>{picture(number, time)}<figcaption>{time:.1f} s</figcaption></figure>"
        for number, time in enumerate(view.times)
    )
    length = max(view.duration, *view.times)
    bar = timeline_html(length, {"true": view.annotations, "predicted": predicted}) if drawn else ""
    return f'<div class="film">{cells}</div>{bar}'
