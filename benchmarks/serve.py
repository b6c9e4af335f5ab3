"""Load on the server: latency and tokens a second of many clients, each answer compared with the one it has alone.

    python -m benchmarks.serve MODEL [--clients 64] [--requests 640] [--slots 16] [--tokens 64] [--no-transformers]
                               [--memory-requests 5000]
    python -m benchmarks.serve --url http://host:8000/v1 [--clients 64] [--requests 640]

Each of `KINDS` questions, a third of them about a picture, has a seed, and is asked alone first, one by one. Then
clients ask them all again, in a random order: half of them streamed, one in eight read slowly, one in eight given up
after its first token. What is lost, doubled or another's answer is an error, and so are slots that stay taken. They are
asked one by one once more at the end: on a machine that others use too, compare figures of one run only. Without --url
the server of MODEL is started; `--memory-requests` more, of at most `FEW` tokens each, are then asked the same way, and
its resident memory is told after each tenth of them. `transformers` is its `generate`, one question at a time, greedy,
as many tokens each.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
from PIL import Image

from onethinker_jax.data_pipeline.processor.processor import Processor

KINDS = 24
SLOW_SECONDS = 0.05  # between two chunks of a slow reader
FEW = 4  # tokens of an answer where memory is watched


@dataclass(frozen=True)
class Question:
    """A request with a seed, so that there is one right answer."""

    text: str
    picture: bytes | None  # PNG
    seed: int
    tokens: int

    def request(self, model: str) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        if self.picture is not None:
            url = f"data:image/png;base64,{base64.b64encode(self.picture).decode()}"
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "user", "content": content}]
        return {"model": model, "messages": messages, "seed": self.seed, "max_tokens": self.tokens}


@dataclass
class Load:
    """What was seen of a load; times are seconds."""

    first: list[float] = field(default_factory=list)  # to the first token of a stream
    whole: list[float] = field(default_factory=list)  # to the end of an answer that was not read slowly
    tokens: int = 0
    given_up: int = 0
    wrong: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    seconds: float = 0.0
    mebibytes: list[float] = field(default_factory=list)  # resident, after each tenth of the requests

    @property
    def through(self) -> int:
        """Requests that have an answer or were given up."""
        return len(self.ids) + self.given_up

    def lines(self) -> Iterator[str]:
        yield f"{len(self.ids)} answers and {self.given_up} given up in {self.seconds:.1f} s, wrong: {len(self.wrong)}"
        yield f"{self.tokens / self.seconds:.0f} tokens a second, {len(self.ids) / self.seconds:.1f} answers a second"
        for name, values in (("first token", self.first), ("whole answer", self.whole)):
            p50, p99 = np.percentile(values, (50, 99))
            yield f"{name}: p50 {p50:.3f} s, p99 {p99:.3f} s"


def make_questions(tokens: int) -> list[Question]:
    found = []
    for number in range(KINDS):
        rng = np.random.default_rng(number)
        words = ["what", "is", "the", "colour", "of", "this", "shape", "and", "where", "does", "it", "stand"]
        text = f"{number}: " + " ".join(rng.choice(words, 4 + 2 * number % 20))
        picture = None
        if number % 3 == 0:
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(content, "PNG")
            picture = content.getvalue()
        found.append(Question(text, picture, seed=number, tokens=max(tokens * (1 + number % 4) // 4, 1)))
    return found


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


async def alone(client: openai.AsyncOpenAI, model: str, questions: list[Question]) -> tuple[list[str], float]:
    """Each question's answer when nothing else is asked, and tokens a second."""
    texts, tokens, began = [], 0, time.monotonic()
    for question in questions:
        answer = await client.chat.completions.create(**question.request(model))
        texts.append(answer.choices[0].message.content or "")
        tokens += answer.usage.completion_tokens if answer.usage else 0
    return texts, tokens / (time.monotonic() - began)


async def under_load(
    client: openai.AsyncOpenAI,
    model: str,
    questions: list[Question],
    expected: list[str],
    *,
    clients: int,
    requests: int,
    memory: Callable[[], float] | None = None,
) -> Load:
    """Asks `requests` questions by `clients` at once; a wrong answer is told in `Load.wrong`.

    `memory` gives mebibytes, which `Load.mebibytes` takes down ten times.
    """
    load, numbers, began = Load(), iter(range(requests)), time.monotonic()

    async def work() -> None:
        for number in numbers:
            rng = random.Random(number)
            kind = rng.randrange(len(questions))
            how = rng.choice(["whole", "stream"] * 3 + ["slow", "given up"])
            start = time.monotonic()
            request = questions[kind].request(model)
            if how == "whole":
                answer = await client.chat.completions.create(**request)
                text, name = answer.choices[0].message.content, answer.id
                load.tokens += answer.usage.completion_tokens if answer.usage else 0
            else:
                text, name = await _streamed(client, request, how, load, start)
            if text is not None:
                if how != "slow":
                    load.whole.append(time.monotonic() - start)
                if text != expected[kind] or name in load.ids:
                    load.wrong.append(f"request {number} ({how}): {text!r}, not {expected[kind]!r}")
                load.ids.add(name)
            if memory is not None and load.through % max(requests // 10, 1) == 0:
                load.mebibytes.append(memory())

    await asyncio.gather(*(work() for _ in range(clients)))
    load.seconds = time.monotonic() - began
    return load


async def _streamed(
    client: openai.AsyncOpenAI, request: dict[str, Any], how: str, load: Load, start: float
) -> tuple[str | None, str]:
    """The text and the id of a streamed answer; no text of one that is given up."""
    options: Any = {"include_usage": True}
    stream = await client.chat.completions.create(**request, stream=True, stream_options=options)
    text, name = "", ""
    async with stream:
        async for chunk in stream:
            if not name:
                name = chunk.id
                load.first.append(time.monotonic() - start)
                if how == "given up":
                    load.given_up += 1
                    return None, name
            if how == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            if chunk.usage is not None:
                load.tokens += chunk.usage.completion_tokens
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return text, name


@contextlib.contextmanager
def started(model: Path, slots: int, tokens: int) -> Iterator[tuple[str, int]]:
    """The URL and the process of a server of this model."""
    words = [
        *(
            "--port",
            "0",
            "--prompt-slots",
            str(slots),
            "--max-new-tokens",
            str(tokens),
            "--prompt-buckets",
            "2",
        )
    ]
    words += [*("--prompt-tokens", "512", "--prompt-patches", "1024", "--limits.requests", "1024")]
    command = [sys.executable, "-m", "onethinker_jax.serve", str(model), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if " slots" in line:
            yield f"http://127.0.0.1:{line.partition('/v1')[0].rpartition(':')[2]}/v1", process.pid
            break
        sys.stderr.write(line)
    process.terminate()
    process.wait()


def resident(pid: int) -> float:
    """MiB of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def in_transformers(model: Path, questions: list[Question]) -> float:
    """Tokens a second of `generate`, one question at a time; prompts are made by our processor, outside the time."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    processor = Processor.from_pretrained(model)
    network: Any = Qwen3VLForConditionalGeneration.from_pretrained(model).eval()
    tokens, seconds = 0, 0.0
    for question in questions:
        images = [] if question.picture is None else [np.asarray(Image.open(io.BytesIO(question.picture)))]
        messages = [{"role": "user", "content": "<image>" * len(images) + question.text}]
        prompt = processor(messages, images=images, add_generation_prompt=True)
        ids = torch.tensor(prompt.tokens[None].astype(np.int64))
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["mm_token_type_ids"] = (ids == processor.image_token_id).int()
        if images:
            pixels = (prompt.patches.astype(np.float32) / 255 - 0.5) / 0.5
            inputs |= {"pixel_values": torch.tensor(pixels), "image_grid_thw": torch.tensor(prompt.grids)}
        began = time.monotonic()
        with torch.inference_mode():
            network.generate(
                **inputs, max_new_tokens=question.tokens, min_new_tokens=question.tokens, do_sample=False
            )
        seconds += time.monotonic() - began
        tokens += question.tokens
    return tokens / seconds


async def emptied(client: openai.AsyncOpenAI) -> None:
    """Waits until no slot is taken: those of clients that hung up are free at the next decode block."""
    root = str(client.base_url).removesuffix("/").removesuffix("/v1")
    async with httpx2.AsyncClient() as asking:
        while True:
            text = (await asking.get(f"{root}/metrics")).text
            found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            names = (
                "onethinker_slots_running",
                "onethinker_requests_waiting",
                "onethinker_requests_under_way",
            )
            if all(float(found[name]) == 0 for name in names):
                return
            await asyncio.sleep(0.1)


async def run(arguments: argparse.Namespace, url: str, pid: int | None) -> int:
    async with openai.AsyncOpenAI(
        base_url=url, api_key=arguments.api_key, max_retries=0, timeout=3600
    ) as client:
        model = (await client.models.list()).data[0].id

        async def loaded(requests: int, tokens: int, memory: Callable[[], float] | None) -> Load:
            questions = make_questions(tokens)
            await alone(client, model, questions[:2])
            expected, rate = await alone(client, model, questions)
            say(f"one by one: {rate:.0f} tokens a second")
            load = await under_load(
                client,
                model,
                questions,
                expected,
                clients=arguments.clients,
                requests=requests,
                memory=memory,
            )
            await emptied(client)
            say(f"{arguments.clients} clients:", *(f"  {line}" for line in load.lines()), *load.wrong[:5])
            _, rate = await alone(client, model, questions)
            say(f"one by one again: {rate:.0f} tokens a second")
            return load

        loads = [(await loaded(arguments.requests, arguments.tokens, None), arguments.requests)]
        if pid is not None and arguments.memory_requests:
            say(f"{arguments.memory_requests} requests of at most {FEW} tokens:")
            watched = await loaded(arguments.memory_requests, FEW, partial(resident, pid))
            say(f"resident after each tenth: {', '.join(f'{one:.0f}' for one in watched.mebibytes)} MiB")
            loads.append((watched, arguments.memory_requests))
    return 1 if any(load.wrong or load.through != requests for load, requests in loads) else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--memory-requests", type=int, default=0)
    parser.add_argument("--no-transformers", dest="transformers", action="store_false")
    arguments = parser.parse_args()
    if (arguments.model is None) == (arguments.url is None):
        parser.error("give MODEL or --url")
    if arguments.url:
        return asyncio.run(run(arguments, arguments.url, None))
    with started(arguments.model, arguments.slots, arguments.tokens) as (url, pid):
        status = asyncio.run(run(arguments, url, pid))
    if arguments.transformers:
        rate = in_transformers(arguments.model, make_questions(arguments.tokens))
        say(f"transformers' generate, one by one: {rate:.0f} tokens a second")
    return status


if __name__ == "__main__":
    sys.exit(main())
