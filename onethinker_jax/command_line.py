"""Command lines from dataclasses of settings: whatever cannot be parsed is one line that names the flag."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from onethinker_jax.spelling import hint
from onethinker_jax.text_output import print_any_text

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

    From then on standard output and error take any text, escaping what their encoding cannot hold.

    Raises UsageError: an unknown flag, a value of the wrong type, a value that the settings refuse.
    """
    print_any_text()
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
    except BrokenPipeError:  # --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(said.getvalue())) from None
    if unknown:
        near = hint(unknown[0].partition("=")[0], flags_of(settings, default=default))
        raise UsageError(f"unknown argument {unknown[0]!r}{near or '; --help lists the flags'}")
    return parsed


def help_if_asked(settings: type[Any], *, prog: str) -> None:
    """Prints the help and exits where the process was asked for it: before a command's imports that take seconds."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        parse(settings, ["--help"], prog=prog, description=settings.__doc__)


def flags_of(settings: type[T], *, default: T | None = None) -> list[str]:
    """Every flag that ``parse`` knows, as ``--help`` lists them."""
    said = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(settings, args=["--help"], **given)
    return re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", _flag_lines(said.getvalue()))


def _flag_lines(text: str) -> str:
    """The lines of a help text that begin with a flag."""
    lines = (line.strip(_BORDER) for line in _COLOUR.sub("", text).splitlines())
    return "\n".join(line for line in lines if line.startswith("-"))


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
