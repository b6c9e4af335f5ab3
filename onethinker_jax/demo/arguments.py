"""The flags of the demo. Imports no JAX: `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from onethinker_jax.command_line import UsageError
from onethinker_jax.demo.question import Question, split_words
from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.tasks import PROBLEM_TYPES

if TYPE_CHECKING:
    Task = str
else:
    Task = Literal[PROBLEM_TYPES]  # the flag's choices


@dataclass(frozen=True, kw_only=True)
class Arguments(ModelArguments):
    """MODEL [MEDIA ...] QUESTION: asks a Hugging Face directory about images, videos or none, and draws the answer."""

    words: tyro.conf.Positional[
        tuple[Annotated[str, tyro.conf.arg(metavar="[MEDIA ...] QUESTION")], ...]
    ] = ()
    """Image and video files, which of them their content says, in the order of <image> and <video> in the question,
    or of none in front of it; last, the question."""
    task: Task = "open-ended"
    """What kind of answer is asked for."""
    options: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="option")] = ()
    """An option of a multiple-choice question: given once for each, in order."""
    chat: bool = False
    """Keeps the model loaded and reads questions from standard input, a line each; docs/demo.md says in what form."""
    serve: bool = False
    """Serves a page to ask on, with other flags: `--serve --help` lists them."""
    out: Path | None = None
    """File of the picture; by default <name of the first medium>_answer.png in the current folder, or _answer_2 where
    that is there, and none where there is no medium."""
    clip: bool = True
    """Writes an MP4 beside the picture where the answer is about places or times of a video."""
    overwrite: bool = False
    """Replaces an older picture and clip of the same name."""
    raw: bool = False
    """Prints the response as the model wrote it, tags included."""

    def question(self) -> Question:
        """What the words ask. Raises UsageError."""
        media, text = split_words(self.words)
        return Question(text, media, self.task, self.options)

    def check_chat(self) -> None:
        """Raises UsageError naming what goes with one question only."""
        if self.words:
            raise UsageError(f"--chat reads its questions from standard input; leave out {self.words[0]!r}")
        if self.options:
            raise UsageError("--chat: give options by /option, after /task multiple choice")
        if self.out is not None:
            raise UsageError("--out names one picture, and --chat draws one for each question")
