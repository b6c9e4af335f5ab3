"""Which tokens end a sample, and which one pads: read once of a model directory, and written with an exported one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.processor.chat import ChatTokenizer, ProcessorError, read_json

GENERATION_CONFIG = "generation_config.json"
END_OF_TURN, PAD = "<|im_end|>", "<|endoftext|>"


@dataclass(frozen=True)
class EndTokens:
    """Every one of `eos_ids` ends a sample."""

    eos_ids: tuple[int, ...]
    pad_id: int

    def to_hf(self) -> dict[str, int | list[int]]:
        """As config.json and generation_config.json hold them."""
        eos = self.eos_ids[0] if len(self.eos_ids) == 1 else list(self.eos_ids)
        return {"eos_token_id": eos, "pad_token_id": self.pad_id}


def read_end_tokens(path: Path, tokenizer: ChatTokenizer) -> EndTokens:
    """Reads them from generation_config.json, else config.json, else the tokenizer; <|im_end|> always ends a sample.

    Raises ProcessorError naming a file whose ids are no tokens.
    """
    files = [file for name in (GENERATION_CONFIG, "config.json") if (file := path / name).is_file()]
    configs = [(file, read_json(file)) for file in files]
    configs += [
        (file, text) for file, config in configs if isinstance(text := config.get("text_config"), dict)
    ]
    eos = _first(configs, "eos_token_id", tokenizer)
    pad = _first(configs, "pad_token_id", tokenizer)
    eos_ids = tuple(
        dict.fromkeys([*(eos or _known(tokenizer, tokenizer.eos_token)), *_known(tokenizer, END_OF_TURN)])
    )
    if not eos_ids:
        raise ProcessorError(
            f"{path}: names no token that ends a sample, and its tokenizer has no {END_OF_TURN}"
        )
    pad_id, *_ = [*pad, *_known(tokenizer, tokenizer.pad_token), *_known(tokenizer, PAD), *eos_ids]
    return EndTokens(eos_ids, pad_id)


def read_generation_config(path: Path, ends: EndTokens) -> dict[str, Any]:
    """A directory's generation_config.json with the tokens that it may lack."""
    file = path / GENERATION_CONFIG
    return {**(read_json(file) if file.is_file() else {}), **ends.to_hf()}


def _known(tokenizer: ChatTokenizer, token: str | None) -> list[int]:
    """The token's id, if there is such a token."""
    found = None if token is None else tokenizer.token_id(token)
    return [] if found is None else [found]


def _first(configs: list[tuple[Path, dict[str, Any]]], name: str, tokenizer: ChatTokenizer) -> list[int]:
    """The ids of the first config that has some."""
    for file, config in configs:
        value = config.get(name)
        if value is None or value == []:
            continue
        ids = value if isinstance(value, list) else [value]
        for one in ids:
            if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < len(tokenizer):
                raise ProcessorError(
                    f"{file}: {name} {value!r} is no token of a tokenizer of {len(tokenizer)}"
                )
        return ids
    return []
