"""A folder of results, or two -> one HTML file: tables, charts, and examples with everything drawn.

    python -m onethinker_jax.evaluate.page results            # results/index.html
    python -m onethinker_jax.evaluate.page results-sft results-rl

Exit status: 0 done, 1 an error that is named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take time
    command_line.begin()

from onethinker_jax.evaluate.page.arguments import PageArguments

if __name__ == "__main__":
    command_line.help_if_asked(PageArguments, prog="python -m onethinker_jax.evaluate.page")

import logging
import sys
from functools import partial

from onethinker_jax.evaluate.page.page import write_page


def run(arguments: PageArguments) -> None:
    """Writes the page and says where it is."""
    command_line.show_log(logging.StreamHandler(sys.stderr), level=logging.INFO)
    write_page(arguments)


main = partial(
    command_line.main,
    PageArguments,
    run,
    prog="python -m onethinker_jax.evaluate.page",
    stopped="nothing is written",
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
