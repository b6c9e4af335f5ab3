"""A Hugging Face directory behind OpenAI's API, on our own sampler.

    python -m onethinker_jax.serve MODEL_DIRECTORY --port 8000

Exit status: 0 after SIGTERM, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take seconds
    command_line.begin()

from onethinker_jax.serve.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.serve")

import logging
import sys
from functools import partial

from onethinker_jax.errors import libraries_of


def run(arguments: Arguments) -> None:
    """Serves until a signal. Raises MissingLibrary where the extra `serve` is not installed."""
    command_line.show_log(command_line.LogLines(sys.stderr), level=logging.INFO)
    with libraries_of("serve", "starlette", "uvicorn", "pydantic", "httpcore2"):
        from onethinker_jax.serve.server import serve
    serve(arguments)


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.serve")

if __name__ == "__main__":
    command_line.leave(main(sys.argv[1:]))
