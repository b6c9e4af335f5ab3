"""What the demo prints of a response: reasoning, answer, places and times, warnings, speed."""

import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from onethinker_jax.assistant import Answer, Response
from onethinker_jax.data_pipeline.drawing.time_bar import time_text
from onethinker_jax.data_pipeline.drawing.views import Masks, View
from onethinker_jax.rewards.answers import Box, StructuredAnswer

SHORTEST = 0.1  # seconds of a response that a speed is told of
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey these


def shown(answer: Answer) -> str:
    """The answer's text; of multiple choice the option that it names."""
    return answer.parsed if isinstance(answer.parsed, str) else str(answer)


def print_answer(console: Console, answer: Answer, *, raw: bool) -> None:
    """Reasoning and answer; the whole response where a tag is missing, so that nothing is left out."""

    def section(title: str, text: str) -> None:
        console.print(Text(title, style="bold"))
        said = Text(_CONTROL.sub("\ufffd", text.strip()) or "(empty)")
        console.print(said, soft_wrap=not console.is_terminal)
        console.print()

    if raw or answer.reasoning is None or answer.text is None:
        section("Response", answer.response.text)
    else:
        section("Reasoning", answer.reasoning)
    if answer.text is not None and not raw:
        section("Answer", shown(answer))
    for said in wrong_with(answer):
        print_warning(console, said)


def wrong_with(answer: Answer) -> Iterator[str]:
    """What keeps a response from being read, a sentence each."""
    for tag, part in (("think", answer.reasoning), ("answer", answer.text)):
        if part is None:
            yield f"the response has no <{tag}>…</{tag}>"
    if answer.error is not None:
        yield f"the answer {answer.error}"


def described(
    structured: StructuredAnswer | None,
    masks: Masks | None,
    view: View,
    size: tuple[int, int] | None = None,
) -> Iterator[tuple[str, str]]:
    """(part, what the answer says of it) of a structured answer; places in pixels of the file's own size.

    `size` is its height and width, by default those of the view's frames.
    """
    if structured is None:
        return
    height, width = size or view.frames[0].shape[:2]

    def place(point: Sequence[float]) -> str:
        sides = (width, height) * (len(point) // 2)
        pixels = ", ".join(f"{value * side / 1000:.0f}" for value, side in zip(point, sides, strict=True))
        return f"[{pixels}]"

    def place_of_box(box: Box) -> str:
        shares = ", ".join(f"{value:g}" for value in box)
        return f"{place(box)} of {width} x {height} pixels, [{shares}] of 1000"

    if structured.span is not None or structured.key_time is not None:
        name = "time" if structured.span is not None else "key frame"
        yield name, f"{time_text(structured)} of {view.duration:.1f} s"
    if structured.box is not None:
        yield "box", place_of_box(structured.box)
    for second, box in sorted(structured.boxes.items()):
        yield f"box at {second} s", place_of_box(box)
    if structured.positive_points:
        yield "inside", " ".join(map(place, structured.positive_points))
    if structured.negative_points:
        yield "outside", " ".join(map(place, structured.negative_points))
    if masks is not None:
        shares = 100 * masks.masks.mean(axis=(1, 2))
        many = f", {len(shares)} frames from {shares.min():.1f}% to {shares.max():.1f}%"
        yield "mask", f"{shares.mean():.1f}% of the picture{many if len(shares) > 1 else ''}"


def print_end(console: Console, response: Response, limit: int) -> None:
    """How the response ended, and its speed."""
    if response.reason == "length":
        print_warning(console, f"cut off after --max-new-tokens {limit}")
    ends = {"stop": "ended by itself", "length": "cut off", "stop_string": "ended at a stop string"}
    said = f"{response.tokens} tokens after a prompt of {response.prompt_tokens}"
    if response.seconds < SHORTEST:  # too short to tell a speed from
        said += f" in less than {SHORTEST:g} s"
    else:
        said += f" in {response.seconds:.1f} s, {response.tokens / response.seconds:.1f} a second"
    console.print(Text(f"{said}; {ends[response.reason]}"), soft_wrap=True)


def print_warning(console: Console, text: str) -> None:
    """One line that begins with "warning:"."""
    console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)
