"""A reward server of one's own, as a child process on a Unix socket."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onethinker_jax.rewards.client.addresses import clear_socket
from onethinker_jax.rewards.client.client import RewardClient, RewardUnavailable
from onethinker_jax.rewards.client.security import TOKEN_VARIABLE
from onethinker_jax.worker_process import package_environment

log = logging.getLogger(__name__)

_SOCKET_PATH_BYTES = 100  # the kernel takes 107


@dataclass(frozen=True)
class RunningServer:
    """A server started by `start_server`: what to connect to, its process, and where it logs."""

    address: str
    process: subprocess.Popen[bytes]
    log_path: Path


@contextlib.contextmanager
def start_server(
    socket_path: str | os.PathLike[str],
    log_path: str | os.PathLike[str],
    *,
    text_backend: str = "rouge",
    mask_backend: str = "grabcut",
    arguments: Sequence[str] = (),
    ready_timeout: float = 300.0,
) -> Iterator[RunningServer]:
    """Runs a reward server as a child process on a Unix socket for the duration of the block.

    `arguments` are further flags of the server. Yields once it is serving. Where `socket_path` is longer than
    the kernel allows (about 100 bytes), the socket lies in a temporary folder instead: use the yielded
    `address`. The child is in a session of its own, so that Ctrl-C in the terminal does not reach it while the
    trainer finishes, and it ends when this process does, however that ends. Raises RewardUnavailable, with the
    end of the log, when it does not come up.
    """
    log_path = Path(log_path)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        path = Path(socket_path).absolute()
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reward-"))) / "reward.sock"
        path.parent.mkdir(parents=True, exist_ok=True)
        log_file = stack.enter_context(log_path.open("ab"))
        start = log_file.tell()
        command = [sys.executable, "-m", "onethinker_jax.rewards.server", "--stop-with-stdin"]
        command += ["--address", f"unix:{path}"]
        command += ["--text-backend", text_backend, "--mask-backend", mask_backend, *arguments]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log_file,
            stderr=log_file,
            env=_child_environment(),
            start_new_session=True,
        )
        stack.callback(clear_socket, path)  # once the child is gone: one that was killed leaves its own
        stack.callback(_stop, process)
        server = RunningServer(f"unix:{path}", process, log_path)
        _wait_until_serving(server, start, ready_timeout)
        yield server


def _child_environment() -> dict[str, str]:
    """The package's environment without the token: a socket of one's own has none."""
    return {name: value for name, value in package_environment().items() if name != TOKEN_VARIABLE}


def _wait_until_serving(server: RunningServer, log_start: int, timeout: float) -> None:
    """Returns once the child itself serves; another server on its socket is not taken for it."""
    deadline = time.monotonic() + timeout
    with RewardClient(server.address, timeout=5.0) as client:
        while True:
            with contextlib.suppress(RewardUnavailable):
                client.wait_ready(min(0.25, max(deadline - time.monotonic(), 0.01)))
                if client.describe().process_id == server.process.pid:
                    return
                time.sleep(0.05)
            status = server.process.poll()
            if status is not None or time.monotonic() > deadline:
                what = f"was not ready in {timeout:g} s" if status is None else f"ended with status {status}"
                end = _log_end(server.log_path, log_start)
                raise RewardUnavailable(f"the reward server at {server.address} {what}: {end}")


def _log_end(path: Path, start: int) -> str:
    """The last lines written to a log since byte `start`, in one line."""
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read()[-4000:].decode("utf-8", "replace").splitlines()
    return " | ".join(line.strip() for line in lines[-5:] if line.strip()) or f"nothing in {path}"


def _stop(process: subprocess.Popen[bytes], grace_s: float = 15.0) -> None:
    """Asks the child to drain and end; ends it by force when it has not after `grace_s` seconds."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        log.warning("the reward server (process %d) did not stop in %g s: killing it", process.pid, grace_s)
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
