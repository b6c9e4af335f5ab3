"""An opened video file whose packets are known: reading can start at any of them, and is checked to have done so.

Where a seek lands is up to container and library: on a later key frame where time stamps are searched in decoding
order, on none where the index is missing. So every packet that is read is held against the list of the first
reading (`Packets`), time stamps included, and the file is opened anew where that does not agree.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import numpy as np
from av import FFmpegError
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from onethinker_jax.data_pipeline.media.media_file import MediaError, MediaFile

# Below this many source pixels a frame, starting decoder threads costs more than they save.
_THREADED_PIXELS = 640 * 360
# Earlier key frames that are tried before reading starts at the file's first packet.
_TRIES = 3


class Clock:
    """Raises once a video's time is over."""

    def __init__(self, path: MediaFile, limit: float | None):
        self.path, self.limit, self.began = path, limit, time.monotonic()

    def check(self) -> None:
        """Raises MediaError once the limit is passed."""
        if self.limit is not None and time.monotonic() - self.began > self.limit:
            raise MediaError(f"{self.path}: not decoded within {self.limit:g} s")


def source(path: MediaFile) -> str | IO[bytes]:
    """What the libraries open: the path, which they read by themselves, or the open file of what has none."""
    return str(path) if isinstance(path, Path) else path.open("rb")


@dataclass(frozen=True)
class Packets:
    """All packets of a video stream in the order of the file, which is that of decoding. P packets.

    A packet holds one frame as a rule; `hidden` ones are decoded and not shown: the lead-in of a clip that was
    cut by an edit list, or a frame that only others refer to.
    """

    pts: list[int | None]  # presentation times, in ticks of the stream's time base
    dts: list[int | None]  # decoding times
    sizes: list[int]  # bytes
    keys: np.ndarray  # bool [P]
    hidden: np.ndarray  # bool [P]

    def __len__(self) -> int:
        return len(self.sizes)

    def identity(self, number: int) -> tuple[int | None, int | None, int]:
        """What tells a packet from the others."""
        pts = self.pts[number]
        return pts, self.dts[number] if pts is None else None, self.sizes[number]


class Film:
    """The first video stream of a file; the cover of a song is none. Close it."""

    def __init__(
        self, path: MediaFile, check_size: Callable[[int, int], None], time_limit: float | None = None
    ):
        """Opens the file `path`.

        Args:
            path: of the video.
            check_size: raises MediaError for a width and height that are too large.
            time_limit: seconds after which reading is given up.

        Raises MediaError: no video stream, no decoder for it, or too large. FFmpegError: not readable.
        """
        self.path, self.clock, self._check_size = path, Clock(path, time_limit), check_size
        self.container, self.stream = self._open()
        self._places: dict[tuple, list[int]] | None = None
        self._rewinds = True  # whether a seek to the file's start is tried: opening takes ten times as long

    def close(self) -> None:
        """Closes the container and its decoder."""
        self.container.close()

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def tick(self) -> float:
        """Seconds of a unit of the stream's time stamps."""
        return float(self.stream.time_base or 1)

    def _open(self) -> tuple[InputContainer, VideoStream]:
        container = av.open(source(self.path), mode="r")
        try:
            films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not films:
                raise MediaError(f"{self.path}: has no video stream")
            stream = films[0]
            if stream.codec_context is None:
                raise MediaError(f"{self.path}: no decoder for its video stream")
            width, height = stream.codec_context.width, stream.codec_context.height
            self._check_size(width, height)
            stream.thread_type = "AUTO" if width * height > _THREADED_PIXELS else "NONE"
        except BaseException:
            container.close()
            raise
        return container, stream

    def survey(self) -> Packets:
        """Reads all packets of the file just opened, and decodes none.

        Raises MediaError: a damaged packet.
        """
        pts, dts, sizes, keys, hidden = [], [], [], [], []
        may_hide = (
            self.stream.codec_context.name == "vp8"
        )  # other codecs keep such frames in the packet of the next
        for packet in self.container.demux(self.stream):
            self.clock.check()
            if packet.size == 0:
                continue  # a frame left out, or the flushing packet at the end
            if packet.is_corrupt:
                raise MediaError(f"{self.path}: truncated or damaged after {len(sizes)} frames")
            pts.append(packet.pts)
            dts.append(packet.dts)
            sizes.append(packet.size)
            keys.append(packet.is_keyframe)
            hidden.append(packet.is_discard or (may_hide and not memoryview(packet)[0] & 0x10))
        return Packets(pts, dts, sizes, np.array(keys, bool), np.array(hidden, bool))

    def from_start(self, packets: Packets) -> Iterator[tuple[int, Packet]]:
        """Numbers and packets from the file's start on, the flushing packet of number P last.

        Reading it raises OtherPackets if the start could not be found again; then a second call opens the file anew.
        """
        if self._rewinds and len(packets):
            target = next((time for time in (packets.dts[0], packets.pts[0]) if time is not None), None)
            if found := self._after_seek(packets, 0, target):
                return found
        return self.reopened()

    def from_packet(self, packets: Packets, number: int) -> Iterator[tuple[int, Packet]]:
        """As `from_start`, from the packet of that number on, which is a key frame; how far it goes back is checked."""
        # Some containers seek by presentation times, some by decoding times: what lands too late is told at once.
        for target in dict.fromkeys([packets.pts[number], packets.dts[number]]):
            if found := self._after_seek(packets, number, target):
                return found
        earlier = np.flatnonzero(packets.keys[:number])[::-1]
        for back in [int(earlier[2**i - 1]) for i in range(_TRIES) if 2**i <= len(earlier)]:
            if found := self._after_seek(packets, number, packets.dts[back]):
                return found
        return ((n, packet) for n, packet in self.from_start(packets) if n >= number)

    def _after_seek(
        self, packets: Packets, number: int, target: int | None
    ) -> Iterator[tuple[int, Packet]] | None:
        """Seeks; None where that fails or lands behind the packet of that number or at an unknown position."""
        if target is None:
            return None
        try:
            self._seek(target)
            reading = self._packets()
            packet = next(reading, None)
        except FFmpegError:
            return None
        at = self._place(packets, packet) if packet is not None and packet.size else None
        if packet is None or at is None or at > number:
            return None
        return self._checked(packets, number, at, packet, reading)

    def _seek(self, target: int) -> None:
        self.container.seek(target, stream=self.stream)

    def _checked(
        self, packets: Packets, number: int, at: int, packet: Packet, reading: Iterator[Packet]
    ) -> Iterator[tuple[int, Packet]]:
        """Checks the packets from `at` on, which was just read; gives those from `number` on."""
        while packet.size:
            if at >= len(packets) or packets.identity(at) != _identity(packet):
                self._rewinds = self._rewinds and number > 0
                raise OtherPackets
            if at >= number:
                yield at, packet
            at, packet = at + 1, next(reading)
        yield len(packets), packet

    def reopened(self) -> Iterator[tuple[int, Packet]]:
        """As `from_start`, from the file opened anew."""
        self.container.close()
        self.container, self.stream = self._open()
        yield from enumerate(self._packets())

    def _packets(self) -> Iterator[Packet]:
        """Packets with content, and the flushing one at the end."""
        last = None
        for packet in self.container.demux(self.stream):
            self.clock.check()
            last = packet
            if packet.size:
                yield packet
        if last is not None and not last.size:
            yield last

    def _place(self, packets: Packets, packet: Packet) -> int | None:
        if self._places is None:
            self._places = {}
            for number in range(len(packets)):
                self._places.setdefault(packets.identity(number), []).append(number)
        found = self._places.get(_identity(packet), [])
        return found[0] if len(found) == 1 else None


class OtherPackets(Exception):
    """After a seek the file gives other packets, or other time stamps, than from its start."""


def _identity(packet: Packet) -> tuple[int | None, int | None, int]:
    # Decoding times that a container does not hold are worked out from the packets before, so not after a seek.
    return packet.pts, packet.dts if packet.pts is None else None, packet.size
