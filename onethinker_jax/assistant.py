"""A model to be asked: images, videos or none and a question in, reasoning and answer out.

    assistant = onethinker_jax.load("Qwen3-VL-2B-Instruct", dtype="bfloat16")
    print(assistant.answer("street.jpg", "Where is the bicycle?", task="spatial grounding").parsed)

The demo asks through the same object. The programs are compiled at the first question of a size; the weights are
read at the first question, or by `load` before.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from flax import nnx

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.model.generation.continuous_batching import EndReason
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.model_arguments import ModelArguments
from onethinker_jax.question import Medium, media_files, question_record
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.answers import (
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
)
from onethinker_jax.rewards.equivalence.quantities import number_error, number_value
from onethinker_jax.rewards.option_answers import option_letter, option_letters
from onethinker_jax.sampler_settings import padded
from onethinker_jax.spelling import hint
from onethinker_jax.tasks import TABLE


@dataclass(frozen=True)
class Response:
    """What the model wrote, and how long that took: the prompt's prefill included, compiling not."""

    text: str
    reason: EndReason
    tokens: int
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What a response says. `str(answer)` is its text, or the whole response where that has none."""

    response: Response
    reasoning: str | None
    """None: the response has no <think>…</think>."""
    text: str | None
    """None: the response has no <answer>…</answer>."""
    parsed: StructuredAnswer | float | str | None
    """A place, time or track as a `StructuredAnswer`; of a number the float; of multiple choice the option that is
    chosen; else the text. None where the text is no answer to the task."""
    error: str | None
    """Why it is none, such as "is no number"."""

    def __str__(self) -> str:
        return self.response.text.strip() if self.text is None else self.text

    @property
    def structured(self) -> StructuredAnswer | None:
        """`parsed`, where it is a structured answer."""
        return self.parsed if isinstance(self.parsed, StructuredAnswer) else None


class Assistant:
    """A model, its processor and its samplers, one for each padded size of prompts."""

    def __init__(
        self,
        settings: ModelArguments,
        status: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ):
        """Reads the processor. `status` is entered for as long as what it names lasts.

        Raises ProcessorError, PromptError, UsageError.
        """
        self.settings, self.processor = settings, settings.processor()
        self._status, self._mesh = status, make_mesh()
        self._model: tuple[nnx.GraphDef, nnx.State] | None = None
        self._samplers: dict[tuple[int, int], Sampler] = {}

    def model(self) -> tuple[nnx.GraphDef, nnx.State]:
        """The graph and the weights, read once. Raises ConfigError, WeightsError."""
        if self._model is None:
            with self._status("loading the model"):
                self._model = self.settings.load(self._mesh)
        return self._model

    def answer(
        self,
        media: Medium | Sequence[Medium] | None,
        question: str,
        *,
        task: str = "open-ended",
        options: Sequence[str] = (),
        seed: int | None = None,
    ) -> Answer:
        """The answer to one question; the same seed, by default the settings', gives the same answer.

        Args:
            media: the path of an image or video, a PIL image, uint8 pixels [H, W, 3], several of these in the order
                of <image> and <video> in the question, or None.
            question: its text.
            task: what kind of answer is asked for, a problem type such as "multiple choice" or "tracking".
            options: of multiple choice, in order.
            seed: of the sampling, where the temperature is above 0.

        Raises UsageError: a question that cannot be asked.
        Raises MediaError: a file that cannot be read.
        Raises PromptError: <image> and <video> of the question do not fit the media.
        """
        record = question_record(question, media_files(media), task=task, options=options)
        return read_answer(self.respond(self.processor.prompt(record), seed=seed), record)

    def respond(self, prompt: Example, *, seed: int | None = None) -> Response:
        """The model's one response to a prompt. Raises ConfigError, WeightsError, UsageError."""
        size = padded(len(prompt.tokens)), padded(len(prompt.patches))
        settings = self.settings.sampler(prompt_slots=1, prompt_tokens=size[0], prompt_patches=size[1])
        graphdef, params = self.model()
        if size not in self._samplers:
            dtype = self.settings.dtype
            sampler = Sampler(graphdef, self.processor, settings, mesh=self._mesh, compute_dtype=dtype)
            with self._status("compiling"):
                sampler.warm_up(params)
            self._samplers[size] = sampler
        with self._status("thinking"):
            began = time.monotonic()
            seed = self.settings.seed if seed is None else seed
            (samples,) = self._samplers[size](params, [prompt], seed=seed, step=0)
            seconds = time.monotonic() - began
        return Response(
            samples.texts[0], samples.reasons[0], len(samples.tokens[0]), len(prompt.tokens), seconds
        )


def load(path: str | PathLike[str], **settings: Any) -> Assistant:
    """A Hugging Face directory as an object to be asked.

    Args:
        path: the directory: weights, tokenizer and processor files.
        settings: by name those of `ModelArguments`, which `demo` and `evaluate` have as flags, such as
            `max_new_tokens`, `temperature`, `seed`, `dtype`, `video_max_frames`.

    Raises UsageError: a setting that there is not, or that cannot work.
    Raises ConfigError, ProcessorError, PromptError, WeightsError: a directory that cannot be read.
    """
    known = [field.name for field in fields(ModelArguments) if field.name != "model"]
    for name in settings:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}; there are: {', '.join(known)}{hint(name, known)}")
    arguments = ModelArguments(model=Path(path), **settings)
    if arguments.dtype not in ("float32", "bfloat16"):
        raise UsageError(f"dtype {arguments.dtype!r} is not float32 or bfloat16")
    # A setting that cannot work is named before anything is read.
    arguments.sampler(prompt_slots=1, prompt_tokens=1, prompt_patches=0)
    assistant = Assistant(arguments)
    assistant.model()
    return assistant


def read_answer(response: Response, record: Record) -> Answer:
    """The parts of a response to a record's question; any text at all is read."""
    text = extract_answer(response.text)
    parsed, error = (None, None) if text is None else _parsed(text, record)
    return Answer(response, extract_thinking(response.text), text, parsed, error)


def _parsed(text: str, record: Record) -> tuple[StructuredAnswer | float | str | None, str | None]:
    """The answer that a text is to the record's question, or None and why it is none."""
    kind = TABLE[record.problem_type].answer
    if kind == "JSON":
        structured = parse_structured(text, record.problem_type, record.data_type)
        return structured, None if structured else f"cannot be read as an answer to {task_of(record)}"
    if kind == "letter":
        option = _chosen(text, record.options)
        return option, None if option else "names none of the options"
    if kind in ("number", "estimate"):
        if number_error(text, record.problem_type) is not None:
            return None, "is no number"
        number = number_value(text)
        return text if number is None else number, None  # an expression, such as 2√3, stays a text
    return text or None, None if text else "is empty"


def _chosen(text: str, options: Sequence[str]) -> str | None:
    """The option, with its letter, that an answer names; None when it names none."""
    letter, letters = option_letter(text, options), option_letters(options)
    if letter is None or letter not in letters:
        return None
    option = options[letters.index(letter)]
    return option if option_letter(option) == letter else f"{letter}. {option}"
