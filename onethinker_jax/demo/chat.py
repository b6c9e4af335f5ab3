"""Questions from standard input, a line each, to a model that stays loaded.

A line is a question about the media named last, by itself: what was asked before is not part of it. Lines that
begin with / say what it is about: `/media FILE …`, `/task TASK`, `/option TEXT`, `/quit`; // begins a question
that begins with one.
"""

import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

from onethinker_jax.command_line import UsageError
from onethinker_jax.demo.question import Question, media_files
from onethinker_jax.errors import UserError
from onethinker_jax.spelling import hint
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE, of_answer

COMMANDS = ("/media", "/task", "/option", "/quit")


def chat(
    lines: Iterable[str],
    ask: Callable[[Question], None],
    *,
    task: str,
    say: Callable[[str], None],
) -> None:
    """Asks what the lines ask, until they end or say /quit.

    Args:
        lines: as they come.
        ask: answers a question; one that cannot be answered is a line on stderr, and then comes the next.
        task: until a line says another.
        say: tells the user, who may be at a terminal, what a command has set.
    """
    about = Question("", task=task)
    for line in lines:
        text = line.strip()
        if not text:
            continue
        try:
            if text.startswith("/") and not text.startswith("//"):
                if text == "/quit":
                    return
                about = _told(text, about)
                say(_state(about))
            else:
                ask(replace(about, text=text.removeprefix("/") if text.startswith("//") else text))
        except (UserError, OSError) as error:
            sys.stderr.write(f"error: {error}\n")
            sys.stderr.flush()


def _told(text: str, about: Question) -> Question:
    """What the next questions are about after a line that begins with /. Raises UsageError."""
    command, _, rest = text.partition(" ")
    rest = rest.strip()
    if command == "/media":
        try:
            return replace(about, media=media_files(shlex.split(rest)))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"/media {rest}: {error}") from None
    if command == "/task":
        if rest not in PROBLEM_TYPES:
            raise UsageError(
                f"/task: unknown task {rest!r}; there are: {', '.join(PROBLEM_TYPES)}{hint(rest, PROBLEM_TYPES)}"
            )
        return replace(about, task=rest, options=())
    if command == "/option":
        if TABLE[about.task].answer != "letter" or not rest:
            choices = " or ".join(of_answer("letter"))
            raise UsageError(f"/option TEXT comes after /task {choices}, once for each option")
        return replace(about, options=(*about.options, rest))
    raise UsageError(
        f"unknown command {command!r}; there are: {', '.join(COMMANDS)}{hint(command, COMMANDS)}"
    )


def _state(about: Question) -> str:
    options = f", options {', '.join(about.options)}" if about.options else ""
    return f"task {about.task}{options}; media {', '.join(map(str, about.media)) or 'none'}"
