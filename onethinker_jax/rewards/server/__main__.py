"""The reward sidecar: `python -m onethinker_jax.rewards.server --address unix:/path | host:port`.

A process of its own that scores open-ended answers and makes masks over gRPC, so that neither PyTorch nor a
slow judge lives in the trainer. It batches what its callers send, answers health checks and reflection, limits
what it accepts, and ends by SIGTERM or SIGINT once the calls under way are answered. It listens on a Unix
socket or loopback; beyond this machine it wants TLS and a token and does not start without them.
"""

from __future__ import annotations

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take some time
    command_line.begin()

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NoReturn

from onethinker_jax.rewards.backends.judge_settings import VerifierSettings
from onethinker_jax.rewards.backends.table import MASK_BACKENDS, MASK_BATCH, TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import DTYPES
from onethinker_jax.rewards.server.server import ServerSettings, serve
from onethinker_jax.spelling import hint

log = logging.getLogger("onethinker_jax.rewards.server")


async def _serve_until_signal(settings: ServerSettings) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def stop_at_end_of_input() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        log.info("the process that started this server is gone")
        loop.call_soon_threadsafe(stop.set)

    if settings.stop_with_stdin:
        threading.Thread(target=stop_at_end_of_input, name="stdin", daemon=True).start()
    await serve(settings, stop)


_MASK_BATCHES = ", ".join(f"{count} for {name}" for name, count in MASK_BATCH.items())
HELP = {
    "address and access": {
        "address": "unix:/path or host:port; beyond loopback with TLS and a token",
        "tls_certificate": "PEM file: the certificate and its chain",
        "tls_key": "PEM file: the certificate's key",
        "token_file": "file with the token that callers must send; else the variable ONETHINKER_REWARD_TOKEN",
    },
    "back ends": {
        "text_backend": "who scores open-ended answers",
        "text_model": "directory or file of its weights; minilm finds those of its package by itself",
        "mask_backend": "who makes masks from a box and points",
        "mask_model": "directory or file of its weights",
        "device": "cpu, cuda, or a list such as cuda:0,cuda:1 that the replicas share out",
        "dtype": "of the weights",
        "replicas": "copies of each back end, each on a thread of its own",
    },
    "the judge": {
        "judge_url": "address of an OpenAI-compatible API, https://host/v1",
        "judge_model": "its name there",
        "judge_form": "what it answers: verdict (yes or no; A, B or C) or score (0 to 1)",
        "judge_prompt": "file with its prompt, with {question}, {reference} and {answer}; else our own",
        "judge_cache": "file with its answers, found again by content; else they are in memory",
        "judge_api_key_env": "environment variable with the key",
        "judge_extra_body": "JSON object put into every request",
        "judge_temperature": "of its first answer; one that cannot be read is asked for again, warmer",
        "judge_top_p": "the likeliest tokens that sum to this are kept",
        "judge_max_tokens": "of one answer, its reasoning included",
        "judge_tries": "how often it is asked where its answer cannot be read",
        "judge_concurrency": "requests under way at once",
        "judge_requests_per_minute": "begun, at most",
        "judge_tokens_per_minute": "of prompts and answers, at most",
        "judge_timeout": "seconds that one request may take",
        "judge_retries": "further tries of a request that fails",
        "judge_backoff": "seconds before the first further try, doubled each time",
    },
    "batches and limits": {
        "text_batch": "texts in one batch",
        "mask_batch": f"mask items in one batch; by default {_MASK_BATCHES}",
        "max_wait_ms": "how long an item waits for a batch to fill",
        "max_waiting": "items in one queue; a call with more is told to come back",
        "max_calls": "calls at once; one more is told to come back",
        "max_items": "items in one call",
        "max_message_bytes": "a larger message is refused",
        "cache_bytes": "all memory that callers' images and videos take",
    },
    "watching and stopping": {
        "metrics_host": "where Prometheus asks for metrics, in plain text",
        "metrics_port": "port of the metrics, 0 for any free one; without it there are none",
        "stall_s": "a back end at one batch for longer is reported as not serving",
        "grace_s": "seconds for calls under way at the end",
        "stop_with_stdin": "stop when standard input ends",
    },
}
CHOICES = {"text_backend": tuple(TEXT_BACKENDS), "mask_backend": tuple(MASK_BACKENDS), "dtype": DTYPES}
JUDGE = "judge_"
"""What the flags of the judge's settings begin with."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        word = message.removeprefix("unrecognized arguments: ").split()[0]
        if message.startswith("unrecognized"):
            message = f"unknown argument {word!r}{hint(word, self._option_string_actions)}"
        raise command_line.UsageError(message)


def parse(arguments: Sequence[str]) -> ServerSettings:
    """The settings a command line asks for: a flag a field. Raises UsageError, ServerError."""
    parser = _Parser(
        prog="python -m onethinker_jax.rewards.server",
        description=__doc__,
        allow_abbrev=False,
        usage="%(prog)s [OPTIONS]",
    )
    kinds = {"int": int, "float": float, "int | None": int, "Path | None": Path}
    types = {field.name: field for field in fields(ServerSettings) if field.name != "judge"}
    types |= {f"{JUDGE}{field.name}": field for field in fields(VerifierSettings)}
    for title, flags in HELP.items():
        group = parser.add_argument_group(title)
        for name, said in flags.items():
            field, flag = types.pop(name), f"--{name.replace('_', '-')}"
            if field.type == "bool":
                group.add_argument(flag, action="store_true", help=said)
                continue
            text = said if field.default is None else f"{said} (default: {field.default})"
            kind = kinds.get(getattr(field.type, "__name__", str(field.type)), str)
            if name in CHOICES:
                text = f"one of {', '.join(CHOICES[name])}: {text}"
            group.add_argument(flag, type=kind, default=field.default, help=text, metavar=name.upper())
    assert not types, f"flags without help: {', '.join(types)}"
    given = vars(parser.parse_args(arguments))
    judge = {name: given.pop(name) for name in list(given) if name.startswith(JUDGE)}
    try:
        verifier = VerifierSettings(**{name.removeprefix(JUDGE): value for name, value in judge.items()})
    except ValueError as error:
        raise command_line.UsageError(f"--{JUDGE.replace('_', '-')}{error}") from None
    return ServerSettings(**given, judge=verifier)


def run(settings: ServerSettings) -> None:
    """Serves until a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    asyncio.run(_serve_until_signal(settings))


main = partial(command_line.main, parse, run)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
