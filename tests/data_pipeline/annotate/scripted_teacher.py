"""A teacher that answers from the truth, plus noise, over a real HTTP endpoint.

    python -m tests.data_pipeline.annotate.scripted_teacher RECORDS.json --port 8123

serves the records of a file so that annotation can be tried without a model.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia, request_messages
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.rewards.answers import unwrap_answer
from tests.endpoint.scripted_endpoint import Response, ScriptedEndpoint, digest, failure


def worked(answer: str, about: str = "what is asked for") -> str:
    """A response in the wanted form."""
    return (
        f"<think>I look at the picture and search for {about}. I compare what I find there with the question, "
        f"and there is only one thing that it can mean. So the answer is {answer}.</think>\n<answer>{answer}</answer>"
    )


class Truthful:
    """Answers the questions about records: truly, or as `noise` changes the true response."""

    def __init__(
        self,
        records: list[Record],
        sent: SentMedia,
        noise: Callable[[Record, str, int], Response] | None = None,
    ):
        reader = MediaReader()
        self.records = {digest(request_messages(record, reader, sent)): record for record in records}
        self._noise = noise

    def __call__(self, request: dict[str, Any], number: int) -> Response:
        record = self.records[digest(request["messages"])]
        truth = unwrap_answer(record.answer)
        return self._noise(record, truth, number) if self._noise else Response(worked(truth))


def noisy(record: Record, truth: str, number: int) -> Response:
    """Two of three answers are good; the others have one of the errors that teachers have."""
    rng = random.Random(f"{record.problem_id}/{number}")
    good = worked(truth)
    if rng.random() < 0.66:
        return Response(worked(_shaken(truth, rng, 12)) if truth.startswith("{") else good)
    return rng.choice(
        (
            Response(worked(_shaken(truth, rng, 300) if truth.startswith("{") else f"{truth[::-1]}7")),
            Response(good[: len(good) // 2], "length"),
            Response(truth),
            Response(f"<think>Two words.</think><answer>{truth}</answer>"),
            Response(
                f"<think>{'I look again and see nothing new here at all. ' * 12}</think><answer>{truth}</answer>"
            ),
            Response(
                f"<think>我看了一下这张图片，答案应该是第一个选项，因为它最符合题目的要求，所以选择它。</think><answer>{truth}</answer>"
            ),
            Response(good.replace("So the answer", "The ground truth says the answer")),
            Response(good.replace("I look at", "I cannot see the image, but look at")),
            Response("", "content_filter"),
            Response(good, hang=0.05),
        )
    )


def _shaken(truth: str, rng: random.Random, by: float) -> str:
    """The JSON with its coordinates moved, its times a little."""

    def move(value: Any, by: float) -> Any:
        if isinstance(value, dict):
            return {key: move(item, 0.004 * by if key == "time" else by) for key, item in value.items()}
        if isinstance(value, list):
            return [move(item, by) for item in value]
        return min(max(round(value + rng.uniform(-by, by), 1), 0), 1000)

    return json.dumps(move(json.loads(truth), by))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves noisy true answers to the records of a file.")
    parser.add_argument("records", type=Path)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--seconds", type=float, default=0.3, help="an answer takes, about")
    options = parser.parse_args()
    truthful = Truthful(read_records(options.records), SentMedia(), noisy)
    rng = random.Random(0)

    def answer(request: dict[str, Any], number: int) -> Response:
        if rng.random() < 0.03:
            return failure(500, "an internal error")
        if rng.random() < 0.02:
            return failure(429, "too many requests", headers={"Retry-After": "1"})
        time.sleep(options.seconds * rng.uniform(0.5, 1.5))
        return truthful(request, number)

    with ScriptedEndpoint(answer, port=options.port) as teacher:
        sys.stdout.write(f"{len(truthful.records)} records at {teacher.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
