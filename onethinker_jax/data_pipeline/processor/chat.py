"""A checkpoint directory's tokenizer and chat template, read without transformers.

`transformers.AutoTokenizer` gives the same ids and texts, but importing it imports torch wherever torch is
installed, which the trainer's process must not; `tokenizers` and Jinja are all that is needed.

A template may itself begin the answer: those of Thinking checkpoints end the prompt with <think> and a line break.
What it writes after the assistant's header is the prompt's *opening*. The opening is part of the prompt's tokens
and of the response's text; a conversation's last answer follows it as a sample would.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from onethinker_jax.errors import UserError
from onethinker_jax.model.directory import lfs_error

HEADER = "<|im_start|>assistant\n"
_ASSISTANT = re.compile(rf"({re.escape(HEADER)})(.*?<\|im_end\|>)", re.DOTALL)
_THINK, _THINK_END = "<think>", "</think>"


class ProcessorError(UserError, ValueError):
    """A model directory whose tokenizer or processor files cannot be used. One line naming it."""


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation in pieces that are tokenised apart from each other."""

    pieces: list[tuple[str, bool]]  # text, and whether its tokens are targets
    opening: str  # what the template writes after the last assistant turn's header
    context_turns: int = 0  # answers that are no targets, as the template writes them without the opening


class _Generation(Extension):
    """{% generation %}, with which templates mark answers for others' training: what stands inside is written."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTokenizer:
    """Text to token ids and back, and messages to text. Thread-safe."""

    def __init__(self, path: str | Path):
        """Reads `tokenizer.json` and the chat template of a directory.

        Raises ProcessorError: a file is missing or cannot be read.
        """
        self.path = Path(path)
        self._tokenizer = _tokenizer(self.path)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        settings = self.path / "tokenizer_config.json"
        config = read_json(settings) if settings.is_file() else {}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        template = _template(self.path, config)
        try:
            self._template = environment.from_string(template)
        except TemplateError as error:
            raise ProcessorError(f"{self.path}: its chat template is wrong ({error})") from None
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        self._special = {
            name: _content(settings, name, config[name]) for name in names if config.get(name) is not None
        }
        self._written = template
        self.eos_token, self.pad_token = self._special.get("eos_token"), self._special.get("pad_token")

    @cached_property
    def fingerprint(self) -> str:
        """The digest of the vocabulary and the chat template: others may write and cut texts in another way."""
        digest = hashlib.blake2b((self.path / "tokenizer.json").read_bytes(), digest_size=16)
        digest.update(self._written.encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def token_id(self, token: str) -> int | None:
        """The id of one token, None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def token_name(self, token: int) -> str | None:
        """How the vocabulary writes a token, None if there is no such token."""
        return self._tokenizer.id_to_token(token)

    def added_tokens(self) -> dict[int, tuple[str, bool]]:
        """The tokens beside the learnt vocabulary: their texts, and whether they are special, that is left out."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {number: (token.content, token.special) for number, token in added.items()}

    @cached_property
    def decoder_type(self) -> str | None:
        """How tokens become text, such as "ByteLevel"; None where the tokenizer does not say."""
        decoder = json.loads(self._tokenizer.to_str()).get("decoder")
        return decoder.get("type") if isinstance(decoder, dict) else None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens written in it become themselves, none are added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray, *, skip_special_tokens: bool = False) -> str:
        """Text of token ids. Bytes that form no character become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """The conversation as the chat template writes it. Content is a string or a list of typed parts.

        Raises ValueError: the template refuses these messages.
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            )
        except (TemplateError, TypeError, LookupError, ValueError) as error:  # the template's own
            raise ValueError(f"the chat template refuses the messages ({error})") from error

    def conversation(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool
    ) -> Conversation:
        """The rendered conversation; each answer is a piece of its own and a target.

        Where the template opens answers, the last one follows what a sampler would be given, without the opening
        that it may repeat, and an earlier one is a target only if the template writes the opening there too.

        Raises ValueError: the template refuses these messages, or the last answer does not go on from the opening.
        """
        answers = not add_generation_prompt and messages[-1]["role"] == "assistant"
        before = messages[:-1] if answers else messages
        prompt = self.render(before, add_generation_prompt=True) if before else HEADER
        opening = opening_of(prompt)
        whole = prompt
        if not add_generation_prompt:
            whole = self.render(messages, add_generation_prompt=False)
        if answers and not _ASSISTANT.search(whole):
            raise ValueError(
                "the chat template does not write assistant turns between <|im_start|> and <|im_end|>"
            )
        if not opening:
            return Conversation(_pieces(whole), opening)
        context = prompt if answers else whole
        pieces: list[tuple[str, bool]] = []
        others = 0
        for text, is_answer in _pieces(context):
            follows = is_answer and text.startswith(opening)
            others += is_answer and not follows
            pieces += [(opening, False), (text[len(opening) :], True)] if follows else [(text, False)]
        if answers:
            pieces.append((_rest(_ASSISTANT.findall(whole)[-1][1], opening), True))
        return Conversation(pieces, opening, others)

    def usual_opening(self) -> str:
        """The opening of a prompt that is one question. Raises ProcessorError where there is no prompt for one."""
        try:
            return opening_of(self.render([{"role": "user", "content": "?"}], add_generation_prompt=True))
        except ValueError as error:
            raise ProcessorError(f"{self.path}: {error}") from None


def opening_of(prompt: str) -> str:
    """What a rendered prompt holds after the header of the turn to generate. Raises ValueError without a header."""
    _, header, opening = prompt.rpartition(HEADER)
    if not header or "<|im_" in opening:
        raise ValueError(f"the chat template does not end a prompt with {HEADER!r}")
    return opening


def _pieces(text: str) -> list[tuple[str, bool]]:
    """The text in pieces; the split gives text, header, answer, text, and so on."""
    return [(piece, number % 3 == 2) for number, piece in enumerate(_ASSISTANT.split(text))]


def _rest(answer: str, opening: str) -> str:
    """What an answer adds to the opening.

    White space where the two meet is the opening's. An answer that does not begin with the opening follows it as it
    is; raises ValueError if the thinking would then not be opened and closed once.
    """
    if answer.startswith(opening):
        return answer[len(opening) :]
    bare = opening.strip()
    if bare and answer.lstrip().startswith(bare):
        rest = answer.lstrip()[len(bare) :]
        return rest.lstrip() if opening != opening.rstrip() else rest
    opened, closed = ((opening + answer).count(tag) for tag in (_THINK, _THINK_END))
    if opened > 1 or opened != closed:
        raise ValueError(
            f"the last assistant turn does not go on from {opening!r}, with which the chat template begins an answer"
        )
    return answer


def _tokenizer(path: Path) -> Tokenizer:
    file = path / "tokenizer.json"
    if not file.is_file():
        others = [name for name in ("vocab.json", "tokenizer.model") if (path / name).is_file()]
        what = (
            f" ({others[0]} alone is not read; transformers' tokenizer.save_pretrained makes it)"
            if others
            else ""
        )
        raise ProcessorError(f"{path}: has no tokenizer.json{what}")
    if error := lfs_error(file):
        raise ProcessorError(f"{file}: {error}")
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001  the library raises nothing narrower
        raise ProcessorError(f"{file}: cannot be read as a tokenizer ({error})") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ProcessorError naming the file."""
    if path.is_file() and (error := lfs_error(path)):
        raise ProcessorError(f"{path}: {error}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProcessorError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ProcessorError(f"{path}: must hold a JSON object")
    return value


def _template(path: Path, config: dict[str, Any]) -> str:
    """The template's text; a file of its own goes before the tokenizer's settings, as in transformers."""
    file = path / "chat_template.jinja"
    if file.is_file():
        if error := lfs_error(file):
            raise ProcessorError(f"{file}: {error}")
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ProcessorError(f"{file}: is no text ({error})") from None
    holders = {"tokenizer_config.json": config}
    if (path / "chat_template.json").is_file():
        holders = {"chat_template.json": read_json(path / "chat_template.json"), **holders}
    for name, holder in holders.items():
        if (template := holder.get("chat_template")) is not None:
            return _chosen(path / name, template)
    raise ProcessorError(
        f"{path}: has no chat template; take chat_template.jinja from the model that it was made from"
    )


def _chosen(file: Path, template: object) -> str:
    """The template itself; among several the one that is named "default"."""
    if isinstance(template, list):
        try:
            named = {entry["name"]: entry["template"] for entry in template}
        except (KeyError, TypeError):
            raise ProcessorError(f"{file}: chat_template is no list of names and templates") from None
        if "default" not in named:
            raise ProcessorError(
                f"{file}: none of its chat templates is the default: {', '.join(map(str, named))}"
            )
        template = named["default"]
    if not isinstance(template, str):
        raise ProcessorError(f"{file}: chat_template must be a text, is a {type(template).__name__}")
    return template


def _content(file: Path, name: str, token: object) -> str:
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise ProcessorError(f"{file}: {name} is {token!r}, no token")
    return content


def _tojson(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise(message: str) -> None:
    raise TemplateError(message)
