"""A model, an image or a video or neither, and a question -> the reasoning, the answer, and a picture of it.

    python -m onethinker_jax.demo MODEL_DIRECTORY street.jpg "Where is the bicycle?" --task "spatial grounding"
    python -m onethinker_jax.demo MODEL_DIRECTORY "What is 17 times 23?" --task math

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax.interrupts import interrupts_end_at_once, interrupts_raise

if __name__ == "__main__":  # the imports below take seconds
    interrupts_end_at_once("stopped")

import contextlib
import mimetypes
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from PIL import Image
from rich.console import Console
from rich.text import Text

from onethinker_jax.command_line import UsageError, parse
from onethinker_jax.data_pipeline.answer_picture import answer_picture, time_text
from onethinker_jax.data_pipeline.media import media_kind
from onethinker_jax.data_pipeline.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor import Example, Processor
from onethinker_jax.data_pipeline.records import PROBLEM_TYPES, TASKS, Record, task_of
from onethinker_jax.data_pipeline.views import Masks, View, view_record
from onethinker_jax.evaluate import EXPECTED, ModelArguments
from onethinker_jax.model.continuous_batching import EndReason
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.answers import (
    STRUCTURED_TYPES,
    Box,
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
)
from onethinker_jax.rewards.client import RewardClient
from onethinker_jax.rewards.option_answers import option_letter, option_letters
from onethinker_jax.rewards.quantities import number_fault
from onethinker_jax.rewards.sidecar import connect
from onethinker_jax.sampler_settings import padded
from onethinker_jax.scoring import MASK_FPS, MASK_FRAMES, mask_pictures

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey these


if TYPE_CHECKING:
    Task = str
else:
    Task = Literal[PROBLEM_TYPES]  # the flag's choices


@dataclass(frozen=True, kw_only=True)
class Arguments(ModelArguments):
    """Asks a Hugging Face directory one question about one image or video, or about neither, and draws the answer."""

    media: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MEDIA")]]
    """Image or video file; which of them, its content says. Left out, the question is about no medium."""
    question: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="QUESTION")]] = ""
    task: Task = "open-ended"
    """What kind of answer is asked for."""
    options: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="option")] = ()
    """Of multiple choice: once for each option, in order."""
    out: Path | None = None
    """File of the picture; by default <name of the medium>_answer.png in the current folder, and none where there
    is no medium."""
    raw: bool = False
    """Prints the response as the model wrote it, tags included."""

    @property
    def medium(self) -> Path | None:
        """The file that is asked about; None where a question is all that was given.

        Raises UsageError where it is a file that was given, and no question.
        """
        if self.question:
            return Path(self.media)
        # A question may be any text, too long for a file's name too, which os.path.exists takes for none.
        named = (mimetypes.guess_type(self.media)[0] or "").startswith(("image/", "video/"))
        if os.path.exists(self.media) or (named and not re.search(r"\s", self.media)):
            raise UsageError(f"the question about {self.media} is missing")
        return None

    def picture_file(self) -> Path | None:
        """Where the picture goes; None: nowhere.  Raises UsageError when none can be written there."""
        medium = self.medium
        if medium is None and self.out is None:
            return None
        file = self.out or Path(f"{medium.stem if medium else ''}_answer.png")
        if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
            raise UsageError(f"--out {file}: not the name of a picture, such as answer.png")
        if not file.parent.is_dir():
            raise UsageError(f"--out {file}: there is no folder {file.parent}")
        if medium is not None and file.exists() and medium.exists() and file.samefile(medium):
            raise UsageError(f"--out {file}: is the medium itself")
        return file

    def record(self) -> Record:
        """The question as the pipeline takes it.  Raises UsageError, or MediaError naming the file."""
        medium = self.medium
        question = self.media if medium is None else self.question
        if not question.strip():
            raise UsageError("the question is empty")
        if self.task == "multiple choice" and not 2 <= len(self.options) <= 26:
            raise UsageError(
                f"--task 'multiple choice' needs 2 to 26 times --option, has {len(self.options)}"
            )
        if self.task != "multiple choice" and self.options:
            raise UsageError(f"--option is for --task 'multiple choice', not {self.task!r}")
        kind = "text" if medium is None else media_kind(medium)
        if f"{self.task} ({kind})" not in TASKS:
            needs = [_article(one) for one in ("image", "video") if f"{self.task} ({one})" in TASKS]
            has = "there is none" if medium is None else f"{medium} is {_article(kind)}"
            raise UsageError(f"--task {self.task!r} needs {' or '.join(needs)}, and {has}")
        files = () if medium is None else (medium,)
        return Record(
            problem_id="question" if medium is None else medium.name,
            problem=question,
            data_type=kind,
            problem_type=self.task,
            options=self.options,
            answer="",
            images=files if kind == "image" else (),
            videos=files if kind == "video" else (),
            data_source="demo",
        )


@dataclass(frozen=True)
class Response:
    """What the model wrote, and how long that took: prompt included, compiling not."""

    text: str
    reason: EndReason
    tokens: int
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What a response says."""

    reasoning: str | None  # None: the response has no <think>…</think>
    text: str | None  # None: no <answer>…</answer>
    marks: StructuredAnswer | None  # of the tasks whose answers are structured
    fault: str | None  # why the text is no answer to the task


def ask(arguments: Arguments, console: Console) -> None:
    """Prints reasoning and answer, and writes the picture if there is to be one."""
    file, record, processor = arguments.picture_file(), arguments.record(), arguments.processor()
    with contextlib.ExitStack() as open_until_the_end:
        with _status("reading the media"):
            prompt = processor.prompt(record)
            client = None
            if record.problem_type == "segmentation":
                client = open_until_the_end.enter_context(connect(arguments.sidecar))
        response = respond(arguments, processor, prompt)
        answer = read_answer(response.text, record)
        _print_response(console, response, answer, record, raw=arguments.raw)
        with _status("drawing"):
            masks = None
            if client is not None and answer.marks is not None:
                masks = make_masks(client, record, answer.marks, processor.media)
            view = view_record(
                record,
                answer.marks,
                fps=MASK_FPS,
                max_frames=MASK_FRAMES if masks else 128,  # the very frames that masks are made on
                media=processor.media,
            )
            if file is not None:
                said = caption(response.text, answer, record)
                answer_picture(view, answer.marks, masks, text=said).save(file, optimize=True)
    for name, value in described(answer.marks, masks, view):
        console.print(Text(f"{name:<14}{value}"), soft_wrap=True)
    _print_end(console, response, arguments.max_new_tokens)
    if file is not None:
        console.print(Text(f"picture: {file}"), soft_wrap=True)


def respond(arguments: Arguments, processor: Processor, prompt: Example) -> Response:
    """The model's one response.  Raises ConfigError, WeightsError, UsageError."""
    settings = arguments.sampler(
        rows=1, prompt_tokens=padded(len(prompt.tokens)), prompt_patches=padded(len(prompt.patches))
    )
    mesh = make_mesh()
    with _status("loading the model"):
        graphdef, params = arguments.load(mesh)
    sampler = Sampler(graphdef, processor, settings, mesh=mesh, compute_dtype=arguments.dtype)
    with _status("compiling"):
        sampler.warm_up(params)
    with _status("thinking"):
        began = time.monotonic()
        (samples,) = sampler(params, [prompt], seed=arguments.seed, step=0)
        seconds = time.monotonic() - began
    return Response(samples.texts[0], samples.reasons[0], len(samples.tokens[0]), len(prompt.tokens), seconds)


def read_answer(response: str, record: Record) -> Answer:
    """The parts of a response; any text at all is read."""
    text = extract_answer(response)
    marks = parse_structured(text, record.problem_type, record.data_type)
    return Answer(extract_thinking(response), text, marks, _fault(text, marks, record))


def _fault(text: str | None, marks: StructuredAnswer | None, record: Record) -> str | None:
    if text is None:
        return None
    if record.problem_type in STRUCTURED_TYPES:
        return None if marks else f"cannot be read as an answer to {task_of(record)}"
    if record.problem_type == "multiple choice":
        return None if chosen(text, record) else "names none of the options"
    if record.problem_type in ("numerical", "regression"):
        return None if number_fault(text, record.problem_type) is None else "is no number"
    return None if text else "is empty"


def chosen(text: str, record: Record) -> str | None:
    """The option, with its letter, that an answer names; None when it names none, or there are none."""
    letter, letters = option_letter(text, record.options), option_letters(record.options)
    if letter is None or letter not in letters:
        return None
    option = record.options[letters.index(letter)]
    return option if option_letter(option) == letter else f"{letter}. {option}"


def make_masks(client: RewardClient, record: Record, marks: StructuredAnswer, media: MediaReader) -> Masks:
    """What the answer's box and points prompt.  Raises MediaError, RewardUnavailable."""
    pictures = mask_pictures(record, media)
    item = pictures.item(marks)
    masks = client.segment_videos([item])[0] if record.videos else client.segment_images([item])[0][None]
    return Masks(pictures.times, masks)


def caption(response: str, answer: Answer, record: Record) -> str | None:
    """The answer as the picture says it; None where the picture shows it."""
    if answer.marks is not None:
        return None
    if answer.text is None:
        return response.strip()
    return chosen(answer.text, record) or answer.text


def described(marks: StructuredAnswer | None, masks: Masks | None, view: View) -> Iterator[tuple[str, str]]:
    """(part, what the answer says of it) of a structured answer; places in pixels of the file's own size."""
    if marks is None:
        return
    height, width = view.frames[0].shape[:2]

    def place(point: Sequence[float]) -> str:
        sides = (width, height) * (len(point) // 2)
        pixels = ", ".join(f"{value * side / 1000:.0f}" for value, side in zip(point, sides, strict=True))
        return f"[{pixels}]"

    def place_of_box(box: Box) -> str:
        shares = ", ".join(f"{value:g}" for value in box)
        return f"{place(box)} of {width} x {height} pixels, [{shares}] of 1000"

    if marks.span is not None or marks.key_time is not None:
        name = "time" if marks.span is not None else "key frame"
        yield name, f"{time_text(marks)} of {view.duration:.1f} s"
    if marks.box is not None:
        yield "box", place_of_box(marks.box)
    for second, box in sorted(marks.boxes.items()):
        yield f"box at {second} s", place_of_box(box)
    if marks.positive_points:
        yield "inside", " ".join(map(place, marks.positive_points))
    if marks.negative_points:
        yield "outside", " ".join(map(place, marks.negative_points))
    if masks is not None:
        shares = 100 * masks.masks.mean(axis=(1, 2))
        many = f", {len(shares)} frames from {shares.min():.1f}% to {shares.max():.1f}%"
        yield "mask", f"{shares.mean():.1f}% of the picture{many if len(shares) > 1 else ''}"


def _print_response(
    console: Console, response: Response, answer: Answer, record: Record, *, raw: bool
) -> None:
    """Reasoning and answer; the whole response where a tag is missing, so that nothing is left out."""

    def section(title: str, text: str) -> None:
        console.print(Text(title, style="bold"))
        shown = Text(_CONTROL.sub("\ufffd", text.strip()) or "(empty)")
        console.print(shown, soft_wrap=not console.is_terminal)
        console.print()

    if raw or answer.reasoning is None or answer.text is None:
        section("Response", response.text)
    else:
        section("Reasoning", answer.reasoning)
    if answer.text is not None and not raw:
        section("Answer", chosen(answer.text, record) or answer.text)
    for tag, part in (("think", answer.reasoning), ("answer", answer.text)):
        if part is None:
            _warn(console, f"the response has no <{tag}>…</{tag}>")
    if answer.fault is not None:
        _warn(console, f"the answer {answer.fault}")


def _print_end(console: Console, response: Response, limit: int) -> None:
    if response.reason == "length":
        _warn(console, f"cut off after --max-new-tokens {limit}")
    ends = {"stop": "ended by itself", "length": "cut off", "stop_string": "ended at a stop string"}
    speed = response.tokens / max(response.seconds, 1e-9)
    said = f"{response.tokens} tokens after a prompt of {response.prompt_tokens} in {response.seconds:.1f} s"
    console.print(Text(f"{said}, {speed:.1f} a second; {ends[response.reason]}"), soft_wrap=True)


def _warn(console: Console, text: str) -> None:
    console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def _status(what: str) -> contextlib.AbstractContextManager[object]:
    """Says what is being done while that lasts, on a terminal."""
    return Console(stderr=True).status(f"{what} …")


def _article(kind: str) -> str:
    return "an image" if kind == "image" else "a video"


def main(arguments: Sequence[str]) -> int:
    """Parses and asks; returns the exit status."""
    try:
        interrupts_raise()
        ask(
            parse(Arguments, arguments, prog="python -m onethinker_jax.demo", description=Arguments.__doc__),
            Console(highlight=False),
        )
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except EXPECTED as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        interrupts_end_at_once()
        sys.stderr.write("stopped\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
