"""The trainer, whose sampler of RL gives no sample any more from the fourth step on.

python -m tests.train.health.stalled [PRESET] [--flags]
"""

import sys
import threading
from collections.abc import Iterator
from typing import Any

from onethinker_jax.train.__main__ import main
from onethinker_jax.train.rl import dynamic_sampling

roll_out, rounds = dynamic_sampling.roll_out, [0]


class Stalled:
    """A sampler that never comes to an end."""

    def parts(self, *_: Any, **__: Any) -> Iterator[Any]:
        threading.Event().wait()
        yield


def stalling(params: Any, stream: Any, count: int, sampler: Any, *arguments: Any, **options: Any) -> Any:
    """As `roll_out`, three times."""
    rounds[0] += 1
    chosen: Any = sampler if rounds[0] < 4 else Stalled()
    return roll_out(params, stream, count, chosen, *arguments, **options)


dynamic_sampling.roll_out = stalling

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
