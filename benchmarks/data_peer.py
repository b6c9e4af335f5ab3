"""qwen-vl-utils decoding videos, for `benchmarks.data`; runs in an environment of its own.

    python benchmarks/data_peer.py PROCESSES FPS MAX_FRAMES MIN_PIXELS MAX_PIXELS FILE...

Waits for a line on its input and then fetches all files, round after round; for each it prints the seconds and the
bytes of frames as JSON. Frames are counted as 8-bit numbers, as ours are, although it gives 32-bit ones.
"""

import contextlib
import json
import sys
import time
from functools import partial
from multiprocessing import Pool
from typing import Any

KEPT: list[Any] = []  # operators last as long as their library object


def prepare() -> None:
    """Imports it; says which decoder it uses on the error stream."""
    import torch

    operators = torch.library.Library(
        "torchvision", "DEF"
    )  # which a CUDA build of torchvision lacks on a CPU torch
    for operator in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a) -> Tensor"):
        with contextlib.suppress(RuntimeError):
            operators.define(operator)
    KEPT.append(operators)
    from qwen_vl_utils import vision_process  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    vision_process.get_video_reader_backend()


def fetch(file: str, **element: float) -> int:
    """Bytes of the frames of one file."""
    from qwen_vl_utils.vision_process import fetch_video  # type: ignore[import-not-found]

    frames = fetch_video({"video": file, **element}, image_patch_size=16)
    return frames.numel()


def main(processes: str, fps: str, max_frames: str, min_pixels: str, max_pixels: str, *files: str) -> None:
    numbers = {"max_frames": max_frames, "min_pixels": min_pixels, "max_pixels": max_pixels}
    work = partial(fetch, fps=float(fps), **{name: int(value) for name, value in numbers.items()})
    prepare()
    with Pool(int(processes)) as pool:
        pool.map(work, files[: int(processes)], chunksize=1)  # imports and first calls are not timed
        for _ in sys.stdin:
            began = time.perf_counter()
            size = sum(pool.imap_unordered(work, files))
            sys.stdout.write(json.dumps({"seconds": time.perf_counter() - began, "bytes": size}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
