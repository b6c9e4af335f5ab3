"""A teacher behind an OpenAI-compatible endpoint: questions in, answers out, whatever the network does.

Sending is the `openai` client's; when to send, how often to try again and when to give up is decided here,
because the client's own repetitions wait no longer than a minute and know of no limit per minute. It is imported
when it is needed: what is already answered can be filtered without it.
"""

import asyncio
import email.utils
import json
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from onethinker_jax.data_pipeline.annotate.rate_limits import Pace
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


class TeacherError(UserError):
    """The endpoint cannot be used: asking on is of no use. One line, naming the endpoint and what to mend."""


class Unanswered(RuntimeError):
    """One question stays without an answer. One line that says why."""


class _TryAgain(Exception):
    """What one attempt ended with; `pause`: seconds that the server asked for."""

    def __init__(self, cause: str, pause: float | None = None):
        super().__init__(cause)
        self.cause, self.pause = cause, pause


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Which endpoint, what is asked of it, how fast, and what it costs."""

    base_url: str
    """The address of an OpenAI-compatible API: https://host/v1."""
    model: str
    """Its name at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key; a server without keys needs none."""
    temperature: float = 1.0
    """The temperature of the teacher's samples; 0: greedy."""
    top_p: float = 1.0
    """The fewest likeliest tokens whose probabilities sum to this are kept; 1: all."""
    max_tokens: int = 4096
    """The most tokens of one answer; 0: the limit is not sent, or goes by another name in extra_body."""
    extra_body: str = ""
    """JSON object put into every request, for what the endpoint has beyond the API."""
    concurrency: int = 16
    """Requests under way at once, at most."""
    requests_per_minute: float = float("inf")
    """Requests begun in a minute, at most."""
    tokens_per_minute: float = float("inf")
    """The most tokens a minute, of prompts and answers. Until an answer's tokens are known the mean counts."""
    timeout: float = 300.0
    """Seconds that one request may take, from its first byte to the answer's last."""
    retries: int = 6
    """Further tries of a request that fails by the network, the server or a limit."""
    backoff: float = 1.0
    """Seconds before the first further try, doubled each time; never less than a server's Retry-After."""
    price_in: float = 0.0
    """The price of a million prompt tokens, in any currency."""
    price_out: float = 0.0
    """The price of a million tokens of answers."""

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url {self.base_url!r} must look like https://host/v1")
        if not self.model:
            raise ValueError("model must not be empty")
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")
        for name in ("temperature", "max_tokens", "retries", "backoff", "price_in", "price_out"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} must be in (0, 1]")
        if not isinstance(self.extra(), dict):
            raise ValueError(f"extra_body {self.extra_body!r} must be a JSON object")

    def extra(self) -> Any:
        """`extra_body` read."""
        try:
            return json.loads(self.extra_body or "{}")
        except ValueError as error:
            raise ValueError(f"extra_body {self.extra_body!r} is not JSON ({error})") from None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of these numbers of tokens, in the currency of the prices."""
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


@dataclass(frozen=True)
class Reply:
    """What the teacher answered. Tokens are 0 where the endpoint does not say."""

    text: str
    finish_reason: str  # "stop"; "length", "content_filter" ...: the answer is not whole
    prompt_tokens: int
    completion_tokens: int
    seconds: float  # of the request that gave it


class Teacher:
    """Asks the endpoint. For one event loop; use as an asynchronous context manager."""

    def __init__(self, settings: TeacherSettings):
        """Raises TeacherError when the client is not installed."""
        try:
            from openai import AsyncOpenAI, Timeout
        except ModuleNotFoundError as error:
            if error.name != "openai":
                raise
            raise TeacherError(
                "openai is not installed; it comes with the extra annotate: pip install -e '.[annotate]'"
            ) from None
        self.settings = settings
        key = os.environ.get(settings.api_key_env, "")
        self._has_key = bool(key)
        self._client = AsyncOpenAI(
            base_url=settings.base_url,
            api_key=key or "none",
            timeout=Timeout(None, connect=CONNECT_TIMEOUT_S),  # the whole request's is kept here
            max_retries=0,
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._requests = Pace(settings.requests_per_minute)
        self._tokens = Pace(settings.tokens_per_minute)
        self._reached = False
        self._useless: TeacherError | None = None  # once known, nothing more is sent
        self._unanswered_in_a_row = 0
        self._answered = self._tokens_so_far = 0
        self.in_flight = 0
        self.tries_again: Counter[str] = Counter()
        """Why requests were sent again: cause -> times."""

    async def __aenter__(self) -> "Teacher":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]]) -> Reply:
        """The teacher's answer to a conversation in the API's format.

        Raises Unanswered: all tries failed, or the endpoint refuses this question.
        Raises TeacherError: the endpoint cannot be reached, does not take the key or know the model, or has left
        `GIVE_UP_AFTER` questions in a row without an answer.
        """
        try:
            return await self._ask(messages)
        except TeacherError as error:
            self._useless = error
            raise

    async def _ask(self, messages: list[dict[str, Any]]) -> Reply:
        cause = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                self.tries_again[cause] += 1
            try:
                reply = await self._attempt(messages)
            except _TryAgain as again:
                cause = again.cause
                if not self._reached and attempt + 1 >= FIRST_CONTACT_TRIES:
                    raise TeacherError(f"{self.settings.base_url} cannot be reached ({cause})") from None
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
        return TeacherError(
            f"{self.settings.base_url} left {GIVE_UP_AFTER} questions in a row without an answer, the last one: {error}"
        )

    async def _back_off(self, attempt: int, asked_for: float | None) -> None:
        """Waits before the next try, twice as long each time; what the server asked for holds for all requests."""
        asked_for = min(asked_for or 0.0, LONGEST_PAUSE_S)
        self._requests.pause(asked_for)
        pause = min(self.settings.backoff * 2**attempt, LONGEST_PAUSE_S)
        await asyncio.sleep(max(asked_for, pause * random.uniform(0.75, 1.25)))  # what failed together parts

    async def _attempt(self, messages: list[dict[str, Any]]) -> Reply:
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
                    completion = await self._send(messages)
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

    async def _send(self, messages: list[dict[str, Any]]) -> object:
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, omit

        settings = self.settings
        conversation: Any = messages
        try:
            completion = await self._client.chat.completions.create(
                model=settings.model,
                messages=conversation,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens or omit,
                extra_body=settings.extra() or None,
            )
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
                return TeacherError(f"{url} needs a key, but {self.settings.api_key_env} is not set ({said})")
            return TeacherError(f"{url} does not take the key in {self.settings.api_key_env} ({said})")
        if error.status_code == 404:
            return TeacherError(f"{url} does not know model {self.settings.model!r}, or is no API ({said})")
        if error.status_code == 429 and error.code == "insufficient_quota":
            return TeacherError(f"{url}: the quota is used up ({said})")
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

    Reasoning that the endpoint gives apart from the answer is put into the tags that it belongs in. Of a teacher
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
