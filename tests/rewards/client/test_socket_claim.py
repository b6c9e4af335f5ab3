"""Who holds a Unix socket's path: one server at a time, and nothing stays when it ends."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from onethinker_jax.rewards.client import addresses
from onethinker_jax.rewards.client.addresses import AddressError, claim_socket, clear_socket
from onethinker_jax.rewards.client.server_process import start_server


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def test_nothing_stays(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with claim_socket(path):
        assert (tmp_path / "r.sock.lock").exists()
        listening(path).close()
    assert not list(tmp_path.iterdir())
    (tmp_path / "r.sock.lock").touch()  # left by one that was killed
    with claim_socket(path):
        pass
    assert not list(tmp_path.iterdir())


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with claim_socket(path), listening(path):
        with pytest.raises(AddressError, match="is busy: another reward server"), claim_socket(path):
            pass
        clear_socket(path)
        assert {file.name for file in tmp_path.iterdir()} == {"r.sock", "r.sock.lock"}


def test_what_a_killed_server_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    listening(path).close()
    (tmp_path / "r.sock.lock").touch()
    clear_socket(path)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder ends between our opening of the file and our locking of it."""
    path, lock, real, calls = tmp_path / "r.sock", tmp_path / "r.sock.lock", fcntl.flock, []

    def flock(file: int, how: int) -> None:
        calls.append(file)
        if len(calls) == 1:
            lock.unlink()
        if len(calls) == 2:
            lock.unlink()
            lock.touch()  # another one has made its own
        real(file, how)

    monkeypatch.setattr(addresses.fcntl, "flock", flock)
    with claim_socket(path):
        assert len(calls) == 3
        assert os.path.samestat(os.fstat(calls[-1]), lock.stat())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("killed", [False, True])
def test_a_servers_socket_and_lock_go_with_it(tmp_path: Path, killed: bool) -> None:
    with start_server(tmp_path / "run" / "r.sock", tmp_path / "server.log") as server:
        names = {file.name for file in (tmp_path / "run").iterdir()}
        assert names == {"r.sock", "r.sock.lock"}
        if killed:
            server.process.kill()
            server.process.wait()
            assert {file.name for file in (tmp_path / "run").iterdir()} == names
    assert not list((tmp_path / "run").iterdir())
