"""TLS and the bearer token of the reward service, for both of its ends.

Beyond this machine both are required. A token comes from a file or the environment, never from a command
line, which every user of a machine can read.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health

from onethinker_jax.errors import UserError

TOKEN_VARIABLE = "ONETHINKER_REWARD_TOKEN"
MIN_TOKEN_CHARS = 16
AUTHORIZATION = "authorization"


class SecurityError(UserError, ValueError):
    """A token or certificate that cannot be used; names the file or variable, never the secret."""


def read_token(file: Path | None) -> str | None:
    """The token in `file`, else in the variable ONETHINKER_REWARD_TOKEN, else None; raises SecurityError."""
    source = f"the token file {file}" if file is not None else f"the variable {TOKEN_VARIABLE}"
    text = os.environ.get(TOKEN_VARIABLE) if file is None else _read(file, "token").decode("utf-8", "replace")
    if text is None:
        return None
    token = text.strip()
    if len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise SecurityError(f"{source} needs a token of {MIN_TOKEN_CHARS} or more ASCII letters and signs")
    return token


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """TLS with a PEM certificate chain and its key; raises SecurityError when a file cannot be read."""
    return grpc.ssl_server_credentials([(_read(key, "key"), _read(certificate, "certificate"))])


def channel_credentials(authorities: Path) -> grpc.ChannelCredentials:
    """TLS that trusts the PEM certificates in a file; raises SecurityError when it cannot be read."""
    return grpc.ssl_channel_credentials(_read(authorities, "certificate"))


def authorization(token: str | None) -> list[tuple[str, str]]:
    """The metadata of a call."""
    return [] if token is None else [(AUTHORIZATION, f"Bearer {token}")]


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SecurityError(f"cannot read the {what} file {file}: {error.strerror}") from error


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses every call without the token, before its message is read; health checks need none."""

    def __init__(self, token: str, on_refusal: Callable[[], None]) -> None:
        self._wanted = f"Bearer {token}".encode()
        self._on_refusal = on_refusal

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Lets a call go on that is a health check or carries the token; any other gets UNAUTHENTICATED."""
        if handler_call_details.method.startswith(f"/{health.SERVICE_NAME}/"):
            return await continuation(handler_call_details)
        given = [value for name, value in handler_call_details.invocation_metadata if name == AUTHORIZATION]
        sent = given[0] if given else ""
        if hmac.compare_digest(sent.encode() if isinstance(sent, str) else sent, self._wanted):
            return await continuation(handler_call_details)
        self._on_refusal()
        return grpc.stream_stream_rpc_method_handler(_refuse)  # fits every method: no message is read


async def _refuse(requests: object, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the call has no token or a wrong one")
