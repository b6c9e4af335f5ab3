"""Fetching a medium by http(s), from public addresses only.

A server that fetches what clients name can be sent to its own machine, its neighbours or its cloud's metadata. A host's
addresses are therefore checked where the connection is made, and the connection goes to the address that was checked:
a name that means something else a moment later changes nothing. Redirects are not followed, no proxy is asked.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2 as httpcore

from onethinker_jax.serve.errors import Refused, wrong

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

CONNECT_SECONDS, READ_SECONDS = 10.0, 20.0


def is_public(address: Address) -> bool:
    """Whether anybody may be asked there: not this machine, a private network, or an address that stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.is_site_local or (address.sixtofour is not None and not is_public(address.sixtofour)):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are allowed, and to no other."""

    def __init__(self, allowed: Callable[[Address], bool]):
        self._allowed = allowed
        self._connect: Any = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, proto=6)
        except (OSError, UnicodeError, TimeoutError):
            raise wrong(f"{host[:80]}: no such host") from None
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        if not addresses or not all(map(self._allowed, addresses)):
            raise wrong(f"{host[:80]}: is no public address")
        return await self._connect.connect_tcp(
            str(addresses[0]), port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise wrong("a socket of this machine cannot be fetched from")

    async def sleep(self, seconds: float) -> None:
        await self._connect.sleep(seconds)


class Fetcher:
    """Fetches files of a bounded size. One connection a file; redirects are refused."""

    def __init__(self, most_bytes: int, allowed: Callable[[Address], bool] = is_public):
        self._most, self._allowed = most_bytes, allowed

    async def get(self, url: str) -> bytes:
        """The file's bytes. Raises Refused naming the address and what is wrong with it."""
        shown = url[:120]
        timeouts = {"connect": CONNECT_SECONDS, "read": READ_SECONDS, "write": READ_SECONDS, "pool": 1.0}
        async with httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            network_backend=_Checked(self._allowed),
            max_keepalive_connections=0,
        ) as pool:
            try:
                headers = [("User-Agent", "onethinker_jax"), ("Accept-Encoding", "identity")]
                async with pool.stream(
                    "GET", url, headers=headers, extensions={"timeout": timeouts}
                ) as answer:
                    if answer.status != 200:
                        raise wrong(f"{shown}: answered with status {answer.status}, not 200")
                    content = bytearray()
                    async for part in answer.aiter_stream():
                        content += part
                        if len(content) > self._most:
                            raise wrong(f"{shown}: more than the {self._most} bytes allowed")
                    return bytes(content)
            except Refused:
                raise
            except (
                httpcore.NetworkError,
                httpcore.ProtocolError,
                httpcore.TimeoutException,
                httpcore.UnsupportedProtocol,
                UnicodeError,
                ValueError,
                OSError,
            ) as error:
                raise wrong(f"{shown}: cannot be fetched ({type(error).__name__})") from None
