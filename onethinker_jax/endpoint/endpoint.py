"""Questions in, answers out, whatever the network does.

Sending is the `openai` client's; when to send, how often to try again and when to give up is decided here,
because the client's own repetitions wait no longer than a minute and know of no limit per minute. It is imported
when it is needed: what is already answered can be filtered and judged without it.
"""

import asyncio
import email.utils
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onethinker_jax.endpoint.pace import Pace
from onethinker_jax.endpoint.settings import EndpointSettings
from onethinker_jax.errors import UserError

if TYPE_CHECKING:
    from openai import APIStatusError

FIRST_CONTACT_TRIES = 3
"""Connections that may fail before the endpoint has ever answered: then its address is wrong, or it is down."""

CONNECT_TIMEOUT_S = 15.0

GIVE_UP_AFTER = 20
"""Questions in a row that stay without an answer, each after all its tries, before the run is stopped."""

LONGEST_PAUSE_S = 600.0
"""What a server's Retry-After, or our own backing off, may come to."""

_WORTH_ANOTHER_TRY = {408, 409, 429}  # and all of 500 and above


class EndpointError(UserError):
    """The endpoint cannot be used: asking on is of no use. One line, naming the endpoint and what to mend."""


class Unanswered(RuntimeError):
    """One question stays without an answer. One line that says why."""


class _TryAgain(Exception):
    """What one attempt ended with; `pause`: seconds that the server asked for."""

    def __init__(self, cause: str, pause: float | None = None):
        super().__init__(cause)
        self.cause, self.pause = cause, pause


@dataclass(frozen=True)
class Reply:
    """What the endpoint answered. Tokens are 0 where the endpoint does not say."""

    text: str
    finish_reason: str  # "stop"; "length", "content_filter" ...: the answer is not whole
    prompt_tokens: int
    completion_tokens: int
    seconds: float  # of the request that gave it


class Endpoint:
    """Asks the endpoint. For one event loop; use as an asynchronous context manager."""

    def __init__(self, settings: EndpointSettings):
        """Raises EndpointError when the client is not installed."""
        openai = openai_library()
        self.settings = settings
        key = os.environ.get(settings.api_key_env, "")
        self._has_key = bool(key)
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=key or "none",
            timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT_S),  # the whole request's is kept here
            max_retries=0,
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._requests = Pace(settings.requests_per_minute)
        self._tokens = Pace(settings.tokens_per_minute)
        self._reached = False
        self._useless: EndpointError | None = None  # once known, nothing more is sent
        self._unanswered_in_a_row = 0
        self._answered = self._tokens_so_far = 0
        self.in_flight = 0
        self.tries_again: Counter[str] = Counter()
        """Why requests were sent again: cause -> times."""

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]], **sampling: Any) -> Reply:
        """The answer to a conversation in the API's format.

        `sampling`: arguments of the client for this one request that are other than the settings', such as
        `temperature`, `seed` or `extra_body`.

        Raises Unanswered: all tries failed, or the endpoint refuses this question.
        Raises EndpointError: the endpoint cannot be reached, does not take the key or know the model, or has left
        `GIVE_UP_AFTER` questions in a row without an answer.
        """
        try:
            return await self._ask(messages, sampling)
        except EndpointError as error:
            self._useless = error
            raise

    async def _ask(self, messages: list[dict[str, Any]], sampling: dict[str, Any]) -> Reply:
        cause = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                self.tries_again[cause] += 1
            try:
                reply = await self._attempt(messages, sampling)
            except _TryAgain as again:
                cause = again.cause
                if not self._reached and attempt + 1 >= FIRST_CONTACT_TRIES:
                    raise EndpointError(f"{self.settings.base_url} cannot be reached ({cause})") from None
                if attempt < self.settings.retries:
                    await self._back_off(attempt, again.pause)
            except Unanswered as error:
                raise self._failed(error) from None
            else:
                self._unanswered_in_a_row = 0
                return reply
        raise self._failed(Unanswered(f"{cause}, {self.settings.retries + 1} times"))

    def _failed(self, error: Unanswered) -> Exception:
        self._unanswered_in_a_row += 1
        if self._unanswered_in_a_row < GIVE_UP_AFTER:
            return error
        return EndpointError(
            f"{self.settings.base_url} left {GIVE_UP_AFTER} questions in a row without an answer, the last one: {error}"
        )

    async def _back_off(self, attempt: int, asked_for: float | None) -> None:
        """Waits before the next try, twice as long each time; what the server asked for holds for all requests."""
        asked_for = min(asked_for or 0.0, LONGEST_PAUSE_S)
        self._requests.pause(asked_for)
        pause = min(self.settings.backoff * 2**attempt, LONGEST_PAUSE_S)
        await asyncio.sleep(max(asked_for, pause * random.uniform(0.75, 1.25)))  # what failed together parts

    async def _attempt(self, messages: list[dict[str, Any]], sampling: dict[str, Any]) -> Reply:
        """One request. The slot comes first, so that what is let through starts at once."""
        async with self._slots:
            expected = self._expected_tokens(messages)
            await self._tokens.take(expected)
            await self._requests.take()
            if self._useless:
                raise self._useless
            self.in_flight += 1
            begin = time.monotonic()
            try:
                async with asyncio.timeout(self.settings.timeout):
                    completion = await self._send(messages, sampling)
            except TimeoutError:
                self._reached = True  # it listens, at least
                raise _TryAgain(f"no answer within {self.settings.timeout:g} s") from None
            finally:
                self.in_flight -= 1
            reply = _read(completion, time.monotonic() - begin)
        tokens = reply.prompt_tokens + reply.completion_tokens
        if tokens:
            self._tokens.correct(tokens - expected)
            self._answered += 1
            self._tokens_so_far += tokens
        return reply

    async def _send(self, messages: list[dict[str, Any]], sampling: dict[str, Any]) -> object:
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, omit

        settings = self.settings
        request: dict[str, Any] = {
            "model": settings.model,
            "messages": messages,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens or omit,
            "extra_body": settings.extra() or None,
            **sampling,
        }
        try:
            completion = await self._client.chat.completions.create(**request)
        except APIStatusError as error:
            self._reached = True
            raise self._refused(error) from None
        except APITimeoutError:
            raise _TryAgain(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except APIConnectionError as error:
            raise _TryAgain(f"no connection: {_deepest(error)}") from None
        except (APIError, ValueError):  # the client's word for a body that is not JSON or not of the API
            completion = None
        self._reached = True
        return completion

    def _refused(self, error: "APIStatusError") -> Exception:
        """What an error status means: the end of the run, of the question, or of the attempt."""
        url, said = self.settings.base_url, f"{error.status_code}: {_said(error)}"
        if error.status_code in (401, 403):
            if not self._has_key:
                return EndpointError(
                    f"{url} needs a key, but {self.settings.api_key_env} is not set ({said})"
                )
            return EndpointError(f"{url} does not take the key in {self.settings.api_key_env} ({said})")
        if error.status_code == 404:
            return EndpointError(f"{url} does not know model {self.settings.model!r}, or is no API ({said})")
        if error.status_code == 429 and error.code == "insufficient_quota":
            return EndpointError(f"{url}: the quota is used up ({said})")
        if error.status_code in _WORTH_ANOTHER_TRY or error.status_code >= 500:
            cause = "rate limit" if error.status_code == 429 else "server error"
            return _TryAgain(f"{cause} {said}"[:200], retry_after(error.response.headers))
        return Unanswered(f"the endpoint refuses the question ({said})")

    def _expected_tokens(self, messages: list[dict[str, Any]]) -> float:
        """The mean so far; for the first ones what they can come to, with 1,000 tokens a picture."""
        if self._answered:
            return self._tokens_so_far / self._answered
        parts = [part for m in messages if isinstance(m["content"], list) for part in m["content"]]
        return (self.settings.max_tokens or 4096) + 1000 * sum(part["type"] == "image_url" for part in parts)


def openai_library() -> Any:
    """The library of the client. Raises EndpointError when it is not installed."""
    try:
        import openai
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise EndpointError(
            "openai is not installed; it comes with the extra endpoint: pip install -e '.[endpoint]'"
        ) from None
    return openai


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None without a readable one."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(date.timestamp() - (time.time() if now is None else now), 0.0)


def _read(completion: object, seconds: float) -> Reply:
    """The reply in a completion. The client checks no types: what is missing or odd is found here.

    Reasoning that the endpoint gives apart from the answer is put into the tags that it belongs in. Of a model
    whose chat template opens <think> an endpoint may give what follows: the tag is put before it again.
    """
    from openai.types.chat import ChatCompletion

    if not isinstance(completion, ChatCompletion):
        raise _TryAgain("the answer is not JSON of the API")
    choices: Any = completion.choices
    if not isinstance(choices, list) or not choices:
        raise _TryAgain("the answer holds no choices")
    message = getattr(choices[0], "message", None)
    content = getattr(message, "content", None)
    reasons = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    reasoning = next((text for text in reasons if isinstance(text, str) and text.strip()), "")
    finish = getattr(choices[0], "finish_reason", None)
    if message is None or not isinstance(content, str | None):
        raise _TryAgain("the answer holds no message")
    if content is None and getattr(message, "refusal", None):
        finish = "content_filter"
    text = content or ""
    if reasoning and "<think>" not in text:
        text = f"<think>{reasoning.strip()}</think>\n{text.strip()}"
    elif "</think>" in text and "<think>" not in text:
        text = f"<think>{text}"
    counts = (getattr(completion.usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else 0 for count in counts)
    return Reply(text, str(finish or "stop"), prompt_tokens, completion_tokens, seconds)


def _said(error: "APIStatusError") -> str:
    """The server's own words, in one line."""
    body = error.body
    words = body.get("message") if isinstance(body, dict) else None
    words = words if isinstance(words, str) and words else body if isinstance(body, str) else error.message
    return " ".join(str(words).split())[:160] or "no reason given"


def _deepest(error: BaseException) -> str:
    """The operating system's word for a failed connection, which lies below several layers of others'."""
    said = str(error)
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause) or said
        cause = cause.__cause__ or cause.__context__
    return " ".join(said.split())[:160]


def first_error(error: BaseException) -> BaseException:
    """The error that a group of groups of errors began with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
