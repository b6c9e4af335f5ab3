"""A model and benchmarks -> its answers, their rewards and metrics.

    python -m onethinker_jax.evaluate MODEL_DIRECTORY eval_file.json --out results

Answers are in the folder as soon as they are there; the same command goes on with an evaluation that was ended.

Exit status: 0 done, 3 done and samples failed, 1 an error that is named in one line, 2 a command line that cannot be
used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

from onethinker_jax.evaluate.arguments import Arguments

if __name__ == "__main__":
    command_line.help_if_asked(Arguments, prog="python -m onethinker_jax.evaluate")

import logging
import sys
from functools import partial

from onethinker_jax.evaluate.interrupts import Interrupts, heard

logger = logging.getLogger("onethinker_jax.evaluate")  # also as __main__


def run(arguments: Arguments) -> int:
    """Runs the evaluation and returns its exit status; what takes seconds to import is imported after a first line."""
    command_line.show_log(command_line.LogLines(sys.stdout), level=logging.INFO)
    logger.info("reading %s; answers go to %s", ", ".join(arguments.benchmarks), arguments.out)
    interrupts = Interrupts()
    if arguments.restart:
        interrupts.again = "the same command without --restart"
    with heard(interrupts):
        try:
            from onethinker_jax.evaluate.run import run as evaluate

            return evaluate(arguments, interrupts)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interrupts.said()) from None


main = partial(command_line.main, Arguments, run, prog="python -m onethinker_jax.evaluate")

if __name__ == "__main__":
    command_line.leave(main(sys.argv[1:]))
