"""A small tokenizer of Qwen3-VL's kind, trained on the spot for a model that is trained from nothing.

Byte-level BPE with Qwen2's split pattern (a digit is a token of its own) and NFC, Qwen3-VL's special tokens
after the learnt vocabulary, and a chat template that writes the same text as Qwen3-VL-Instruct's for
images, videos and text (tool calls are left out). The folder also gets the two preprocessor files, so that
`transformers` and our own `Processor` load it like a released one. Real checkpoints bring their own files
and never come here.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from onethinker_jax.data_pipeline.processor.processor_config import image_config, video_config
from onethinker_jax.data_pipeline.processor.prompts import question_text
from onethinker_jax.data_pipeline.records.conversation import split_media
from onethinker_jax.data_pipeline.records.record import Record

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
THINK_TOKENS = ("<think>", "</think>")
"""Tokens of their own, but kept when special tokens are skipped in decoding (as in Qwen3)."""

PAD_TOKEN, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
BYTES = 256

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's: contractions, words with the sign before them, single digits, runs of signs, line ends, spaces."""

CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{%- set seen.images = seen.images + 1 -%}
{%- if add_vision_id %}{{- 'Picture ' ~ seen.images ~ ': ' -}}{% endif -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{%- set seen.videos = seen.videos + 1 -%}
{%- if add_vision_id %}{{- 'Video ' ~ seen.videos ~ ': ' -}}{% endif -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' -}}{% endif -%}
"""


def train_tokenizer(
    texts: Iterable[str],
    directory: str | Path,
    vocab_size: int = 1024,
    *,
    image_pixels: tuple[int, int] = (4096, 1048576),
    video_pixels: tuple[int, int] = (4096, 25165824),
) -> None:
    """Learns a vocabulary from `texts` and writes the tokenizer's and preprocessors' files into `directory`.

    Args:
        texts: what the model will read and write. The same texts give the same files.
        directory: made if it is missing; files of the same names are replaced.
        vocab_size: bytes, learnt merges and special tokens together; fewer come out if the texts are too few.
        image_pixels: smallest and largest pixel count of an image, written into the preprocessor files.
        video_pixels: the same of a whole video (Hugging Face's meaning of `size`).

    Raises ValueError: `vocab_size` has no capacity for the bytes and the special tokens.
    """
    added = len(SPECIAL_TOKENS) + len(THINK_TOKENS)
    if vocab_size < BYTES + added:
        raise ValueError(f"vocab_size must be at least {BYTES + added}, is {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, use_regex=False, trim_offsets=False
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - added,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(_plain(texts), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK_TOKENS])

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer.model.save(str(directory))  # vocab.json and merges.txt, which older tools read
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(tokenizer))
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")  # where processors look
    _write_json(directory / "preprocessor_config.json", image_config(image_pixels))
    _write_json(directory / "video_preprocessor_config.json", video_config(video_pixels))


def record_texts(records: Iterable[Record]) -> list[str]:
    """Texts of records to train a tokenizer on: messages where there are any, else question and answer."""
    texts = []
    for record in records:
        if record.messages is not None:
            texts += [message["content"] for message in record.messages]
        else:
            texts += [question_text(record), record.answer]
    return texts


def _plain(texts: Iterable[str]) -> Iterable[str]:
    """The texts without what never reaches the BPE: placeholders and thinking tags."""
    for text in texts:
        text = "\n".join(part.text for part in split_media(text))
        for token in THINK_TOKENS:
            text = text.replace(token, "\n")
        yield text


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    decoder = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in SPECIAL_TOKENS,
        }
        for token in (*SPECIAL_TOKENS, *THINK_TOKENS)
    }
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TURN,
        "errors": "replace",
        "model_max_length": 262144,
        "pad_token": PAD_TOKEN,
        "split_special_tokens": False,
        "unk_token": None,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
