"""Videos as worlds write them: H.264 in MP4, the same pixels each time."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from av import VideoFrame

from onethinker_jax.data_pipeline.media.h264_file import H264File


def write_mp4(frames: Iterable[np.ndarray], fps: int, path: Path, *, crf: int = 16) -> None:
    """Writes frames (uint8 [H, W, 3], sides even) as H.264 in MP4; a lower `crf` keeps more of the picture.

    Raises EncoderError: PyAV has no H.264 encoder.
    """
    # One thread is not enough: x264's macroblock-tree lookahead, as vectorised, still varied between runs.
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "g": "250"}
    options["x264-params"] = "mbtree=0:cpu-independent=1"
    with H264File(path, fps, options) as film:
        film.stream.thread_count = 1
        for index, pixels in enumerate(frames):
            film.add(VideoFrame.from_ndarray(pixels, format="rgb24"), index)
