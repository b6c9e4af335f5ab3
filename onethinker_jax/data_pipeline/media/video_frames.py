"""Decodes the chosen frames of a video: jumps to key frames, and believes a jump only if the wanted frame comes."""

from collections.abc import Iterator

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from onethinker_jax.data_pipeline.media.film import Film, OtherPackets
from onethinker_jax.data_pipeline.media.media_file import MediaError
from onethinker_jax.data_pipeline.media.video_timeline import Timeline, decoded_frames

# Jump to a key frame rather than decode up to it if that saves at least this many frames.
_SEEK_WORTH_FRAMES = 16


class WrongTimeline(Exception):
    """A frame of the timeline does not come in a decode from the file's start."""


def pictures(
    film: Film, timeline: Timeline, frames: Iterator[VideoFrame], chosen: np.ndarray
) -> Iterator[np.ndarray]:
    """The chosen frames, upright: uint8 [H, W, 3]. All in the size of the first, as a player would show them.

    `frames` are the film's from its first on.

    Raises MediaError: a damaged frame, or too slow. FFmpegError: not decodable. WrongTimeline.
    """
    converter = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
    size: tuple[int, int] | None = None
    decoder = _Decoder(film, timeline, frames)
    for index in chosen.tolist():
        frame = decoder.frame(index)
        if frame.is_corrupt:
            raise MediaError(f"{film.path}: frame {index} of {len(timeline.seconds)} is damaged")
        size = size or (frame.width, frame.height)
        yield upright(frame, converter, size)


def upright(frame: VideoFrame, converter: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] of a frame scaled to `size` (width, height), then turned as the container says."""
    pixels = converter.reformat(frame, *size, format="rgb24", threads=1).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # counterclockwise, from the container's display matrix
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class _Decoder:
    """Gives frames by their number, which only rises from call to call."""

    def __init__(self, film: Film, timeline: Timeline, frames: Iterator[VideoFrame]):
        self._film, self._timeline = film, timeline
        stamps = timeline.stamps
        self._numbers = None if stamps is None else {stamp: n for n, stamp in enumerate(stamps.tolist())}
        self._key_packets, self._key_frames = self._find_keys()
        self._begin(frames)

    def _find_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """The key frames to which it may jump: their numbers among the packets and among the frames, both rising."""
        packets, numbers, found = self._timeline.packets, self._numbers or {}, []
        shown = np.flatnonzero(~packets.hidden)
        for key in np.flatnonzero(packets.keys).tolist() if numbers else []:
            # A key frame that an edit list hides leads to the first frame shown behind it.
            behind = int(np.searchsorted(shown, key))
            number = numbers.get(packets.pts[shown[behind]]) if behind < len(shown) else None
            if number is not None and (not found or number > found[-1][1]):
                found.append((key, number))
        keys = np.array(found, np.int64).reshape(-1, 2)
        return keys[:, 0], keys[:, 1]

    def _begin(self, frames: Iterator[VideoFrame]) -> None:
        """Goes on with the film's frames from its first on."""
        self._position = -1  # number of the last frame decoded
        self._jumped = -1  # to which of the key frames; -1: reading began at the file's start
        self._frames = frames

    def _jump(self, key: int) -> None:
        self._position, self._jumped = int(self._key_frames[key]) - 1, key
        reading = self._film.from_packet(self._timeline.packets, int(self._key_packets[key]))
        self._frames = decoded_frames(self._film, reading)

    def frame(self, number: int) -> VideoFrame:
        """That frame. Raises WrongTimeline if it does not come from the file's start either."""
        key = int(np.searchsorted(self._key_frames, number, side="right")) - 1
        if key >= 0 and self._key_frames[key] - self._position >= _SEEK_WORTH_FRAMES:
            self._jump(key)
        back = 1
        while (frame := self._decode_to(number)) is None:
            if self._jumped < 0:
                raise WrongTimeline
            key, back = key - back, 2 * back
            if key > 0:
                self._jump(key)
            else:  # jumps cannot be relied on here: each frame would be a decode from the start
                self._key_packets = self._key_frames = np.zeros(0, np.int64)
                self._begin(decoded_frames(self._film, self._film.reopened()))
        return frame

    def _decode_to(self, number: int) -> VideoFrame | None:
        """The frame of that number, whole; None if it does not come, or damaged after a jump."""
        first = self._jumped >= 0 and self._position < self._key_frames[self._jumped]
        may_begin_late = first and self._timeline.packets.hidden[self._key_packets[self._jumped]]
        try:
            for frame in self._frames:
                position = self._position + 1 if self._numbers is None else self._numbers.get(frame.pts)
                if first and not may_begin_late and not frame.key_frame:
                    return None  # the container calls a key frame what is none
                first = False
                if position is None:
                    continue
                self._position = position
                if position == number:
                    return None if frame.is_corrupt and self._jumped >= 0 else frame
                if position > number:
                    return None
        except FFmpegError:
            if self._jumped < 0:
                raise
        except OtherPackets:
            if self._jumped < 0:  # it had only gone back to the start
                self._begin(decoded_frames(self._film, self._film.reopened()))
                return self._decode_to(number)
        return None
