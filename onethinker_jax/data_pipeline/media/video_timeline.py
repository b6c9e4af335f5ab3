"""When each frame of a video is on screen, and which frames a sampling takes.

The reference is a decode of the whole file from its start by FFmpeg, which obeys edit lists: the frame on screen at
a time is the last one whose presentation time is not after it, times counted from the first frame that is shown.
Packets tell the same times without decoding where each holds a frame and says when it is shown. That is tried on
the first frames and on the packets' order; a file that fails (H.264 in AVI, whose times are those of decoding,
MPEG program streams, two fields in two packets, time stamps that jump back or come twice) is decoded once for its
times.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.error import InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame

from onethinker_jax.data_pipeline.media.film import Film, OtherPackets, Packets
from onethinker_jax.data_pipeline.media.media_file import MediaError

# Container headers often promise a frame or two more than there are; more than that is a truncated file.
_MISSING_FRAMES_TOLERATED = 0.05
# Frames that are decoded to see whether the packets' times are those of frames; fewer if they are large.
_HEAD, _HEAD_PIXELS = 8, 2**26
# MPEG program streams have few time stamps, and FFmpeg gives some of them to a frame nearby in decoding order.
_STRAY_FRAMES = 8
# MPEG transport and program streams may begin their clock anew. FFmpeg's own threshold for such a gap, in seconds.
_CLOCK_FORMATS, _CLOCK_GAP = ("mpegts", "mpeg"), 10.0


@dataclass(frozen=True)
class Timeline:
    """All frames that a video shows, in the order in which it shows them. M frames."""

    seconds: np.ndarray  # float64 [M], when each comes on screen, since the first; not decreasing
    spacing: float  # seconds, mean of a frame
    stamps: (
        np.ndarray | None
    )  # int64 [M], the time stamps that tell decoded frames apart; None: only counting does
    packets: Packets
    height: int  # of the first frame, upright
    width: int

    @property
    def duration(self) -> float:
        """Seconds from the first frame's start to the last frame's end."""
        return float(self.seconds[-1] + self.spacing)


def choose_frames(
    seconds: np.ndarray,
    duration: float,
    *,
    fps: float,
    max_frames: int,
    num_frames: int | None = None,
    near: tuple[float, ...] = (),
) -> np.ndarray:
    """Which of the frames that come on screen at `seconds` are taken, int [N]: as `load_video` says."""
    if num_frames is not None:
        return np.linspace(0, len(seconds) - 1, min(num_frames, len(seconds))).round().astype(np.int64)
    wanted = int(np.ceil(duration * fps - 0.01))  # rounded time stamps must not add a sample
    step = 1 / fps if wanted <= max_frames else duration / max_frames
    moments = _moved(np.arange(max(min(wanted, max_frames), 1)) * step, near, step / 2)
    return np.unique(np.maximum(np.searchsorted(seconds, moments + 1e-6, side="right") - 1, 0))


def _moved(moments: np.ndarray, near: tuple[float, ...], most: float) -> np.ndarray:
    """Each moment, or the nearest second of `near` where that is at most so far away."""
    if not near:
        return moments
    seconds = np.asarray(near, np.float64)
    after = np.clip(np.searchsorted(seconds, moments), 1, max(len(seconds) - 1, 1))
    before = seconds[after - 1]
    after = seconds[np.minimum(after, len(seconds) - 1)]
    nearest = np.where(moments - before <= after - moments, before, after)
    return np.where(np.abs(nearest - moments) <= most, nearest, moments)


def read_timeline(film: Film) -> tuple[Timeline, Iterator[VideoFrame]]:
    """The timeline, from the packets where they are exact, else from a decode; and the frames from the first on.

    Raises MediaError: truncated, damaged, without a frame, or too slow. FFmpegError: not readable.
    """
    packets = film.survey()
    _refuse_truncated(film, packets)
    times = _packet_times(film, packets)
    if times is not None:
        try:
            head, rest = _head(film, packets)
        except OtherPackets:
            head, rest = _head(film, packets)
        stamps = [frame.pts for frame in head]
        # Frames before the first key frame cannot be decoded: the video begins behind them.
        times = times[np.searchsorted(times, stamps[0]) :] if stamps[0] is not None else times[:0]
        if len(stamps) >= min(_head_length(film), len(times)) and stamps == times[: len(stamps)].tolist():
            timeline = _timeline(film, packets, times * film.tick, times, _upright_size(head[0]))
            return timeline, itertools.chain(head, rest)
    return decoded_timeline(film, packets)


def _head(film: Film, packets: Packets) -> tuple[list[VideoFrame], Iterator[VideoFrame]]:
    """The first frames, and those behind them."""
    frames = decoded_frames(film, film.from_start(packets))
    head = list(itertools.islice(frames, _head_length(film)))
    if not head:
        raise MediaError(f"{film.path}: holds no video frame")
    return head, frames


def _head_length(film: Film) -> int:
    pixels = film.stream.codec_context.width * film.stream.codec_context.height
    return min(_HEAD, max(2, _HEAD_PIXELS // max(pixels, 1)))


def decoded_timeline(film: Film, packets: Packets) -> tuple[Timeline, Iterator[VideoFrame]]:
    """The timeline from a decode of the whole file; and its frames from the first on, decoded once more.

    Raises MediaError: damaged, without a frame, or too slow. FFmpegError: not readable.
    """
    stamps: list[int | None] = []
    size = 0, 0
    for frame in decoded_frames(film, film.reopened()):
        size = _upright_size(frame) if not stamps else size
        stamps.append(frame.pts)
    if not stamps:
        raise MediaError(f"{film.path}: holds no video frame")
    unique = None not in stamps and len(set(stamps)) == len(stamps)
    seconds = _presentation_seconds(film, packets, stamps)
    timeline = _timeline(film, packets, seconds, np.array(stamps, np.int64) if unique else None, size)
    return timeline, decoded_frames(film, film.reopened())


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    turned = round(frame.rotation / 90) % 2
    return (frame.width, frame.height) if turned else (frame.height, frame.width)


def _timeline(
    film: Film, packets: Packets, seconds: np.ndarray, stamps: np.ndarray | None, size: tuple[int, int]
) -> Timeline:
    start, seconds = max(float(seconds[0]), 0.0), seconds - seconds[0]
    if film.container.format.name in _CLOCK_FORMATS and len(seconds) > 1:
        gaps = np.diff(seconds)
        gaps[gaps > _CLOCK_GAP] = np.median(gaps)
        seconds = (
            np.concatenate([[0.0], np.cumsum(gaps)]) if (np.diff(seconds) > _CLOCK_GAP).any() else seconds
        )
    spacing = float(seconds[-1]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
    spacing = spacing or _nominal_spacing(film)
    _refuse_early_end(film, start + float(seconds[-1]) + spacing)
    return Timeline(seconds, spacing, stamps, packets, *size)


def _nominal_spacing(film: Film) -> float:
    rate = film.stream.average_rate or film.stream.guessed_rate
    return float(1 / rate) if rate else 1 / 25


def _packet_times(film: Film, packets: Packets) -> np.ndarray | None:
    """Sorted presentation times of the frames that are shown; None where packets cannot tell."""
    shown = [pts for pts, hidden in zip(packets.pts, packets.hidden.tolist(), strict=True) if not hidden]
    if None in shown or not shown:
        return None
    times = np.unique(np.array(shown, np.int64))
    if film.stream.codec_context.has_b_frames and _in_decoding_order(packets):
        return None
    dts = np.array([time for time in packets.dts if time is not None], np.int64)
    return times if len(times) == len(shown) and (np.diff(dts) >= 0).all() else None


def decoded_frames(film: Film, reading: Iterator[tuple[int, Packet]]) -> Iterator[VideoFrame]:
    """The frames of packets, in the order in which they are shown."""
    started = False
    for _, packet in reading:
        try:
            frames = packet.decode()
        except InvalidDataError:
            if started or packet.is_keyframe:
                raise
            continue  # a file that begins amid a group of pictures: nothing can be seen before its first key frame
        for frame in frames:
            film.clock.check()
            started = True
            yield frame


def _presentation_seconds(film: Film, packets: Packets, stamps: list[int | None]) -> np.ndarray:
    """When the frames of a whole decode are shown, from time stamps that may be none, or not theirs."""
    spacing = _nominal_spacing(film)
    by_rate = np.arange(len(stamps)) * spacing
    ticks = np.array([np.nan if stamp is None else stamp for stamp in stamps], np.float64)
    known = np.flatnonzero(~np.isnan(ticks))
    if len(known) == 0:
        return by_rate
    if _in_decoding_order(packets) and (np.diff(ticks[known]) < 0).any():
        shown = [dts for dts, hidden in zip(packets.dts, packets.hidden.tolist(), strict=True) if not hidden]
        # FFmpeg makes presentation times up here, the last ones with other distances than decoding times have.
        whole = len(shown) == len(stamps) and None not in shown
        return np.sort(np.array(shown, np.float64)) * film.tick if whole else by_rate
    offset = ticks[known] * film.tick - by_rate[known]
    if len(known) < len(stamps) and np.ptp(offset) < _STRAY_FRAMES * spacing:
        return by_rate
    seconds = np.interp(np.arange(len(ticks)), known, ticks[known] * film.tick)
    behind = np.arange(len(ticks) - 1 - known[-1])
    seconds[known[-1] + 1 :] += (behind + 1) * spacing
    seconds[: known[0]] -= np.arange(known[0], 0, -1) * spacing
    steps = np.diff(seconds)
    if len(steps) and (steps <= 0).mean() > 0.5:
        return by_rate
    if (steps < 0).any():  # the clock began anew: the film goes on
        steps[steps < 0] = spacing
        seconds = np.concatenate([[seconds[0]], seconds[0] + np.cumsum(steps)])
    return seconds


def _in_decoding_order(packets: Packets) -> bool:
    """Whether presentation times only rise from packet to packet: either no frame is reordered or they are wrong."""
    known = [time for time in packets.pts if time is not None]
    return bool((np.diff(np.array(known, np.int64)) > 0).all())


def _refuse_truncated(film: Film, packets: Packets) -> None:
    """Raises MediaError if the header counts more frames than there are packets, and the video ends early too.

    The count alone says little: frames outside of an edit list have no packet, and an AVI also counts the empty
    chunks that stand for a frame shown longer.
    """
    promised = film.stream.frames
    if len(packets) >= promised - _tolerated(promised):
        return
    times = [time for time in (*packets.pts, *packets.dts) if time is not None]
    # Each chunk of an AVI lasts a tick, and FFmpeg already shortens the duration to what is left of the file.
    duration = promised if film.container.format.name == "avi" else film.stream.duration
    if times and duration:
        frame = duration / promised
        length = max(times) - min(0, min(times)) + frame
        if length >= duration - frame * _tolerated(promised):
            return
    raise MediaError(f"{film.path}: truncated, {len(packets)} of {promised} frames can be read")


def _refuse_early_end(film: Film, end: float) -> None:
    """Raises MediaError if the video ends much before it should by the header; `end` in seconds."""
    promised = _promised_end(film)
    if end < (1 - 2 * _MISSING_FRAMES_TOLERATED) * promised - 0.5:
        raise MediaError(f"{film.path}: truncated, its frames end at {end:.1f} s of {promised:.1f} s")


def _promised_end(film: Film) -> float:
    """When the video stream ends by the header, in seconds; 0 if it does not say."""
    if film.container.format.name in _CLOCK_FORMATS:
        return 0.0  # no header: worked out from the first and the last time stamp
    if film.stream.duration:
        return film.stream.duration * film.tick
    alone = len(film.container.streams) == 1  # else the container may last longer than its video
    return film.container.duration / av.time_base if film.container.duration and alone else 0.0


def _tolerated(frames: int) -> float:
    return max(2, _MISSING_FRAMES_TOLERATED * frames)
