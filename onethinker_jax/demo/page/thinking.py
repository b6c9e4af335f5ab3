"""A model that is asked on the page: its response as it comes, in the batch that all who ask share."""

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from onethinker_jax.assistant import Answer, Response, read_answer
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo.printing import SHORTEST
from onethinker_jax.model.generation.running_batch import SampleRequest
from onethinker_jax.serve.app import Parts
from onethinker_jax.serve.engine import Job


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn; temperature 0 is greedy, `seed` None a random one."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_new_tokens: int | None = None  # None: as many as the page allows


@dataclass(frozen=True)
class Progress:
    """What has come of a response."""

    text: str
    tokens: int
    first_seconds: float  # from the question to the first tokens, waiting for a slot included
    first_tokens: int  # that came together
    seconds: float  # from the question to now

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first ones; None where that is too short to tell."""
        decoding = self.seconds - self.first_seconds
        return (self.tokens - self.first_tokens) / decoding if decoding >= SHORTEST else None


@dataclass(frozen=True)
class Thought:
    """A response that is through, and what it says."""

    answer: Answer
    progress: Progress
    sampling: Sampling  # with the seed that was taken


class Thinker:
    """One model of the page."""

    def __init__(self, parts: Parts):
        self.parts, self.name, self.processor = parts, parts.arguments.name, parts.maker.processor

    async def think(self, record: Record, sampling: Sampling, hear: Callable[[Progress], None]) -> Thought:
        """The model's answer to a record; `hear` is told what has come of it. Cancelled, it frees its slot.

        Raises Refused: a prompt that is too long, media that cannot be read, a device that fails.
        """
        most = self.parts.arguments.max_new_tokens
        prompt = await self.parts.maker.of_record(record, "question")
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed % 2**32
        request = SampleRequest(
            prompt=prompt,
            tokens=len(prompt.tokens),
            patches=len(prompt.patches),
            max_new_tokens=min(sampling.max_new_tokens or most, most),
            seed=seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        progress, reason, began = None, None, time.monotonic()
        async with contextlib.aclosing(self.parts.engine.answers(Job(request))) as arriving:
            async for pieces in arriving:
                said, seconds = "".join(piece.text for piece in pieces), time.monotonic() - began
                if progress is None:
                    progress = Progress(prompt.opening, 0, seconds, len(pieces), seconds)
                progress = Progress(
                    progress.text + said,
                    progress.tokens + len(pieces),
                    progress.first_seconds,
                    progress.first_tokens,
                    seconds,
                )
                reason = pieces[-1].finish_reason
                hear(progress)
        assert progress is not None
        response = Response(
            progress.text,
            "length" if reason == "length" else "stop",
            progress.tokens,
            len(prompt.tokens),
            progress.seconds,
        )
        drawn = Sampling(sampling.temperature, sampling.top_p, seed, request.max_new_tokens)
        return Thought(read_answer(response, record), progress, drawn)


def spoken(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a response that may not be through, as far as they are there."""
    before, _, after = text.removeprefix("<think>").partition("</think>")
    return before.strip(), after.partition("<answer>")[2].partition("</answer>")[0].strip()
