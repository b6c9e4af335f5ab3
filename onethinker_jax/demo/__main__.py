"""A model, images or videos or none, and a question -> the reasoning, the answer, and a picture of it.

    python -m onethinker_jax.demo MODEL_DIRECTORY street.jpg "Where is the bicycle?" --task "spatial grounding"
    python -m onethinker_jax.demo MODEL_DIRECTORY before.jpg after.jpg "What has changed?"
    python -m onethinker_jax.demo MODEL_DIRECTORY "What is 17 times 23?" --task math
    python -m onethinker_jax.demo MODEL_DIRECTORY --chat

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.demo.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.demo")

import sys
from functools import partial

from rich.console import Console

from onethinker_jax.demo.question import answer_files
from onethinker_jax.demo.session import Session, ask, talk


def run(arguments: Arguments) -> None:
    """One question or many."""
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


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.demo")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
