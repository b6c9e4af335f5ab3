"""Calls a second and latency of the reward service, with and without batching across callers.

    python -m benchmarks.rewards_service [--work text image video] [--callers 1 8 64] [--seconds 5]
    python -m benchmarks.rewards_service --small     # POLAR and SAM2 with small random weights
    python -m benchmarks.rewards_service --samples 8 # a call carries what 8 samples of one prompt need
    python -m benchmarks.rewards_service --text-backend NAME --text-model DIRECTORY --device cuda

A caller sends one item a call and the next once it has the answer: a text of 60 words against one of 60, a
box in a 256 × 256 image, or a box in the first of 8 such frames; its pixels are uploaded before the time runs.
With `--samples N` a call has N items that share their question, image or video: answers, or boxes.
Callers are threads with clients of their own, spread over up to four processes. "Alone" is a server whose
batches have one item. Without weights the back ends are ROUGE and GrabCut.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.rewards.client.client import MaskItem, RewardClient, TextItem
from onethinker_jax.rewards.client.server_process import start_server

WORK = ("text", "image", "video")
PROCESSES = 4


def make_call(work: str, client: RewardClient, caller: int, samples: int) -> Callable[[], Any]:
    """The call that this caller repeats."""
    if work == "text":
        rng = random.Random(caller)
        reference, *answers = (" ".join(rng.choices("abcdefghijklmnop", k=60)) for _ in range(1 + samples))
        texts = [TextItem("What is to be seen?", reference, answer) for answer in answers]
        return lambda: client.score_text(texts)
    frames = np.random.default_rng(caller).normal(110, 10, (8, 256, 256, 3)).astype(np.uint8)
    for number, frame in enumerate(frames):
        frame[80 + number : 150 + number, 90 : 170 - caller % 8] = (40, 180, 60)
    pixels, segment = (
        (frames[:1], client.segment_images) if work == "image" else (frames, client.segment_videos)
    )
    masks = [MaskItem(pixels, (250.0 - number, 250.0, 750.0, 750.0 + number)) for number in range(samples)]
    return lambda: segment(masks)


def measure(
    work: str, address: str, callers: list[int], samples: int, begin: float, seconds: float
) -> list[float]:
    """Seconds of each call that these callers made between `begin` and `begin` + `seconds` (`time.time`)."""

    def run(caller: int) -> list[float]:
        with RewardClient(address, timeout=600) as client:
            call = make_call(work, client, caller, samples)
            call()
            if (left := begin - time.time()) < 0:
                raise RuntimeError(f"a caller was ready {-left:.1f} s late: give a longer --warm-up")
            time.sleep(left)
            taken = []
            while (now := time.time()) < begin + seconds:
                call()
                taken.append(time.time() - now)
            return taken

    with ThreadPoolExecutor(len(callers)) as pool:
        return [one for taken in pool.map(run, callers) for one in taken]


def benchmark(
    work: str, address: str, callers: int, samples: int, seconds: float, warm_up: float
) -> tuple[float, ...]:
    """Calls a second, and the 50th and 99th percentile of their milliseconds."""
    shares = [list(range(start, callers, PROCESSES)) for start in range(min(callers, PROCESSES))]
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        begin = time.time() + warm_up
        parts = [pool.submit(measure, work, address, share, samples, begin, seconds) for share in shares]
        taken = [one for part in parts for one in part.result()]
    return len(taken) / seconds, *(1000 * np.percentile(taken, (50, 99)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the reward service.")
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--callers", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--samples", type=int, default=1, help="items in a call, on one question or medium")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds for clients to start and upload")
    parser.add_argument("--batch", type=int, default=64, help="items in one batch, where there is batching")
    parser.add_argument("--text-backend", default="rouge")
    parser.add_argument("--text-model", type=Path)
    parser.add_argument("--mask-backend", default="grabcut")
    parser.add_argument("--mask-model", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--replicas", default="1")
    parser.add_argument(
        "--small",
        action="store_true",
        help="POLAR and SAM2, small, with random weights (needs the dev extra)",
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.small:
            use_small_models(chosen, Path(folder))
        run(chosen)


def use_small_models(chosen: argparse.Namespace, folder: Path) -> None:
    """Writes a POLAR and a SAM2 into the folder and chooses them."""
    from tests.rewards.backends.small_models import random_sam2, write_polar

    chosen.text_backend, chosen.text_model = "polar", folder / "polar"
    chosen.mask_backend, chosen.mask_model = "sam2", folder / "sam2"
    chosen.text_model.mkdir()
    write_polar(chosen.text_model, max_position_embeddings=4096)
    random_sam2().save_pretrained(chosen.mask_model)


def run(chosen: argparse.Namespace) -> None:
    """Starts a server with and one without batching, and prints a line for each measurement."""
    flags = ["--device", chosen.device, "--dtype", chosen.dtype, "--replicas", chosen.replicas]
    for name in ("text_model", "mask_model"):
        if (model := getattr(chosen, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", str(model.resolve())]
    batching = {
        "alone": ["--text-batch", "1", "--mask-batch", "1", "--max-wait-ms", "0"],
        "batched": ["--text-batch", str(chosen.batch), "--mask-batch", str(chosen.batch)],
    }
    sys.stdout.write(
        f"{'work':<7}{'back end':<12}{'batches':<9}{'callers':>7}{'samples':>8}"
        f"{'calls/s':>10}{'p50 ms':>9}{'p99 ms':>9}\n"
    )
    for kind, more in batching.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            start_server(
                Path(folder) / "reward.sock",
                Path(folder) / "log",
                text_backend=chosen.text_backend,
                mask_backend=chosen.mask_backend,
                arguments=[*flags, *more],
                ready_timeout=600,
            ) as server,
        ):
            for work in chosen.work:
                backend = chosen.text_backend if work == "text" else chosen.mask_backend
                for callers in chosen.callers:
                    rate, middle, slow = benchmark(
                        work, server.address, callers, chosen.samples, chosen.seconds, chosen.warm_up
                    )
                    sys.stdout.write(
                        f"{work:<7}{backend:<12}{kind:<9}{callers:>7}{chosen.samples:>8}"
                        f"{rate:>10.1f}{middle:>9.1f}{slow:>9.1f}\n"
                    )
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
