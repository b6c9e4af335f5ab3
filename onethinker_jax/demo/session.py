"""The demo's model, which stays loaded, and how a question to it is answered, printed and drawn."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from onethinker_jax.assistant import Answer, Assistant, read_answer
from onethinker_jax.data_pipeline.drawing.answer_clip import CLIP_BOUNDS, CLIP_FPS, CLIP_FRAMES, write_clip
from onethinker_jax.data_pipeline.drawing.answer_picture import answer_picture
from onethinker_jax.data_pipeline.drawing.views import Masks, view_record
from onethinker_jax.data_pipeline.media.h264_file import EncoderError
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo.arguments import Arguments
from onethinker_jax.demo.chat import chat
from onethinker_jax.demo.printing import described, print_answer, print_end, print_warning, shown
from onethinker_jax.demo.question import Question, answer_files
from onethinker_jax.rewards.answers import StructuredAnswer
from onethinker_jax.rewards.client.client import RewardClient
from onethinker_jax.rewards.client.sidecar import connect
from onethinker_jax.scoring import MASK_FPS, MASK_FRAMES, mask_pictures
from onethinker_jax.tasks import TABLE


class Session:
    """A model that is loaded with the first prompt, and the service that makes masks; a context manager."""

    def __init__(self, arguments: Arguments):
        """Reads the model's processor. Raises ProcessorError, PromptError, UsageError."""
        self.arguments, self.assistant = arguments, Assistant(arguments, _status)
        self._open_until_the_end = contextlib.ExitStack()
        self._client: RewardClient | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._open_until_the_end.close()

    def client(self) -> RewardClient:
        """The reward service that makes masks, started when it is first asked for."""
        if self._client is None:
            self._client = self._open_until_the_end.enter_context(connect(self.arguments.sidecar))
        return self._client


def ask(session: Session, question: Question, console: Console) -> None:
    """Prints reasoning and answer, and writes the picture and the clip where there are to be any."""
    arguments, processor = session.arguments, session.assistant.processor
    record = question.record()
    files = answer_files(question, record, arguments.out, overwrite=arguments.overwrite, clip=arguments.clip)
    with _status("reading the media"):
        prompt = processor.prompt(record)
        client = session.client() if TABLE[record.problem_type].judged_by == "mask" else None
    answer = read_answer(session.assistant.respond(prompt), record)
    print_answer(console, answer, raw=arguments.raw)
    structured = answer.structured
    with _status("drawing"):
        masks = None
        if client is not None and structured is not None:
            masks = make_masks(client, record, structured, processor.media)
        view = view_record(
            record,
            structured,
            fps=MASK_FPS,
            max_frames=MASK_FRAMES if masks else 128,  # the very frames that masks are made on
            media=processor.media,
        )
        if files.picture is not None:
            answer_picture(view, structured, masks, text=_caption(answer)).save(files.picture, optimize=True)
        clip_error = _draw_clip(files.clip, record, structured, masks, processor.media)
    for name, value in described(structured, masks, view):
        console.print(Text(f"{name:<14}{value}"), soft_wrap=True)
    print_end(console, answer.response, arguments.answer_settings().max_new_tokens)
    if clip_error is not None:
        print_warning(console, f"no clip is written: {clip_error}")
    for kind, file in (("picture", files.picture), ("clip", files.clip)):
        if file is not None and file.exists():
            console.print(Text(f"{kind}: {file}"), soft_wrap=True)
    console.file.flush()  # whoever asks through a pipe waits for it


def talk(session: Session, console: Console) -> None:
    """Answers standard input's questions. Raises ConfigError, WeightsError when there is no model to ask."""
    session.assistant.model()
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


def make_masks(client: RewardClient, record: Record, prompt: StructuredAnswer, media: MediaReader) -> Masks:
    """What the answer's box and points prompt. Raises MediaError, RewardUnavailable."""
    pictures = mask_pictures(record, media)
    item = pictures.item(prompt)
    masks = client.segment_videos([item])[0] if record.videos else client.segment_images([item])[0][None]
    return Masks(pictures.times, masks)


def _draw_clip(
    file: Path | None,
    record: Record,
    structured: StructuredAnswer | None,
    masks: Masks | None,
    media: MediaReader,
) -> EncoderError | None:
    """Writes the clip, where there is to be one; or why it cannot be written here. No older one stays in its place.

    Masks are drawn on the very frames that they are made on.
    """
    if file is None:
        return None
    file.unlink(missing_ok=True)
    if structured is None:
        return None
    fps, frames = (MASK_FPS, MASK_FRAMES) if masks else (CLIP_FPS, CLIP_FRAMES)
    video = media.video(record.videos[0], CLIP_BOUNDS, fps=fps, max_frames=frames)
    try:
        write_clip(file, video, structured, masks, question=words_of(record.problem).strip())
    except EncoderError as error:
        return error
    return None


def _caption(answer: Answer) -> str | None:
    """The answer as the picture says it; None where the picture shows it."""
    return None if answer.structured is not None else shown(answer)


def _status(what: str) -> contextlib.AbstractContextManager[object]:
    """Says what is being done while that lasts, on a terminal."""
    return Console(stderr=True).status(f"{what} …")
