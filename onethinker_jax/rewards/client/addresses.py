"""Where the reward service listens: `unix:/path` or `host:port`, and whether that leaves this machine."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from onethinker_jax.errors import UserError

MAX_SOCKET_PATH_BYTES = 107


class AddressError(UserError, ValueError):
    """An address that cannot be used; the message is one line that names it."""


def socket_path(address: str) -> Path | None:
    """The absolute path of a `unix:` address, None for `host:port`; raises AddressError for others."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if not path:
            raise AddressError("the address unix: needs a path")
        return Path(path).absolute()
    host, separator, port = address.rpartition(":")
    if not separator or not host.strip("[]") or not port.isdecimal() or int(port) > 65_535:
        raise AddressError(f"the address {address!r} is neither unix:/path nor host:port")
    return None


def is_local(address: str) -> bool:
    """Whether an address is a Unix socket or loopback; a name other than localhost is not. Raises AddressError."""
    if socket_path(address) is not None:
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def channel_target(addresses: Sequence[str]) -> str:
    """What gRPC resolves to all of the addresses: Unix sockets, IPv4, IPv6, or one host name.

    Raises AddressError for none, and for several that one target cannot name.
    """
    if not addresses:
        raise AddressError("the reward service needs an address")
    paths = [socket_path(address) for address in addresses]
    if all(path is not None for path in paths):
        if len(paths) > 1 and any("," in str(path) for path in paths):
            raise AddressError(f"a comma in a socket path: {', '.join(addresses)}")
        return f"unix:{','.join(map(str, paths))}"
    if len(addresses) == 1:
        return f"dns:///{addresses[0]}"
    try:
        hosts = [ipaddress.ip_address(address.rpartition(":")[0].strip("[]")) for address in addresses]
    except ValueError:
        hosts = []
    versions = {host.version for host in hosts}
    if len(versions) != 1:
        raise AddressError(
            f"several addresses are all unix:/path, all IPv4 or all IPv6, not {', '.join(addresses)}; a host "
            "name with several addresses is enough by itself"
        )
    return f"ipv{versions.pop()}:{','.join(addresses)}"


@contextlib.contextmanager
def claim_socket(path: Path) -> Iterator[None]:
    """Holds a Unix socket's path for this process: removes a stale socket, refuses a live one's.

    gRPC by itself takes over the socket of a running server. A lock on `PATH.lock`, which ends with its
    process however that ends, tells the two cases apart. Both files are removed at the end.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise AddressError(
            f"the socket path {path} has {len(os.fsencode(path))} bytes, the limit is {MAX_SOCKET_PATH_BYTES}"
        )
    lock_path = path.with_name(path.name + ".lock")
    lock = _locked(path, lock_path)
    try:
        _remove_stale_socket(path)
        yield
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock_path.unlink()  # while it is held: whoever waits for it sees that it is another file's by now
        os.close(lock)


def clear_socket(path: Path) -> None:
    """Removes the socket and lock that a server left which was killed; those of one that runs stay."""
    with contextlib.suppress(AddressError), claim_socket(path):
        pass


def _locked(path: Path, lock_path: Path) -> int:
    """The lock file, held. Raises AddressError when another process holds it, or it cannot be made."""
    while True:
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AddressError(f"cannot use the socket path {path}: {error.strerror}: {lock_path}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AddressError(f"the address unix:{path} is busy: another reward server runs there") from None
        try:
            if os.path.samestat(os.fstat(lock), os.stat(lock_path)):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # removed by the one that held it, between our opening and our locking


def _remove_stale_socket(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise AddressError(f"cannot use the address unix:{path}: a file that is not a socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError as error:
            raise AddressError(f"the address unix:{path} is busy: {error}") from error
    raise AddressError(f"the address unix:{path} is busy: another program serves there")
