"""Videos whose frames show their own number, in any container and codec, and the ways in which files get odd times."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BANDS = 10  # a frame's number in binary, lowest digit left: 0 to 1023
HEIGHT, WIDTH = 32, 80
RATE = 25


def numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 [H, W, 3]: ten vertical bands, band b bright where bit b of the number is 1."""
    digits = (number >> np.arange(BANDS)) & 1
    row = np.where(digits, 220, 30).astype(np.uint8).repeat(width // BANDS)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def shown_number(frame: np.ndarray) -> int:
    """The number that a decoded frame shows."""
    bands = frame.reshape(frame.shape[0], BANDS, -1, 3)
    middle = bands[:, :, bands.shape[2] // 4 : -(bands.shape[2] // 4) or None].mean((0, 2, 3))
    return int(((middle > 125) << np.arange(BANDS)).sum())


def shown_numbers(frames: np.ndarray) -> list[int]:
    return [shown_number(frame) for frame in frames]


ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "18", "threads": "1"},
    "libx265": {"preset": "ultrafast", "crf": "18", "x265-params": "pools=none:frame-threads=1:log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
    "libsvtav1": {"preset": "12", "crf": "20", "svtav1-params": "lp=1"},
    "mpeg4": {"qscale": "2", "b": "4M"},
    "mpeg2video": {"qscale": "2", "b": "4M"},
}
_X264 = {"libx264": "x264-params", "libx265": "x265-params"}


def write_numbered(
    path: Path,
    frames: int = 60,
    *,
    codec: str = "libx264",
    gap: int = 12,
    b_frames: int = 0,
    first: float = 0.0,
    times: Sequence[float] | None = None,
    ticks: int | None = None,
    encoder: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    form: str | None = None,
    sound: bool = False,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Path:
    """Writes a video whose frame n shows n, at 25 frames a second from second `first`, or at `times`.

    Args:
        gap: distance of key frames.
        ticks: of the written times, a second; default: one a frame, or 1000 with `times`.
        encoder, container: further options of the codec and of the file's format, which `form` may name.
        sound: silence goes along, interleaved.
    """
    times = [first + n / RATE for n in range(frames)] if times is None else times
    base = Fraction(1, ticks or (1000 if times is not None and ticks is None and len(set(np.diff(times).round(6))) > 1 else RATE))
    with av.open(str(path), "w", format=form, options=container or {}) as target:
        stream = target.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gap, b_frames
        options = {**ENCODERS.get(codec, {}), **(encoder or {})}
        if codec == "libx264":
            options["x264-params"] = ":".join(
                filter(None, [f"scenecut=0:bframes={b_frames}:b-adapt=0", (encoder or {}).get("x264-params")])
            )
        elif codec == "libx265":
            options["x265-params"] = ":".join(
                filter(None, [ENCODERS[codec]["x265-params"], f"keyint={gap}:min-keyint={gap}:scenecut=0:bframes={b_frames}:b-adapt=0", (encoder or {}).get("x265-params")])
            )
        stream.options = options
        audio = target.add_stream("aac" if path.suffix not in (".webm", ".ogg", ".mpg") else {".mpg": "mp2"}.get(path.suffix, "libopus"), rate=48000) if sound else None
        heard = 0
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, height, width), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time / base), base
            target.mux(stream.encode(frame))
            while audio and heard / 48000 < time:
                samples = audio.codec_context.frame_size or 960
                silence = av.AudioFrame.from_ndarray(np.zeros((1, samples * 2), np.int16), format="s16", layout="stereo")
                silence.sample_rate, silence.pts, silence.time_base = 48000, heard, Fraction(1, 48000)
                target.mux(audio.encode(silence))
                heard += samples
        target.mux(stream.encode())
        if audio:
            target.mux(audio.encode())
    return path
