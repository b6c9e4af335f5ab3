"""An MP4 file of H.264 in 4:2:0 that frames are written into one by one. Whoever writes says how they are coded."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
from av import VideoFrame
from av.codec import codecs_available
from av.packet import Packet
from av.video.stream import VideoStream

from onethinker_jax.errors import UserError

ENCODER = "libx264"


class EncoderError(UserError):
    """This PyAV cannot write H.264."""


class H264File:
    """A file that is being written; an older one is replaced. Its size is the first frame's, whose sides are even.

    Close it, or use it as a context.
    """

    def __init__(
        self,
        path: Path,
        rate: int | Fraction,
        options: Mapping[str, str],
        *,
        time_base: Fraction | None = None,
        index_first: bool = False,
    ):
        """Opens the file.

        Args:
            path: of the file.
            rate: frames a second, as its header says.
            options: of the encoder x264.
            time_base: seconds of a time unit, 1 / `rate` by default.
            index_first: whether the index stands before the frames, so that players need not load all of them.

        Raises EncoderError: PyAV has no H.264 encoder.
        """
        if ENCODER not in codecs_available:
            raise EncoderError(f"PyAV {av.__version__} has no H.264 encoder ({ENCODER})")
        moves = {"movflags": "faststart"} if index_first else {}
        self._container = av.open(str(path), "w", format="mp4", options=moves)
        stream = self._container.add_stream(ENCODER, rate=rate, options=dict(options))
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = "yuv420p"
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        self.stream, self._time_base = stream, time_base or 1 / Fraction(rate)
        self._begun = False
        self._lengths: dict[int, int] = {}

    def __enter__(self) -> "H264File":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(whole=kind is None)

    def close(self, *, whole: bool = True) -> None:
        """Ends the file; unless `whole`, without the frames that the encoder still holds."""
        try:
            if whole:
                self._mux(self.stream.encode())
        finally:
            self._container.close()

    def add(self, frame: VideoFrame, start: int, length: int | None = None) -> None:
        """Writes a frame that is on screen from `start` on, in time units, for `length` of them where that is said."""
        if not self._begun:
            self.stream.width, self.stream.height, self._begun = frame.width, frame.height, True
        if length is not None:
            self._lengths[start] = length
        frame.pts, frame.time_base = start, self._time_base
        self._mux(self.stream.encode(frame))

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            length = self._lengths.pop(packet.pts or 0, None)
            if length is not None:
                packet.duration = length
        self._container.mux(packets)
