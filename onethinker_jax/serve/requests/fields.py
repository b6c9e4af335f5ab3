"""What clients send: OpenAI's chat completions, as far as they are supported, and tokenisation as vLLM has it.

A field that would change the answer and is not supported is refused by its name, unless it says what happens anyway.
A field that cannot change the answer is taken and has no effect. Unknown fields are refused.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from onethinker_jax.model.generation.sampling import TOP_LOGPROBS
from onethinker_jax.serve.errors import Refused, wrong
from onethinker_jax.spelling import hint

T = TypeVar("T", bound=BaseModel)

MOST_MESSAGES, MOST_PARTS, MOST_STOPS, LONGEST_STOP = 256, 1024, 16, 256

NO_EFFECT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention"),
)
"""Fields of a request that cannot change its answer."""

UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "structured_outputs": (),
}
"""Fields of a request that are not supported -> what they may say all the same, because it is so anyway."""

_MESSAGE_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "name": (),
    "refusal": (),
    "audio": (),
    "tool_calls": ([],),
    "function_call": (),
    "annotations": ([],),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Address(_Strict):
    """Where a medium is: a data URL, a file or an http(s) URL. `detail` has no effect."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class TextPart(_Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImagePart(_Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: Address


class VideoPart(_Strict):
    """A video."""

    type: Literal["video_url"]
    video_url: Address


PART_TYPES = ("text", "image_url", "video_url")
Part = Annotated[TextPart | ImagePart | VideoPart, Discriminator("type")]


def _supported(data: Any, unsupported: Mapping[str, tuple[Any, ...]], no_effect: tuple[str, ...] = ()) -> Any:
    """The fields of an object without those that have no effect or are null. Raises ValueError naming one."""
    if not isinstance(data, dict):
        return data
    kept = {}
    for name, value in data.items():
        if value is None or name in no_effect:
            continue
        if name not in unsupported:
            kept[name] = value
        elif not any(value == neutral for neutral in unsupported[name]):
            raise ValueError(f"{name} is not supported")
    return kept


class Message(_Strict):
    """One turn of a conversation; a text alone is one part."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], Field(min_length=1, max_length=MOST_PARTS)]

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, data: Any) -> Any:
        kept = _supported(data, _MESSAGE_UNSUPPORTED)
        if isinstance(kept, dict) and isinstance(content := kept.get("content"), str):
            kept["content"] = [{"type": "text", "text": content}]
        return kept


class FrameTimes(_Strict):
    """When the frames of a `video/jpeg` data URL are shown, as vLLM is told: frame i at frames_indices[i] / fps s."""

    num_frames: Literal[-1] = -1
    do_sample_frames: Literal[False]
    fps: Annotated[float, Field(gt=0, le=10**6)]
    frames_indices: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=MOST_PARTS)
    ]
    total_num_frames: Annotated[int, Field(ge=1, lt=2**31)]
    duration: float | None = None

    @model_validator(mode="after")
    def _increasing(self) -> "FrameTimes":
        numbers = [*self.frames_indices, self.total_num_frames]
        if numbers[0] or any(after <= before for before, after in pairwise(numbers)):
            raise ValueError("frames_indices must increase from 0, to less than total_num_frames")
        return self


class FrameCount(_Strict):
    """How many frames of each video are read, evenly by their number, in place of the server's frames a second."""

    num_frames: Annotated[int, Field(ge=1)]


def _says(video: Any) -> str:
    alone = isinstance(video, FrameCount) or (isinstance(video, dict) and set(video) == {"num_frames"})
    return "count" if alone else "times"


VideoSettings = Annotated[
    Annotated[FrameTimes, Tag("times")] | Annotated[FrameCount, Tag("count")], Discriminator(_says)
]


class MediaSettings(_Strict):
    """How media are read, in vLLM's words."""

    video: VideoSettings | None = None


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


Stop = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_STOP)]


class ChatRequest(_Strict):
    """`POST /v1/chat/completions`."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    stop: Annotated[list[Stop], Field(max_length=MOST_STOPS)] = []
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    media_io_kwargs: MediaSettings = MediaSettings()
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS)] = 0

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, data: Any) -> Any:
        kept = _supported(data, UNSUPPORTED, NO_EFFECT)
        if isinstance(kept, dict) and isinstance(stop := kept.get("stop"), str):
            kept["stop"] = [stop]
        return kept

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.stream_options.include_obfuscation:
            raise ValueError("stream_options.include_obfuscation is not supported")
        if self.model_fields_set >= {"stream_options"} and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens say different things")
        return self

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of an answer, None where the request does not say."""
        return self.max_completion_tokens or self.max_tokens


class TokenizeRequest(_Strict):
    """`POST /tokenize`: a text as it is, or a conversation as the model is given it."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    return_token_strs: bool = False

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, data: Any) -> Any:
        return _supported(data, {"add_special_tokens": (True, False), "add_generation_prompt": (True,)})

    @model_validator(mode="after")
    def _one_of_them(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages")
        return self


def parsed(kind: type[T], body: bytes) -> T:
    """The request in a body. Raises Refused naming the first thing that is wrong with it."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _first(kind, error) from None


def _first(kind: type[BaseModel], error: ValidationError) -> Refused:
    found = error.errors(include_url=False, include_context=False)[0]
    where = _path(found["loc"])
    if found["type"] == "json_invalid":
        return wrong(f"the body is not JSON ({found['msg'].removeprefix('Invalid JSON: ')})")
    said = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        known = kind.model_fields if len(found["loc"]) == 1 else ()
        return wrong(f"{where[:80]}: is no field that is known here{hint(where, known)}", where[:80])
    if not where:
        return wrong(f"the request: {said[:300]}" if found["type"] != "value_error" else said[:300])
    return wrong(f"{where[:80]}: {said[:1].lower()}{said[1:300]}", where[:80])


def _path(loc: tuple[int | str, ...]) -> str:
    """Such as messages[0].content[1].image_url.url."""
    text = ""
    for number, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
        elif number > 2 and loc[number - 2] == "content" and part in PART_TYPES:
            continue  # the branch of the union, of which the client does not know
        elif number and loc[number - 1] == "video" and part in ("times", "count"):
            continue
        else:
            text += f".{part}" if text else part
    return text
