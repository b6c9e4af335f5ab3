"""A bar over a video's length, with the answer's span or key time on it and ticks below."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from onethinker_jax.data_pipeline.drawing.captions import BACKGROUND, FAINT, INK, load_font
from onethinker_jax.data_pipeline.drawing.draw import PREDICTED
from onethinker_jax.data_pipeline.drawing.views import tick_step
from onethinker_jax.rewards.answers import StructuredAnswer

LANE = (225, 228, 232)
LANE_TOP, LANE_BOTTOM, HEIGHT = 24, 38, 62
_LEFT, _RIGHT = 6, 34  # the last tick's text has room


@dataclass(frozen=True)
class TimeBar:
    """The bar of a video of `length` seconds, `width` pixels wide."""

    length: float
    width: int

    def column(self, time: float) -> int:
        """The pixel column of a time; what lies outside the video is held at its ends."""
        reach = self.width - _LEFT - _RIGHT
        return _LEFT + round(reach * min(max(time / self.length, 0.0), 1.0))

    def picture(self, annotations: StructuredAnswer | None, marks: Sequence[float]) -> Image.Image:
        """The bar with the answer's span or key time, where it has one, and thin lines at the seconds `marks`."""
        bar = Image.new("RGB", (self.width, HEIGHT), BACKGROUND)
        pen, font = ImageDraw.Draw(bar), load_font(15)
        pen.rounded_rectangle((self.column(0), LANE_TOP, self.column(self.length), LANE_BOTTOM), 4, fill=LANE)
        for time in marks:
            pen.line((self.column(time), LANE_TOP, self.column(time), LANE_BOTTOM), fill=FAINT, width=1)
        if annotations is not None and has_time(annotations):
            moment = annotations.key_time or 0.0
            start, end = annotations.span or (moment, moment)
            left = self.column(start)
            right = max(self.column(end), left + 4)  # a moment, or a span that ends before it begins
            pen.rounded_rectangle((left, LANE_TOP - 3, right, LANE_BOTTOM + 3), 3, fill=PREDICTED)
            said = time_text(annotations)
            pen.text((min(left, self.width - round(font.getlength(said))), 8), said, INK, font, anchor="lm")
        step = tick_step(self.length)
        for number in range(int(self.length / step) + 1):
            at = self.column(number * step)
            pen.line((at, 42, at, 46), fill=FAINT, width=1)
            pen.text((at, 54), f"{number * step:g} s", FAINT, font, anchor="lm" if number == 0 else "mm")
        return bar


def bar_length(duration: float, times: Sequence[float]) -> float:
    """Seconds of a video whose frames come on screen at `times`; above 0."""
    return max(duration, *times, 1e-3)


def has_time(annotations: StructuredAnswer | None) -> bool:
    """Whether the answer has a span or a key time."""
    return annotations is not None and (annotations.span is not None or annotations.key_time is not None)


def is_named(annotations: StructuredAnswer | None, time: float, times: Sequence[float]) -> bool:
    """Whether `time`, of the frames' `times`, lies in the answer's span or is the nearest to its key time."""
    if annotations is not None and annotations.span is not None:
        return annotations.span[0] <= time <= annotations.span[1]
    key = annotations.key_time if annotations is not None else None
    return key is not None and time == min(times, key=lambda other: abs(other - key))


def time_text(annotations: StructuredAnswer) -> str:
    """The answer's span, or its key time."""
    if annotations.span is not None:
        return f"{annotations.span[0]:g} to {annotations.span[1]:g} s"
    return f"{annotations.key_time:g} s"
