"""A judge behind an OpenAI-compatible endpoint, with its answers kept on disk."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from onethinker_jax.endpoint.answer_cache import AnswerCache
from onethinker_jax.endpoint.endpoint import EndpointError
from onethinker_jax.endpoint.questions import Question, Questions
from onethinker_jax.errors import UserError
from onethinker_jax.evaluate.judges import prompts
from onethinker_jax.evaluate.judges.prompts import JudgePrompt, prompts_digest
from onethinker_jax.evaluate.judges.readings import (
    read_choice,
    read_match,
    read_rating,
    read_value,
    read_words,
    read_yes_no,
)
from onethinker_jax.evaluate.judges.settings import JudgeSettings
from onethinker_jax.evaluate.judges.types import (
    CaptionItem,
    CaptionQuestionItem,
    ChoiceItem,
    ComparisonItem,
    Judgement,
    Match,
    ValueItem,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class JudgeError(UserError):
    """The judge could not be used. One line that says why, and how many items are unread."""


class EndpointJudge:
    """The `AnswerJudge` of an endpoint. Equal items are asked about once."""

    def __init__(self, settings: JudgeSettings, cache: AnswerCache):
        """`settings` name an endpoint."""
        self._settings = settings
        self._questions = Questions(settings.as_endpoint(), cache, tries=settings.tries)
        self.error: str | None = None
        self._why = ""

    def choices(self, items: Sequence[ChoiceItem]) -> list[Judgement[str]]:
        """As `AnswerJudge`."""

        def question(item: ChoiceItem) -> Question[str]:
            options = "\n".join(f"{letter}. {text}" for letter, text in item.options.items())
            messages = prompts.CHOICE.messages(
                question=item.question, options=options, response=item.response
            )
            return Question(messages, lambda text: read_choice(text, item.options))

        return self._judged([question(item) for item in items])

    def values(self, items: Sequence[ValueItem]) -> list[Judgement[str]]:
        """As `AnswerJudge`."""
        fields = [
            {"question": item.question, "form": item.form or "a short text", "response": item.response}
            for item in items
        ]
        return self._asked(prompts.VALUE, fields, read_value)

    def equals(self, items: Sequence[ComparisonItem]) -> list[Judgement[bool]]:
        """As `AnswerJudge`."""
        return self._asked(prompts.COMPARISON, [vars(item) for item in items], read_yes_no)

    def caption_answers(self, items: Sequence[CaptionQuestionItem]) -> list[Judgement[str]]:
        """As `AnswerJudge`."""
        return self._asked(prompts.CAPTION_ANSWER, [vars(item) for item in items], read_words)

    def matches(self, items: Sequence[ComparisonItem]) -> list[Judgement[Match]]:
        """As `AnswerJudge`."""
        return self._asked(prompts.MATCH, [vars(item) for item in items], read_match)

    def relevances(self, items: Sequence[CaptionItem]) -> list[Judgement[int]]:
        """As `AnswerJudge`."""
        return self._asked(prompts.RELEVANCE, [vars(item) for item in items], read_rating)

    def settings(self) -> dict[str, Any]:
        """As `AnswerJudge`."""
        names = ("url", "model", "temperature", "top_p", "max_tokens", "extra_body", "tries")
        return {
            **{name: getattr(self._settings, name) for name in names},
            "prompts": prompts_digest(),
            **{name: getattr(self._questions, name) for name in ("asked", "cached", "unread")},
        }

    def check(self) -> None:
        """Says how many items are unread. Raises JudgeError: the endpoint could not be used, or read none of them."""
        asked, unread = self._questions.asked, self._questions.unread
        if not unread:
            return
        said = f"{unread:,} items are unread"
        if self.error is None and asked:
            logger.warning(
                "the judge left %s of %s items unread, one since %s", unread, asked + unread, self._why
            )
            return
        why = self.error or self._why
        raise JudgeError(f"the judge: {why}; {said}, what it judged is kept: the same command goes on")

    def _asked(
        self, prompt: JudgePrompt, items: Sequence[dict[str, str]], read: Callable[[str], T | None]
    ) -> list[Judgement[T]]:
        return self._judged([Question(prompt.messages(**item), read) for item in items])

    def _judged(self, questions: Sequence[Question[T]]) -> list[Judgement[T]]:
        results = self._questions.ask(questions, only_cached=self.error or "")
        broken = next((result for result in results if isinstance(result, EndpointError)), None)
        if broken is not None and self.error is None:
            self.error = str(broken)
        failed = [str(result) for result in results if isinstance(result, Exception)]
        self._why = failed[-1] if failed else self._why
        return [
            Judgement(None, str(result)) if isinstance(result, Exception) else Judgement(result)
            for result in results
        ]


@contextmanager
def open_judge(settings: JudgeSettings, out: Path) -> Iterator[EndpointJudge | None]:
    """The judge that the settings name, its answers in their file or in the folder `out`; None if they name none.

    Raises CacheError: the file of the answers cannot be used.
    """
    if not settings.url:
        yield None
        return
    cache = AnswerCache(settings.cache or out / "judge.sqlite")
    try:
        yield EndpointJudge(settings, cache)
    finally:
        cache.close()
