"""Videos as worlds write them: H.264 in MP4, the same pixels each time."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_mp4(frames: Iterable[np.ndarray], fps: int, path: Path, *, crf: int = 16) -> None:
    """Writes frames (uint8 [H, W, 3], sides even) as H.264 in MP4; a lower `crf` keeps more of the picture."""
    # One thread is not enough: x264's macroblock-tree lookahead, as vectorised, still varied between runs.
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "g": "250"}
    options["x264-params"] = "mbtree=0:cpu-independent=1"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
