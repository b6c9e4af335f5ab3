"""Speed of the data pipeline: media decoded and processed, rows packed, tokens delivered and consumed.

    python -m benchmarks.data [--peer VENV/bin/python] [--rounds 3] [--only media packing]

Media are made on the spot: JPEG pictures of 1280 x 960, and H.264 films of 30 s at 25 frames a second, of 640 x 360
(360p) and 1280 x 720 (720p). "Cold" decodes, "cached" reads the frames back from the cache on disk; MB are those of
the resized pixels. A worker is a process of the media pool. `--peer` is a Python with qwen-vl-utils: it decodes the
same films to the same bounds in turn with ours, round by round; each figure is the median of its rounds.
Packing is the default run's SFT stream of the Shapes world, and the step that its tokens are held against is the
default model's.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from av import VideoFrame
from flax import nnx
from PIL import Image

from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.batches.packing import Batch, packing_efficiency
from onethinker_jax.data_pipeline.media.h264_file import H264File
from onethinker_jax.data_pipeline.media.media_file import MediaFile
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.processor.tokenizer import record_texts, train_tokenizer
from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.model.qwen3_vl import Qwen3VL
from onethinker_jax.model.sharding import make_mesh, shard_rows
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.policy import Policy, model_config
from onethinker_jax.train.sft import sft_update
from onethinker_jax.train.state import init_state

FILMS = {"360p": (360, 640), "720p": (720, 1280)}  # height, width
SECONDS, RATE = 30, 25
FPS, MAX_FRAMES = 2.0, 128
FRAME_PIXELS = 4 * 32 * 32, 64 * 32 * 32  # OneThinker's RL training, and the processor's default
IMAGE_PIXELS = 1024 * 32 * 32
PEER = Path(__file__).with_name("data_peer.py")


def backdrop(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [H, W, 3]: a coloured ramp with grain, and discs."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grain = np.random.default_rng(seed).integers(0, 24, (height, width, 1))
    pixels = np.stack([x * 160 / width, y * 160 / height, (x + y) * 80 / width], -1) + grain
    for disc in range(12):
        centre = height * (0.5 + 0.4 * np.sin(disc + seed)), width * (0.5 + 0.45 * np.cos(2.4 * disc))
        pixels[np.hypot(y - centre[0], x - centre[1]) < height / 12] = (250 - 20 * disc, 20 * disc, 200)
    return pixels.clip(0, 255).astype(np.uint8)


def write_film(path: Path, height: int, width: int, seed: int) -> None:
    """A camera that pans over a backdrop, with a square that goes its own way."""
    behind = backdrop(height + 160, width + 240, seed)
    with H264File(path, RATE, {"preset": "veryfast", "g": str(2 * RATE)}) as film:
        for number in range(SECONDS * RATE):
            top, left = round(80 + 80 * np.sin(number / 40)), round(120 + 120 * np.cos(number / 60))
            pixels = behind[top : top + height, left : left + width].copy()
            at = number * (width - height // 6) // (SECONDS * RATE)
            pixels[height // 3 : height // 2, at : at + height // 6] = (220, 40, 40)
            film.add(VideoFrame.from_ndarray(pixels, format="rgb24"), number)


def make_records(folder: Path, kinds: Sequence[str], images: int, films: int) -> dict[str, list[Record]]:
    """Questions on media of each kind; those that are in the folder already are used."""
    made: dict[str, list[Record]] = {kind: [] for kind in kinds}
    for kind in kinds:
        for number in range(images if kind == "images" else films):
            path = folder / (f"{number}.jpg" if kind == "images" else f"{FILMS[kind][0]}_{number}.mp4")
            if not path.exists() and kind == "images":
                Image.fromarray(backdrop(960, 1280, number)).save(path, quality=90)
            elif not path.exists():
                write_film(path, *FILMS[kind], number)
            if kind == "images":
                record = Record(number, "<image>What?", "image", "OCR", (), "", (path,), (), "made")
            else:
                record = Record(number, "<video>When?", "video", "OCR", (), "", (), (path,), "made")
            made[kind].append(record)
    return made


def seconds_of(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@contextlib.contextmanager
def peer(python: str, processes: int, files: Sequence[MediaFile]) -> Iterator[Callable[[], dict[str, float]]]:
    """qwen-vl-utils in processes of its own: a function that has all files fetched and gives seconds and bytes."""
    settings = [processes, FPS, MAX_FRAMES, *FRAME_PIXELS]
    command = [python, str(PEER), *map(str, settings), *map(str, files)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdin
    assert child.stdout
    asks, answers = child.stdin, child.stdout

    def fetch() -> dict[str, float]:
        asks.write("\n")
        asks.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"{python} {PEER.name} ended, status {child.wait()}")
        return json.loads(answer)

    try:
        yield fetch
    finally:
        asks.close()
        child.wait()


def measure_media(
    kind: str, records: list[Record], directory: Path, workers: int, rounds: int, python: str | None
) -> None:
    """Prints examples and megabytes of pixels a second, for one kind of media read by `workers` processes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MediaPool(workers) as pool,
        ThreadPoolExecutor(workers) as threads,
        contextlib.ExitStack() as stack,
    ):
        readers = {
            "cold": MediaReader(pool=pool),
            "cached": MediaReader(pool=pool, cache=FrameCache(folder, 2**34)),
        }
        processors = {
            name: Processor.from_pretrained(
                directory, MediaBounds(image_max_pixels=IMAGE_PIXELS), media=reader
            )
            for name, reader in readers.items()
        }

        def run(name: str) -> int:
            """Patches of all records."""
            processor = processors[name]
            return sum(threads.map(lambda record: len(processor.prompt(record).patches), records))

        patches = run("cached")  # starts the workers and fills the cache
        megabytes = patches * 16 * 16 * 3 * (2 if records[0].videos else 1) / 1e6
        fetch = None
        if python and records[0].videos:
            fetch = stack.enter_context(peer(python, workers, [record.videos[0] for record in records]))
        taken: dict[str, list[float]] = {name: [] for name in ("cold", "cached", "qwen-vl-utils")}
        for _ in range(rounds):  # in turns, so that what else the machine does falls on all
            for name in processors:
                taken[name].append(seconds_of(lambda name=name: run(name)))
            if fetch:
                theirs = fetch()
                taken["qwen-vl-utils"].append(theirs["seconds"])
                megabytes_theirs = theirs["bytes"] / 1e6
    seconds = {name: statistics.median(values) for name, values in taken.items() if values}
    for name, value in seconds.items():
        size = megabytes_theirs if name == "qwen-vl-utils" else megabytes
        sys.stdout.write(
            f"{kind:<10}{workers:>8}  {name:<16}{len(records) / value:>10.2f}{size / value:>10.1f}\n"
        )
    if "qwen-vl-utils" in seconds:
        pairs = zip(taken["qwen-vl-utils"], taken["cold"], strict=True)
        faster = statistics.median(one / other for one, other in pairs)
        sys.stdout.write(f"{kind:<10}{workers:>8}  cold is {faster:.2f} times as fast as qwen-vl-utils\n")
    sys.stdout.flush()


def measure_packing(folder: Path, records: int, batches: int) -> None:
    """Packing efficiency, tokens delivered a second in the first and the second epoch, and tokens a step consumes."""
    config = shapes()
    data, batch = config.data, config.sft.batch
    sft, processor = shapes_sft(folder, config, records)
    with TrainingBatches(
        RecordStream(sft, seed=0),
        processor,
        batch,
        strategy=data.packing_strategy,
        window=data.window,
        prefetch=0,
    ) as stream:
        for epoch in ("first epoch", "later epochs"):
            began, efficiencies = time.perf_counter(), []
            while len(efficiencies) < batches:
                efficiencies.append(packing_efficiency(last := next(stream)))
            seconds = time.perf_counter() - began
            tokens, patches = np.mean(efficiencies, axis=0)
            rate = tokens * batch.rows * batch.tokens * batches / seconds
            sys.stdout.write(
                f"{epoch}: rows filled to {tokens:.1%} of tokens, {patches:.1%} of patches; "
                f"{rate:,.0f} tokens/s delivered\n"
            )
            if epoch == "first epoch":  # once around, so that the second measurement finds all in memory
                for record in sft:
                    processor.training(record)
    used = efficiencies[-1][0] * batch.rows * batch.tokens
    seconds = step_seconds(config, processor, last)
    sys.stdout.write(f"train step: {used / seconds:,.0f} tokens/s consumed\n")


def shapes_sft(folder: Path, config: TrainConfig, records: int) -> tuple[Sequence[Record], Processor]:
    """SFT records of the Shapes world, and a processor whose tokenizer is made from them."""
    data = config.data
    captions = records * data.world_captions // data.world_sft
    world = build_shapes_world(
        folder / "shapes", seed=0, train_rl=50, train_sft=records, heldout=50, captions=captions
    )
    sft = read_records(world.sft_json)
    directory = folder / "tokenizer"
    train_tokenizer(
        record_texts(sft),
        directory,
        config.model.vocab_size,
        image_pixels=(data.image_min_pixels, data.image_max_pixels),
    )
    processor = Processor.from_pretrained(
        directory,
        MediaBounds(
            video_fps=data.video_fps,
            video_max_frames=data.video_max_frames,
            video_min_pixels=data.video_min_pixels,
            video_max_pixels=data.video_max_pixels,
        ),
        grid_side=config.model.vision_grid,
        cache_bytes=data.cache_bytes,
    )
    return sft, processor


def step_seconds(config: TrainConfig, processor: Processor, batch: Batch) -> float:
    """The median of five steps of SFT on a batch, after one that compiles."""
    settings = config.sft
    mesh = make_mesh()
    with jax.set_mesh(mesh):
        model = Qwen3VL(model_config(config.model, processor), rngs=nnx.Rngs(0))
        graphdef, params = nnx.split(model)
        optimizer = make_optimizer(settings.optimizer, settings.steps, train_vision=settings.train_vision)
        update = sft_update(Policy(graphdef, mesh, config.model.compute_dtype), optimizer, settings)
        state = init_state(params, optimizer, init_moments(1), mesh, reference=False)
        taken = []
        for _ in range(6):
            began = time.perf_counter()
            gradients, sums = update.accumulate(
                state.params, None, update.zeros(state.params), shard_rows(batch, mesh)
            )
            state, norm = update.apply(state, gradients, sums["tokens"], sums["loss"])
            jax.block_until_ready(norm)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the data pipeline.")
    parser.add_argument("--only", nargs="+", choices=("media", "packing"), default=["media", "packing"])
    parser.add_argument("--kinds", nargs="+", choices=("images", *FILMS), default=["images", *FILMS])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--films", type=int, default=4, help="of each size")
    parser.add_argument("--media", type=Path, help="folder where media are kept for the next time")
    parser.add_argument(
        "--records", type=int, default=600, help="SFT records of the Shapes world, captions apart"
    )
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--peer", help="a Python with qwen-vl-utils")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "media" in chosen.only:
            media = chosen.media or folder
            media.mkdir(parents=True, exist_ok=True)
            records = make_records(media, chosen.kinds, chosen.images, chosen.films)
            train_tokenizer(["What? When?"] * 10, folder / "qwen", 300, image_pixels=(3136, 1048576))
            sys.stdout.write(f"{'media':<10}{'workers':>8}  {'':<16}{'a second':>10}{'MB/s':>10}\n")
            for workers in chosen.workers:
                for kind in chosen.kinds:
                    measure_media(kind, records[kind], folder / "qwen", workers, chosen.rounds, chosen.peer)
        if "packing" in chosen.only:
            measure_packing(folder, chosen.records, chosen.batches)


if __name__ == "__main__":
    main()
