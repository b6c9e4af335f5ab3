"""What a request is refused with: an HTTP status, a sentence, and the API's words for it."""

from typing import Any


class Refused(Exception):
    """A request that is not answered, and why. `field` is the part of the request that is wrong."""

    def __init__(self, status: int, message: str, *, code: str | None = None, field: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.field = status, message, code, field
        self.headers: dict[str, str] = {}
        """Further headers of the response."""

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's API writes it."""
        kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        usual = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": kind.get(self.status, usual),
                "param": self.field,
                "code": self.code,
            }
        }


def wrong(message: str, field: str | None = None) -> Refused:
    """A request that says something it cannot."""
    return Refused(400, message, field=field)


def busy(message: str, seconds: int) -> Refused:
    """A request that came at a bad time; the client may come back after `seconds`."""
    refused = Refused(429, message, code="server_busy")
    refused.headers["Retry-After"] = str(seconds)
    return refused
