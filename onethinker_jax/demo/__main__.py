"""A model, images or videos or none, and a question -> the reasoning, the answer, and a picture of it.

    python -m onethinker_jax.demo MODEL_DIRECTORY street.jpg "Where is the bicycle?" --task "spatial grounding"
    python -m onethinker_jax.demo MODEL_DIRECTORY before.jpg after.jpg "What has changed?"
    python -m onethinker_jax.demo MODEL_DIRECTORY "What is 17 times 23?" --task math
    python -m onethinker_jax.demo MODEL_DIRECTORY --chat

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.demo.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.demo")

import contextlib
import io
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from flax import nnx
from rich.console import Console
from rich.text import Text

from onethinker_jax.data_pipeline.drawing.answer_picture import answer_picture, time_text
from onethinker_jax.data_pipeline.drawing.views import Masks, View, view_record
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.demo.chat import chat
from onethinker_jax.demo.question import Question, picture_file
from onethinker_jax.model.generation.continuous_batching import EndReason
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.answers import (
    Box,
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
)
from onethinker_jax.rewards.client.client import RewardClient
from onethinker_jax.rewards.client.sidecar import connect
from onethinker_jax.rewards.equivalence.quantities import number_fault
from onethinker_jax.rewards.option_answers import option_letter, option_letters
from onethinker_jax.sampler_settings import padded
from onethinker_jax.scoring import MASK_FPS, MASK_FRAMES, mask_pictures
from onethinker_jax.tasks import TABLE

SHORTEST = 0.1  # seconds of a response that a speed is told of
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey these


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


class Session:
    """A model that is loaded with the first prompt, and stays so; a context manager."""

    def __init__(self, arguments: Arguments):
        """Reads the model's processor.  Raises ProcessorError, PromptError, UsageError."""
        self.arguments, self.processor = arguments, arguments.processor()
        self._model: tuple[nnx.GraphDef, nnx.State] | None = None
        self._samplers: dict[tuple[int, int], Sampler] = {}
        self._open_until_the_end = contextlib.ExitStack()
        self._client: RewardClient | None = None
        self._mesh = make_mesh()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._open_until_the_end.close()

    def client(self) -> RewardClient:
        """The reward service that makes masks, started when it is first asked for."""
        if self._client is None:
            self._client = self._open_until_the_end.enter_context(connect(self.arguments.sidecar))
        return self._client

    def model(self) -> tuple[nnx.GraphDef, nnx.State]:
        """The graph and the weights.  Raises ConfigError, WeightsError."""
        if self._model is None:
            with _status("loading the model"):
                self._model = self.arguments.load(self._mesh)
        return self._model

    def respond(self, prompt: Example) -> Response:
        """The model's one response.  Raises ConfigError, WeightsError, UsageError."""
        size = padded(len(prompt.tokens)), padded(len(prompt.patches))
        settings = self.arguments.sampler(prompt_slots=1, prompt_tokens=size[0], prompt_patches=size[1])
        graphdef, params = self.model()
        if size not in self._samplers:
            dtype = self.arguments.dtype
            sampler = Sampler(graphdef, self.processor, settings, mesh=self._mesh, compute_dtype=dtype)
            with _status("compiling"):
                sampler.warm_up(params)
            self._samplers[size] = sampler
        with _status("thinking"):
            began = time.monotonic()
            (samples,) = self._samplers[size](params, [prompt], seed=self.arguments.seed, step=0)
            seconds = time.monotonic() - began
        return Response(
            samples.texts[0], samples.reasons[0], len(samples.tokens[0]), len(prompt.tokens), seconds
        )


def ask(session: Session, question: Question, console: Console) -> None:
    """Prints reasoning and answer, and writes the picture if there is to be one."""
    arguments, processor = session.arguments, session.processor
    file = picture_file(question.media, arguments.out, overwrite=arguments.overwrite)
    record = question.record()
    with _status("reading the media"):
        prompt = processor.prompt(record)
        client = session.client() if TABLE[record.problem_type].judged_by == "mask" else None
    response = session.respond(prompt)
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
    console.file.flush()  # whoever asks through a pipe waits for it


def talk(session: Session, console: Console) -> None:
    """Answers standard input's questions.  Raises ConfigError, WeightsError when there is no model to ask."""
    session.model()
    at_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no text is one question's error

    def lines() -> Iterator[str]:
        while True:
            if at_terminal:
                console.print(Text("> ", style="bold"), end="")
                console.file.flush()
            if not (line := sys.stdin.readline()):
                return
            yield line

    def answered(question: Question) -> None:
        ask(session, question, console)
        console.print()

    def say(text: str) -> None:
        if at_terminal:
            console.print(Text(text, style="dim"), soft_wrap=True)

    chat(lines(), answered, task=session.arguments.task, say=say)


def read_answer(response: str, record: Record) -> Answer:
    """The parts of a response; any text at all is read."""
    text = extract_answer(response)
    marks = parse_structured(text, record.problem_type, record.data_type)
    return Answer(extract_thinking(response), text, marks, _fault(text, marks, record))


def _fault(text: str | None, marks: StructuredAnswer | None, record: Record) -> str | None:
    if text is None:
        return None
    kind = TABLE[record.problem_type].answer
    if kind == "JSON":
        return None if marks else f"cannot be read as an answer to {task_of(record)}"
    if kind == "letter":
        return None if chosen(text, record) else "names none of the options"
    if kind in ("number", "estimate"):
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
    said = f"{response.tokens} tokens after a prompt of {response.prompt_tokens}"
    if response.seconds < SHORTEST:  # too short to tell a speed from
        said += f" in less than {SHORTEST:g} s"
    else:
        said += f" in {response.seconds:.1f} s, {response.tokens / response.seconds:.1f} a second"
    console.print(Text(f"{said}; {ends[response.reason]}"), soft_wrap=True)


def _warn(console: Console, text: str) -> None:
    console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def _status(what: str) -> contextlib.AbstractContextManager[object]:
    """Says what is being done while that lasts, on a terminal."""
    return Console(stderr=True).status(f"{what} …")


def run(arguments: Arguments) -> None:
    """One question or many."""
    console = Console(highlight=False)
    if arguments.chat:
        arguments.check_chat()
        with Session(arguments) as session:
            talk(session, console)
        return
    question = arguments.question()
    picture_file(question.media, arguments.out, overwrite=arguments.overwrite)  # before anything is read
    question.record()
    with Session(arguments) as session:
        ask(session, question, console)


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.demo")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
