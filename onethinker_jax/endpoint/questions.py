"""Many questions whose answers must be readable: from the cache, else asked at once and read as they come.

An answer that cannot be read is asked for again, warmer each time. Only readable answers are cached: whatever ends the
process, what was read is not asked again, and what was not is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from onethinker_jax.endpoint.answer_cache import AnswerCache, request_key
from onethinker_jax.endpoint.endpoint import Endpoint, EndpointError, Unanswered, first_error
from onethinker_jax.endpoint.settings import EndpointSettings

T = TypeVar("T")

WARMER = 0.5
"""What is added to the temperature each time that an answer could not be read."""

LINE_SECONDS = 10.0
"""Between two lines on how far it is."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked, in the API's format, and how the answer is read."""

    messages: list[dict[str, Any]]
    read: Callable[[str], T | None]
    """The answer's meaning, None where it has none. Reasoning before it is cut off already."""


class Questions:
    """Asks one endpoint. The counts are of all calls."""

    def __init__(self, settings: EndpointSettings, cache: AnswerCache, *, tries: int = 3):
        """`tries`: how often a question is asked whose answer cannot be read."""
        self.settings, self._cache, self._tries = settings, cache, tries
        self.cached = self.asked = self.unread = 0
        """Questions answered from the cache; asked and read; left without a readable answer."""

    def ask(self, questions: Sequence[Question[T]], *, only_cached: str = "") -> list[T | Exception]:
        """What each question's answer says, in order; an error where there is none or none that can be read.

        Equal questions are asked once. With `only_cached`, nothing is asked, and this is the error of what is not in
        the cache. The errors are Unanswered, or EndpointError where the endpoint cannot be used at all.

        Raises EndpointError: the client is not installed. CacheError.
        """
        found: dict[str, T | Exception] = {}
        keys = [request_key(self.settings, question.messages) for question in questions]
        missing: dict[str, Question[T]] = {}
        for key, question in zip(keys, questions, strict=True):
            text = None if key in found or key in missing else self._cache.get(key)
            value = None if text is None else question.read(text)
            if value is not None:
                found[key] = value
            elif key not in found:
                missing[key] = question
        if missing and only_cached:
            found |= dict.fromkeys(missing, Unanswered(only_cached))
        elif missing:
            found |= asyncio.run(self._ask(missing))
        results = [found[key] for key in keys]
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, Exception):
                self.unread += 1
            elif key in missing:
                self.asked += 1
            else:
                self.cached += 1
        return results

    async def _ask(self, questions: dict[str, Question[T]]) -> dict[str, T | Exception]:
        results: dict[str, T | Exception] = {}
        line_at = time.monotonic() + LINE_SECONDS

        async def one(key: str, question: Question[T]) -> None:
            nonlocal line_at
            try:
                results[key] = await self._readable(endpoint, key, question)
            except (Unanswered, EndpointError) as error:
                results[key] = error
            if time.monotonic() >= line_at:
                line_at = time.monotonic() + LINE_SECONDS
                done, all_of_them = f"{len(results):,}", f"{len(questions):,}"
                logger.info("%s: %s of %s questions", self.settings.model, done, all_of_them)

        async with Endpoint(self.settings) as endpoint:
            try:
                async with asyncio.TaskGroup() as group:
                    for key, question in questions.items():
                        group.create_task(one(key, question))
            except BaseExceptionGroup as group:
                raise first_error(group) from None
        return results

    async def _readable(self, endpoint: Endpoint, key: str, question: Question[T]) -> T:
        said = ""
        for attempt in range(self._tries):
            warmer = {"temperature": self.settings.temperature + attempt * WARMER} if attempt else {}
            text = answer_text((await endpoint.ask(question.messages, **warmer)).text)
            value = None if text is None else question.read(text)
            if value is not None:
                self._cache.put(key, text or "")
                return value
            said = text or said
        shown = " ".join(said.split())[:60]
        raise Unanswered(
            f"the answer cannot be read: {shown!r}" if shown else "the answer is empty or not whole"
        )


def answer_text(text: str) -> str | None:
    """What a model says after its reasoning; None while it still reasons."""
    _, closed, after = text.rpartition("</think>")
    if not closed:
        return None if "<think>" in text else text.strip()
    return after.strip()
