"""A command's way from its words to its exit status: the same for every `python -m onethinker_jax…`.

    from onethinker_jax import command_line

    if __name__ == "__main__":  # the imports below take some time
        command_line.begin()

    import …

    def run(settings: Settings) -> None: …

    main = partial(command_line.main, Settings, run, prog="python -m …")

    if __name__ == "__main__":
        sys.exit(main(sys.argv[1:]))

Exit status: what `run` returns, 0 for None; 1 an error that the user can mend, shown as one line on stderr; 2 a command
line that cannot be used, one line that names the flag; 130 Ctrl-C, no traceback whatever is under way; a
`Terminated` that `run` raises has a status of its own.

Imports nothing that takes time, so that `begin` comes before all that does.
"""

import contextlib
import gc
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar, cast

from onethinker_jax.errors import UserError
from onethinker_jax.spelling import hint
from onethinker_jax.text_output import print_any_text

T = TypeVar("T")

INTERRUPTED = 130
GARBAGE_THRESHOLDS = 50_000, 20, 10
"""For `gc.set_threshold`; Python's own are 700, 10, 10."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BORDER = "╭╮╰╯│ "


class UsageError(UserError, ValueError):
    """A command line that cannot be used; the message names the flag or setting in one line."""


class Terminated(KeyboardInterrupt):
    """The end that another signal than Ctrl-C asked for, with the exit status that whoever sent it goes by."""

    def __init__(self, text: str = "", *, status: int):
        super().__init__(text)
        self.status = status


def begin() -> None:
    """What a command does before its imports: from now on Ctrl-C ends the process at once, with one line.

    Python looks for cyclic garbage less often: most of what JAX traces lives on, and looking through it again and again
    took an eighth of a short run.
    """
    interrupts_end_at_once("stopped before anything was done")
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def help_if_asked(settings: type[Any], *, prog: str) -> None:
    """Prints the help and exits where the process was asked for it: before a command's imports that take seconds."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        parse(settings, ["--help"], prog=prog, description=settings.__doc__)


def main(
    settings: type[T] | Callable[[Sequence[str]], T],
    run: Callable[[T], int | None],
    words: Sequence[str],
    *,
    prog: str = "",
    stopped: str = "",
) -> int:
    """Parses `words` and runs; returns the exit status.

    `settings` is a dataclass, or a function that parses by itself and raises UsageError. `stopped` is what the
    line after Ctrl-C says of the work, where the KeyboardInterrupt itself says nothing.
    """
    try:
        if isinstance(settings, type):
            parsed = parse(cast("type[T]", settings), words, prog=prog, description=settings.__doc__)
        else:
            parsed = settings(words)
        interrupts_raise()
        return run(parsed) or 0
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        interrupts_end_at_once()
        of_the_work = str(stop) or stopped
        sys.stderr.write(f"stopped; {of_the_work}\n" if of_the_work else "stopped\n")
        return stop.status if isinstance(stop, Terminated) else INTERRUPTED


def interrupts_end_at_once(said: str = "") -> None:
    """From now on SIGINT ends the process with status 130, after this one line on stderr."""

    def end(number: int, frame: object) -> None:
        if said:
            os.write(2, f"{said}\n".encode())
        os._exit(INTERRUPTED)

    if _heeded():
        signal.signal(signal.SIGINT, end)


def leave(status: int) -> NoReturn:
    """Ends the process with this status; after Ctrl-C without Python's own end.

    That one waits for what other threads still compute and takes modules from under them: JAX crashes there.
    """
    if status == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(status)
    sys.exit(status)


def interrupts_raise() -> None:
    """From now on SIGINT raises KeyboardInterrupt, as Python does by itself."""
    if _heeded():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _heeded() -> bool:
    """Not so in a job that a shell put into the background: it ignores SIGINT, and goes on doing so."""
    return signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)


class LogLines(logging.StreamHandler):
    """A handler whose work goes on where nobody reads its lines any more (`command | head`)."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing from now on after a broken pipe; any other error is said as ever."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
            return
        unread = os.open(os.devnull, os.O_WRONLY)
        os.dup2(unread, self.stream.fileno())
        os.close(unread)


def show_log(handler: logging.Handler, *, level: int = logging.WARNING) -> None:
    """What our modules log from `level` on, and other libraries' warnings, go to `handler`, a line each."""
    logging.basicConfig(handlers=[handler], format="%(message)s")
    logging.getLogger("onethinker_jax").setLevel(level)


def parse(
    settings: type[T],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str | None,
    default: T | None = None,
) -> T:
    """The settings that `arguments` ask for, the rest being `default`'s; `--help` prints and exits.

    From then on standard output and error take any text, escaping what their encoding cannot hold.

    Raises UsageError: an unknown flag, a value of the wrong type, a value that the settings refuse.
    """
    import tyro

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
        message = _one_line(said.getvalue()).removeprefix(f"{getattr(settings, '__name__', '')}: ")
        raise UsageError(message) from None
    if unknown:
        near = hint(unknown[0].partition("=")[0], flags_of(settings, default=default))
        raise UsageError(f"unknown argument {unknown[0]!r}{near or '; --help lists the flags'}")
    return parsed


def flags_of(settings: type[T], *, default: T | None = None) -> list[str]:
    """Every flag that `parse` knows, as `--help` lists them."""
    import tyro

    said = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(settings, args=["--help"], **given)
    return re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", _flag_lines(said.getvalue()))


_OF_SEVERAL_TYPES = re.compile(r"(--\S+): no type matching (\S+) could be instantiated from \[(.*?)\]\. ")
"""How tyro says that a value has none of the types that its flag takes; each type's own error follows."""


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
    if union := _OF_SEVERAL_TYPES.match(message):
        flag, types, values = union.groups()
        message = f"{flag}: {values} must be {re.sub('[{}]', '', types).replace('|', ' or ')}"
    return message or "the command line cannot be parsed; see --help"
