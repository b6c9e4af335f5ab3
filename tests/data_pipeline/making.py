"""Small media files, records and a tokenizer for the tests of the data pipeline."""

import json
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from onethinker_jax.data_pipeline.processor.tokenizer import train_tokenizer

TICKS = 1000  # of the written videos' time base, a second


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: a smooth ramp with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3])
    return ((ramp + rng.integers(0, 40, (height, width, 3))) % 256).astype(np.uint8)


def write_image(path: Path, height: int = 64, width: int = 96, seed: int = 0) -> Path:
    Image.fromarray(picture(height, width, seed)).save(path)
    return path


def write_video(
    path: Path,
    times: list[float],
    *,
    size: tuple[int, int] = (64, 96),
    gap: int = 12,
    x264: str = "",
    options: dict[str, str] | None = None,
    left: int | None = None,
    turned: int = 0,
) -> Path:
    """H.264 whose frame i, shown at times[i], is grey of brightness 10 + 3 i (modulo 240).

    `gap` is the distance of key frames, `x264` further parameters of the encoder, `options` the container's.
    With `left` the left half has that brightness. An MP4 says that it is to be shown turned by
    `turned` quarters clockwise.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        stream.options = {
            "crf": "10",
            "preset": "veryfast",
            "threads": "1",
            "g": str(gap),
            "x264-params": x264,
        }
        for number, time in enumerate(times):
            pixels = np.full((*size, 3), brightness(number), np.uint8)
            if left is not None:
                pixels[:, : size[1] // 2] = left
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if turned:
        _turn(path, turned)
    return path


def _turn(path: Path, quarters: int) -> None:
    """Rewrites the display matrix of an MP4's track: x' = a x + c y, y' = b x + d y, in 16.16 numbers."""
    data = bytearray(path.read_bytes())
    matrix = (
        data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    )  # version and flags; times, track, duration; reserved; layer ...
    assert struct.unpack(">i", data[matrix : matrix + 4])[0] == 0x10000
    a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarters]
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 0x40000000)
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)


def write_audio(path: Path, *, cover: bool = False, empty_video: bool = False) -> Path:
    """Sound; with a picture as its cover, or with a video stream that holds no frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        if empty_video:
            video = container.add_stream("libx264", rate=25)
            video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        if cover:
            art = container.add_stream("mjpeg", rate=1)
            art.height, art.width, art.pix_fmt = 64, 96, "yuvj420p"
            art.disposition = Disposition.attached_pic
            picture_frame = av.VideoFrame.from_ndarray(picture(64, 96), format="rgb24")
            container.mux(art.encode(picture_frame))
            container.mux(art.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def brightness(number: int) -> int:
    return 10 + 3 * number % 240


def frame_numbers(frames: np.ndarray) -> list[int]:
    """Which frames of a written video these are (for up to 80 frames)."""
    return [round((float(frame.mean()) - 10) / 3) for frame in frames]


def write_tokenizer(directory: Path, **pixels: tuple[int, int]) -> Path:
    texts = ["What is this? Think, then answer.", "<think>It is a red star.</think>\n<answer>A</answer>"] * 50
    train_tokenizer(texts, directory, vocab_size=400, **pixels)
    return directory


def rl_row(**changes) -> dict:
    """A good RL row; needs a.png beside the file."""
    row = {
        "problem_id": 7,
        "problem": "<image>Which letter?",
        "data_type": "image",
        "problem_type": "multiple choice",
        "options": ["A. one", "B. two"],
        "data_source": "test",
        "answer": "<answer>A</answer>",
        "images": ["a.png"],
    }
    row.update(changes)
    return {key: value for key, value in row.items() if value is not ...}


def sft_row(question: str = "What is it?", answer: str = "A star.", **changes) -> dict:
    messages = [
        {"role": "user", "content": f"<image>{question}"},
        {"role": "assistant", "content": f"<think>I look.</think>\n<answer>{answer}</answer>"},
    ]
    return {"messages": messages, "images": ["a.png"], **changes}


def write_rows(path: Path, rows: list, *, lines: bool = False) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows))
    return path


def begin_and_hang(begun: Path) -> None:
    """A job of a worker: makes the file, and never ends."""
    begun.touch()
    threading.Event().wait()
