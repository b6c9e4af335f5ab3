r"""Any text on its way out: what files, pages and terminals cannot hold is escaped, never dropped and never an error.

Python's texts may hold lone halves of surrogate pairs, from a JSON escape such as "\ud83d" or from a file name that
is not UTF-8, and no UTF-8 file takes them. All of our writers come through here, so none fails after the work is done.
"""

import json
import re
import sys
from typing import Any

# Line ends, tabs and printable characters are a terminal's; the rest of the control characters may move its cursor.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_ENDS = re.compile(r"[\t\n\r\u2028\u2029]")


def encodable(text: str) -> str:
    r"""The text with every lone surrogate written as its escape, `\ud83d`; other text as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The JSON of a value, on one line without `indent`; `json.loads` gives the same texts back.

    Letters stay as they are. Inside a JSON string the escape of a surrogate is JSON's own.
    """
    return encodable(json.dumps(value, indent=indent, ensure_ascii=False))


def visible(text: str) -> str:
    """The text with control characters, except tabs and line ends, and surrogates as escapes: for pages, terminals."""
    return encodable(_CONTROLS.sub(_escape, text))


def one_line(text: str) -> str:
    """`visible` with line ends and tabs escaped too: for names in error lines."""
    return _LINE_ENDS.sub(_escape, visible(text))


def print_any_text() -> None:
    """Makes standard output and error escape what their encoding cannot hold, from now on."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # a test's or a notebook's may have none
            reconfigure(errors="backslashreplace")


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()
