"""Command lines from dataclasses of settings: whatever cannot be parsed is one line that names the flag."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BORDER = "╭╮╰╯│ "


class UsageError(ValueError):
    """A command line that cannot be used; the message names the flag or setting in one line."""


def parse(
    settings: type[T],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str | None,
    default: T | None = None,
) -> T:
    """The settings that ``arguments`` ask for, the rest being ``default``'s; ``--help`` prints and exits.

    Raises UsageError: an unknown flag, a value of the wrong type, a value that the settings refuse.
    """
    said = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                settings,
                args=list(arguments),
                prog=prog,
                description=description,
                return_unknown_args=True,
                **given,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(said.getvalue())) from None
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]!r}; --help lists the flags")
    return parsed


def _one_line(box: str) -> str:
    """The message of tyro's box: what stands above its first rule, without the frame."""
    lines = []
    for line in _COLOUR.sub("", box).splitlines():
        text = line.strip(_BORDER)
        if text and not text.strip("─"):
            break  # below the rule are the flag's help and where to find more
        if text and "─" not in text:
            lines.append(text)
    message = " ".join(lines).removeprefix("Error parsing ")
    section = re.match(r"(\S+): (?=\S)", message)
    if section and message[section.end() :].startswith(f"{section[1]}."):
        message = message[section.end() :]  # a setting's own message names its section
    return message or "the command line cannot be parsed; see --help"
