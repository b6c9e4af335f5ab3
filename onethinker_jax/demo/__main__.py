"""A model, images or videos or none, and a question -> the reasoning, the answer, and a picture of it.

    python -m onethinker_jax.demo MODEL_DIRECTORY street.jpg "Where is the bicycle?" --task "spatial grounding"
    python -m onethinker_jax.demo MODEL_DIRECTORY before.jpg after.jpg "What has changed?"
    python -m onethinker_jax.demo MODEL_DIRECTORY "What is 17 times 23?" --task math
    python -m onethinker_jax.demo MODEL_DIRECTORY --chat
    python -m onethinker_jax.demo MODEL_DIRECTORY --serve

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

import sys

from onethinker_jax.demo.arguments import Arguments
from onethinker_jax.demo.page.arguments import PageArguments

if __name__ == "__main__":
    command_line.help_if_asked(
        PageArguments if "--serve" in sys.argv else Arguments, prog="python -m onethinker_jax.demo"
    )

import logging
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from onethinker_jax.demo.question import answer_files
from onethinker_jax.demo.session import Session, ask, talk
from onethinker_jax.errors import libraries_of

SERVE, PROG = "--serve", "python -m onethinker_jax.demo"


def parse(words: Sequence[str]) -> Arguments | PageArguments:
    """The flags of questions, or with `--serve` those of the page. Raises UsageError."""
    settings = PageArguments if SERVE in words else Arguments
    words = [word for word in words if word != SERVE]
    return command_line.parse(settings, words, prog=PROG, description=settings.__doc__)


def run(arguments: Arguments | PageArguments) -> None:
    """One question or many, or a page. Raises MissingLibrary where the page's extra is not installed."""
    if isinstance(arguments, PageArguments):
        command_line.show_log(command_line.LogLines(sys.stderr), level=logging.INFO)
        with libraries_of("web", "fastapi", "nicegui", "starlette", "uvicorn"):
            from onethinker_jax.demo.page.server import serve
        serve(arguments)
        return
    console = Console(highlight=False)
    if arguments.chat:
        arguments.check_chat()
        with Session(arguments) as session:
            talk(session, console)
        return
    question = arguments.question()
    record = question.record()  # before anything is loaded
    answer_files(question, record, arguments.out, overwrite=arguments.overwrite, clip=arguments.clip)
    with Session(arguments) as session:
        ask(session, question, console)


main = partial(command_line.main, parse, run)

if __name__ == "__main__":
    command_line.leave(main(sys.argv[1:]))
