"""Videos whose frames show their own number, in any container and codec, and the ways in which files get odd times."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

BANDS = 10  # a frame's number in binary, lowest digit left: 0 to 1023
HEIGHT, WIDTH = 32, 80
RATE = 25

ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "18", "threads": "1"},
    "libx265": {"preset": "ultrafast", "crf": "18"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
    "libsvtav1": {"preset": "12", "crf": "20", "svtav1-params": "lp=1"},
    # Two threads on any machine: of what one thread writes, FFmpeg gives two frames of an .mpg the same time.
    "mpeg4": {"qscale": "2", "b": "4M", "threads": "2"},
    "mpeg2video": {"qscale": "2", "b": "4M", "threads": "2"},
}

_PIXELS = {"prores": "yuv422p10le", "mjpeg": "yuvj420p"}  # else yuv420p


def numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 [H, W, 3]: ten vertical bands, band b bright where bit b of the number is 1."""
    digits = (number >> np.arange(BANDS)) & 1
    row = np.where(digits, 220, 30).astype(np.uint8).repeat(width // BANDS)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def shown_number(frame: np.ndarray) -> int:
    """The number that a decoded frame shows."""
    bands = frame.reshape(frame.shape[0], BANDS, -1, 3)
    margin = bands.shape[2] // 4  # the middle of each band, where its neighbours do not smear into it
    bright = bands[:, :, margin:-margin].mean((0, 2, 3)) > 125
    return int((bright << np.arange(BANDS)).sum())


def shown_numbers(frames: Iterable[np.ndarray]) -> list[int]:
    return [shown_number(frame) for frame in frames]


def decoded_numbers(path: Path) -> list[int]:
    """What a decode of the whole file from its start shows."""
    with av.open(str(path)) as container:
        return shown_numbers(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))


def write_numbered(
    path: Path,
    times: Sequence[float],
    *,
    codec: str = "libx264",
    gap: int = 12,
    b_frames: int = 0,
    ticks: int = RATE,
    encoder: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    form: str | None = None,
    sound: str | None = None,
) -> Path:
    """Writes a video whose frame n shows n from second times[n] on.

    Args:
        gap: distance of key frames.
        ticks: of the written times, a second.
        encoder, container: further options of the codec, and of the file's format, which `form` may name.
        sound: codec of silence that goes along, interleaved.
    """
    base = Fraction(1, ticks)
    with av.open(str(path), "w", format=form, options=container or {}) as target:
        stream = cast(VideoStream, target.add_stream(codec, rate=RATE))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, _PIXELS.get(codec, "yuv420p")
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gap, b_frames
        stream.options = dict(_options(codec, gap, b_frames, encoder or {}))
        silence = _Silence(target, sound) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(time / base), base
            target.mux(stream.encode(frame))
            if silence:
                silence.write_until(time)
        target.mux(stream.encode())
        if silence:
            silence.end()
    return path


def _options(codec: str, gap: int, b_frames: int, more: dict[str, str]) -> dict[str, str]:
    options = {**ENCODERS.get(codec, {}), **more}
    if codec == "libx264":
        fixed = f"scenecut=0:bframes={b_frames}:b-adapt=0:keyint={gap}:min-keyint={gap}"
        options["x264-params"] = ":".join(filter(None, [fixed, more.get("x264-params")]))
    elif codec == "libx265":
        fixed = f"pools=none:frame-threads=1:log-level=none:keyint={gap}:min-keyint={gap}:scenecut=0"
        options["x265-params"] = ":".join(
            filter(None, [f"{fixed}:bframes={b_frames}:b-adapt=0", more.get("x265-params")])
        )
    return options


class _Silence:
    def __init__(self, target, codec: str):
        self.target, self.stream, self.heard = target, target.add_stream(codec, rate=48000), 0

    def write_until(self, time: float) -> None:
        while self.heard / 48000 < time:
            samples = self.stream.codec_context.frame_size or 960
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, samples * 2), np.int16), format="s16", layout="stereo"
            )
            frame.sample_rate, frame.pts, frame.time_base = 48000, self.heard, Fraction(1, 48000)
            self.target.mux(self.stream.encode(frame))
            self.heard += samples

    def end(self) -> None:
        self.target.mux(self.stream.encode())


def copy_packets(
    path: Path,
    source: Path,
    *,
    start: float = 0.0,
    first: int | None = None,
    container: dict[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """Copies the video's packets, second `start` becoming 0: what a cut by stream copy does.

    It begins with packet `first` of the file, by default with the key frame before the start; an MP4 hides the
    frames before the start by an edit list.
    """
    with (
        av.open(str(source)) as given,
        av.open(str(path), "w", format=form, options=container or {}) as target,
    ):
        stream = target.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        if first is None:
            early = [p.is_keyframe and float((p.pts or 0) * p.time_base) <= start + 1e-6 for p in packets]
            first = len(early) - 1 - early[::-1].index(True)
        for packet in packets[first:]:
            back = round(start / packet.time_base)
            assert packet.pts is not None
            assert packet.dts is not None
            packet.pts, packet.dts = packet.pts - back, packet.dts - back
            packet.stream = stream
            target.mux(packet)
    return path


def set_edits(path: Path, edits: Sequence[tuple[float, float | None]]) -> Path:
    """Gives an MP4 of one track, its index at the end, the edit list of these (seconds, from second of the media).

    None is an empty edit: nothing is shown so long.
    """
    data = bytearray(path.read_bytes())
    if (old := data.find(b"edts")) >= 0:
        data[old : old + 4] = b"free"
    moov, trak, mdhd = (data.index(name) - 4 for name in (b"moov", b"trak", b"mdhd"))
    movie_ticks = struct.unpack(">I", data[moov + 8 + 8 + 12 : moov + 8 + 8 + 16])[0]
    media_ticks = struct.unpack(">I", data[mdhd + 8 + 12 : mdhd + 8 + 16])[0]
    entries = b"".join(
        struct.pack(">Iihh", round(length * movie_ticks), -1 if at is None else round(at * media_ticks), 1, 0)
        for length, at in edits
    )
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    box = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    end = trak + 8 + struct.unpack(">I", data[trak + 8 : trak + 12])[0]  # behind the track's header
    data[end:end] = box
    for start in (moov, trak):
        (size,) = struct.unpack(">I", data[start : start + 4])
        data[start : start + 4] = struct.pack(">I", size + len(box))
    path.write_bytes(data)
    return path


def pack_b_frames(path: Path, times: Sequence[float]) -> Path:
    """MPEG-4 in AVI as DivX wrote it: a B-frame lies in the packet before, an empty frame in its place."""
    unpacked = write_numbered(path.with_name("unpacked.avi"), times, codec="mpeg4", b_frames=1, gap=24)
    start, divx, empty = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6\x51\x84\x7f"
    with av.open(str(unpacked)) as given, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        packets = [(bytes(packet), packet.is_keyframe) for packet in given.demux(video=0) if packet.size]
        is_b = [data[data.index(start) + 4] >> 6 == 2 for data, _ in packets]
        packed: list[tuple[bytes, bool]] = []
        for number, (data, key) in enumerate(packets):
            if number == 0:
                at = data.index(start)
                data = data[:at] + divx + data[at:]
            if is_b[number]:
                packed[-1] = packed[-1][0] + data, packed[-1][1]
                packed.append((empty, False))
            else:
                packed.append((data, key))
        for number, (data, key) in enumerate(packed):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, RATE), key, stream
            target.mux(packet)
    return path


def join_transport_streams(path: Path, parts: Sequence[Path]) -> Path:
    """One MPEG transport stream after the other, the packets' counters going on: the clock jumps."""
    counters: dict[int, int] = {}
    joined = bytearray()
    for part in parts:
        data = part.read_bytes()
        for at in range(0, len(data), 188):
            packet = bytearray(data[at : at + 188])
            stream = (packet[1] & 31) << 8 | packet[2]
            if packet[3] & 0x10:  # has content, so it counts
                counters[stream] = (counters.get(stream, -1) + 1) % 16
                packet[3] = packet[3] & 0xF0 | counters[stream]
            joined += packet
    path.write_bytes(joined)
    return path
