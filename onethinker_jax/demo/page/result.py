"""What the page says of an answer in words, and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo.page.thinking import Progress, Thought
from onethinker_jax.demo.printing import wrong_with
from onethinker_jax.rewards.answers import unwrap_answer


@dataclass(frozen=True)
class Result:
    """An answer to a record, by the model of that name."""

    model: str
    record: Record
    thought: Thought

    def warnings(self) -> Iterator[str]:
        """What is wrong with the response, a sentence each."""
        answer = self.thought.answer
        if answer.response.reason == "length":
            yield f"cut off after {answer.response.tokens} tokens"
        yield from wrong_with(answer)

    def truth(self) -> str:
        """The record's own answer; "" where it has none."""
        return unwrap_answer(self.record.answer)

    def json(self) -> str:
        """All that is known of it, for copying."""
        answer, progress, record = self.thought.answer, self.thought.progress, self.record
        rate = progress.rate
        found: dict[str, Any] = {
            "model": self.model,
            "question": words_of(record.problem).strip(),
            "task": record.problem_type,
            "options": list(record.options),
            "media": [file.name for file in (*record.videos, *record.images)],
            "sampling": asdict(self.thought.sampling),
            "response": answer.response.text,
            "reasoning": answer.reasoning,
            "answer": answer.text,
            "parsed": parsed(answer.parsed),
            "error": answer.error,
            "true_answer": self.truth() or None,
            "finish_reason": answer.response.reason,
            "prompt_tokens": answer.response.prompt_tokens,
            "tokens": answer.response.tokens,
            "seconds_to_first_token": round(progress.first_seconds, 3),
            "seconds": round(progress.seconds, 3),
            "tokens_per_second": None if rate is None else round(rate, 1),
        }
        return json.dumps(found, ensure_ascii=False, indent=2)


def parsed(value: Any) -> Any:
    """A parsed answer as JSON has it; a structured one without the fields of other tasks."""
    if not hasattr(value, "__dataclass_fields__"):
        return value
    return {name: part for name, part in asdict(value).items() if part not in (None, (), {})}


def speed_text(progress: Progress) -> str:
    """Tokens, and how fast they came."""
    said = f"{progress.tokens} tokens, the first after {progress.first_seconds:.2f} s"
    return said if progress.rate is None else f"{said}, then {progress.rate:.1f} a second"
