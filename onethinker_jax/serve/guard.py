"""Who may come in: those with the key, where there is one; on loopback, those who name this machine."""

import base64
import binascii
import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from onethinker_jax.serve.arguments import Arguments
from onethinker_jax.serve.errors import Refused


class Guard:
    """Lets those in who may come: with the key, where there is one; by a name of this machine, where it listens there.

    A browser can be brought to send requests to this machine for any page, under the page's own name. One that says
    for which page it asks (`Origin`) is let in for pages of this server alone, where `browsers` are expected.
    """

    def __init__(
        self,
        app: ASGIApp,
        arguments: Arguments,
        key: bytes | None,
        *,
        refused: Callable[[int], None] = lambda status: None,
        browsers: bool = False,
    ):
        """`refused` hears the status of what is refused; `browsers` may also send the key as a password."""
        self._app, self._key, self._heard, self._browsers = app, key, refused, browsers
        local = {"localhost", "127.0.0.1", "::1", arguments.host}
        self._hosts = local if arguments.loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] in ("http", "websocket") and (refused := self._refused(HTTPConnection(scope))):
            self._heard(refused.status)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": refused.message})
                return
            await JSONResponse(refused.body(), refused.status, headers=refused.headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, request: HTTPConnection) -> Refused | None:
        named = request.headers.get("host", "")
        if self._hosts is not None and _host(named) not in self._hosts:
            return Refused(421, "the Host header names another machine than this one")
        origin = request.headers.get("origin") if self._browsers else None
        if origin is not None and origin.partition("://")[2] != named:
            return Refused(403, "the request is made for another page than this server's")
        if self._key is None or request.url.path == "/health":
            return None
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        key = sent.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
        if self._browsers and scheme.lower() == "basic":
            key = _password(sent.strip())
        if hmac.compare_digest(key, self._key):
            return None
        how = "sent as the password" if self._browsers else "Authorization: Bearer …"
        refused = Refused(401, f"the API key is missing or wrong ({how})", code="invalid_api_key")
        refused.headers["WWW-Authenticate"] = 'Basic realm="API key"' if self._browsers else "Bearer"
        return refused


def _host(named: str) -> str | None:
    try:
        return urlsplit("//" + named).hostname
    except ValueError:
        return None


def _password(sent: str) -> bytes:
    """The password of Basic authentication, whatever the user's name; b"" where there is none."""
    try:
        return base64.b64decode(sent, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
