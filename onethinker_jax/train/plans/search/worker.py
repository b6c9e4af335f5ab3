"""The process of one compilation: a crash, or too little memory, ends it and not the search.

It answers one line with another, as `worker_process` has it: which program of which settings for which topology, and
what the compiler said of it.
"""

import base64
import os
import pickle
import re
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from onethinker_jax.errors import first_line
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.plans.compiling import compile_counted, program_pairs
from onethinker_jax.train.plans.targets import find_target
from onethinker_jax.worker_process import serve_lines

TOO_LARGE = signal.SIGUSR1
"""Ends the process when it needs more of this machine's memory than it may."""
_LOOK_S = 0.2


def question(
    config: TrainConfig, topology: str | None, program: str, most_bytes: float | None
) -> dict[str, Any]:
    """What is asked, as JSON; the settings are pickled, as only a process of ours reads them."""
    packed = base64.b64encode(pickle.dumps(config)).decode()
    return {"config": packed, "topology": topology, "program": program, "most_bytes": most_bytes}


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The program's `Compiled` as JSON, or an `error` of one line."""
    threading.Thread(target=_watch, args=(asked["most_bytes"], os.getppid()), daemon=True).start()
    config: TrainConfig = pickle.loads(base64.b64decode(asked["config"]))
    try:
        mesh = find_target(config.mesh, asked["topology"]).mesh(config.mesh)
        with jax.set_mesh(mesh):
            (pair,) = program_pairs(config, mesh, only=f"^{re.escape(asked['program'])}$", everything=True)
            return {"compiled": compile_counted(*pair, mesh)[0].to_json()}
    except Exception as error:  # noqa: BLE001  whatever the compiler raises is this setting's row
        return {"error": f"{type(error).__name__}: {first_line(error)}"}


def _watch(most_bytes: float | None, parent: int) -> None:
    """Ends the process when it grows too large, or is alone."""
    while os.getppid() == parent:
        if most_bytes is not None and _resident() > most_bytes:
            os.kill(os.getpid(), TOO_LARGE)
        time.sleep(_LOOK_S)
    os._exit(1)


def _resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    serve_lines(answer)
