r"""What the text of a conversation may hold, and where its media go: one set of rules for reading and for prompts.

`<image>` and `<video>` in a user's turn stand for the record's media, in order. With a backslash before it,
`\<image>` is the word itself. The text of a special token is refused anywhere: a tokenizer reads it as structure.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

from onethinker_jax.data_pipeline.records.text_errors import text_error

RESERVED_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""The special tokens of the Qwen2 to Qwen3-VL tokenizers, known without reading one."""

Kind = Literal["image", "video"]

_RESERVED = re.compile("|".join(map(re.escape, RESERVED_TOKENS)))
# An odd number of backslashes makes the word literal, and one of them goes; an even number is text (LaTeX's line end).
_WORD = re.compile(r"(?<!\\)((?:\\\\)*)(\\?)<(image|video)>")


class Turn(NamedTuple):
    """A text that becomes part of a conversation."""

    field: str  # its name in errors: "messages[0].content", "options[2]"
    role: str  # "system", "user", "assistant"; "option": of a question, without media
    text: str


class Part(NamedTuple):
    """A piece of a text: a medium, or words as the model reads them."""

    kind: Literal["image", "video", "text"]
    text: str = ""


def split_media(text: str) -> list[Part]:
    r"""The text as media and words, in order; `\<image>` has become `<image>` among the words."""
    parts: list[Part] = []
    words, at = "", 0
    for found in _WORD.finditer(text):
        words += text[at : found.start()] + found[1]
        at = found.end()
        if found[2]:
            words += f"<{found[3]}>"
            continue
        if words:
            parts.append(Part("text", words))
            words = ""
        parts.append(Part(cast(Kind, found[3])))
    words += text[at:]
    return [*parts, Part("text", words)] if words else parts


def literal(text: str) -> str:
    r"""What stands for a text in a conversation: `split_media(literal(text))` is the text alone, without media.

    Raises ValueError for an odd number of backslashes before <image> or <video>, which nothing stands for.
    """

    def marked(found: re.Match[str]) -> str:
        if found[2]:
            raise ValueError(f"a backslash before <{found[3]}>, which no prompt can hold")
        return f"{found[1]}\\<{found[3]}>"

    return _WORD.sub(marked, text)


def media_kinds(text: str) -> list[Kind]:
    """The kind of each medium that the text names, in order."""
    return [cast(Kind, found[3]) for found in _WORD.finditer(text) if not found[2]]


def words_of(text: str) -> str:
    r"""The text as a reader sees it: without its media, `\<image>` as `<image>`."""
    return "".join(part.text for part in split_media(text))


def reserved_token(text: str) -> str | None:
    """The first special token whose text stands in it."""
    found = _RESERVED.search(text)
    return found.group() if found else None


def conversation_error(
    turns: Iterable[Turn], images: int, videos: int, *, whole: str = "messages"
) -> str | None:
    """Why no conversation can be made of these texts and this many media, as "field: error"; None if one can.

    Reading and `Processor` both ask this, so what one takes the other takes. `whole` names all texts together.
    """
    turns = list(turns)
    for index, (field, role, text) in enumerate(turns):
        if error := text_error(text):
            return f"{field}: {error}"
        if token := reserved_token(text):
            return f"{field}: holds the reserved token {token}"
        if role != "user" and (kinds := media_kinds(text)):
            what = "an option" if role == "option" else f"a turn of the {role}"
            return f"{field}: <{kinds[0]}> in {what}, media belong to the user (\\<{kinds[0]}> is the word itself)"
        if role == "system" and index:
            return f"{field}: a system turn must be the first"
        if role in ("user", "assistant") and not text.strip():
            return f"{field}: is empty"
    if error := _order_error([turn.role for turn in turns]):
        return f"{whole}: {error}"
    return media_error([turn.text for turn in turns], images, videos, whole=whole)


def media_error(texts: Sequence[str], images: int, videos: int, *, whole: str) -> str | None:
    """How the media that the texts name differ from the files there are."""
    kinds = [kind for text in texts for kind in media_kinds(text)]
    for kind, files in (("image", images), ("video", videos)):
        if (count := kinds.count(kind)) != files:
            return f"{whole}: {count} <{kind}> for {files} {kind} files"
    return None


def _order_error(roles: Sequence[str]) -> str | None:
    first = next((role for role in roles if role != "system"), None)
    return "the first turn after the system's must be the user's" if first == "assistant" else None
