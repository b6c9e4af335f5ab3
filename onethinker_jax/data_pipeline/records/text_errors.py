"""Text that JSON can write and later steps cannot take: halves of surrogate pairs, and NUL.

Tokenizers, UTF-8 files, protocol buffers and file systems refuse a lone surrogate; C strings, numpy's texts and file
names end at a NUL. Both are refused where records are read, wherever in a record they stand.
"""

import re
from typing import Any

from onethinker_jax.text_output import one_line

_UNUSABLE = re.compile("[\0\ud800-\udfff]")


def text_error(value: Any) -> str | None:
    """What a JSON value holds that is no text, as "field: error"; None if nothing. Keys of objects count too."""
    waiting: list[tuple[str, Any]] = [("", value)]  # no recursion: JSON may be deeper than Python's stack
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if found := _unusable(key):
                    return f"{field + ': ' if field else ''}its key '{one_line(key)[:60]}': {_said(found)}"
                if isinstance(inner, (str, dict, list)):
                    waiting.append((f"{field}.{key}" if field else key, inner))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                if isinstance(inner, (str, dict, list)):
                    waiting.append((f"{field}[{index}]", inner))
        elif isinstance(value, str) and (found := _unusable(value)):
            return f"{field}: {_said(found)}" if field else _said(found)
    return None


def _unusable(text: str) -> re.Match[str] | None:
    return None if text.isascii() and "\0" not in text else _UNUSABLE.search(text)


def _said(found: re.Match[str]) -> str:
    where = f"at character {found.start()}"
    if found.group() == "\0":
        return f"holds the character NUL {where}, which no later step can take"
    return f"holds half of a surrogate pair, {one_line(found.group())}, {where}: it is no Unicode text"
