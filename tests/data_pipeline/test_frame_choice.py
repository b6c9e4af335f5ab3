"""The frame on screen at each sampling time, for every container, codec, edit list and first time stamp.

Every video is held against two things: the numbers and times it was written with, and a decode of the whole file
from its start.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.media import load_video, probe_video
from tests.data_pipeline.numbered_videos import (
    RATE,
    decoded_numbers,
    shown_numbers,
    write_numbered,
)

CASES = Path(__file__).parent / "cases"
SAMPLINGS = [(25.0, 1000), (2.0, 128), (25.0, 7), (3.0, 2)]  # fps, max_frames
STEADY = [n / RATE for n in range(96)]
# A second of 25, then of 10, then of 50 frames a second, then a still of 1.5 s.
UNEVEN = [
    round(t, 3) for t in (*np.arange(25) / 25, *(1 + np.arange(10) / 10), *(2 + np.arange(50) / 50), 4.5)
]


def expected(
    numbers: list[int], times: list[float], fps: float, max_frames: int
) -> tuple[list[int], list[float]]:
    """Frames on screen at the sampling times, and their own times: as the docstring of `load_video` says."""
    times = [time - times[0] for time in times]
    duration = times[-1] * len(times) / (len(times) - 1)
    wanted = int(np.ceil(duration * fps - 0.01))
    step = 1 / fps if wanted <= max_frames else duration / max_frames
    chosen: list[int] = []
    for n in range(min(wanted, max_frames)):
        on_screen = max(i for i, time in enumerate(times) if time <= n * step + 2e-3)
        if on_screen not in chosen:
            chosen.append(on_screen)
    return [numbers[i] for i in chosen], [times[i] for i in chosen]


def hold(path: Path, numbers: list[int], times: list[float], *, within: float = 1.1e-3) -> None:
    """All samplings give the frames of these numbers, first shown at these times; a probe agrees."""
    assert decoded_numbers(path) == numbers, "the test's file is not what it should be"
    for fps, max_frames in SAMPLINGS:
        video = load_video(path, fps=fps, max_frames=max_frames)
        right, right_times = expected(numbers, times, fps, max_frames)
        assert shown_numbers(video.frames) == right, f"at {fps} frames a second, at most {max_frames}"
        np.testing.assert_allclose(video.timestamps, right_times, atol=within)
        probe = probe_video(path, fps=fps, max_frames=max_frames)
        assert (probe.height, probe.width) == video.frames.shape[1:3]
        np.testing.assert_array_equal(probe.timestamps, video.timestamps)
        assert probe.duration == video.duration


@dataclass(frozen=True)
class Kind:
    """How a video is written."""

    suffix: str
    codec: str = "libx264"
    b_frames: int = 0
    gap: int = 24
    first: float = 0.0
    uneven: bool = False
    sound: str | None = None
    encoder: dict[str, str] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        more = [f"{key}={value}" for key, value in (*self.encoder.items(), *self.container.items())]
        words = [self.codec, f"b{self.b_frames}", f"gap{self.gap}", f"from{self.first:g}", *more]
        return " ".join([self.suffix, *words, *["uneven"] * self.uneven, *["sound"] * bool(self.sound)])


def kinds() -> list[Kind]:
    """Containers x codecs x B-frames x distance of key frames x first time stamps: a good part of them."""
    found: list[Kind] = []
    reordered = {
        "libx264": ["mp4", "mov", "mkv", "ts", "m2ts", "avi", "flv", "mpg", "nut", "asf", "mxf"],
        "libx265": ["mp4", "mkv", "ts", "mpg"],
        "mpeg4": ["mp4", "avi", "mkv", "ts", "mpg"],
        "mpeg2video": ["mpg", "vob", "ts", "m2ts", "mkv", "avi", "mxf"],
    }
    for codec, suffixes in reordered.items():
        for suffix in suffixes:
            found += [Kind(suffix, codec, b, gap) for b, gap in ((0, 40), (2, 20), (2, 200))]
    for suffix, codec in [
        ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("webm", "libsvtav1"), ("ogg", "libvpx"), ("mp4", "libvpx-vp9"),
        ("mp4", "libsvtav1"), ("mkv", "libvpx-vp9"), ("avi", "libvpx"), ("ivf", "libsvtav1"), ("flv", "libvpx-vp9"),
        ("mov", "prores"), ("avi", "mjpeg"), ("mkv", "ffv1"), ("flv", "flv"), ("asf", "wmv2"),
    ]:  # fmt: skip
        found.append(Kind(suffix, codec))
    for suffix in ("mp4", "mkv", "ts", "flv", "nut", "mpg"):
        for first in (-0.8, 1.4, 3600.0):
            found.append(Kind(suffix, b_frames=2, first=first))
    for suffix, gap in [("mp4", 12), ("mkv", 200), ("ts", 20), ("mov", 40), ("flv", 24), ("nut", 24)]:
        found += [Kind(suffix, b_frames=b, gap=gap, uneven=True) for b in (0, 3)]
    for suffix, codec in [("mp4", "aac"), ("mkv", "aac"), ("ts", "mp2"), ("mpg", "mp2"), ("avi", "mp2")]:
        found.append(Kind(suffix, b_frames=2, gap=20, sound=codec))
    open_groups = {"libx264": "x264-params", "libx265": "x265-params"}
    for suffix in ("mp4", "mkv", "ts", "avi"):
        found.append(Kind(suffix, b_frames=3, gap=20, encoder={"x264-params": "open-gop=1"}))
    found += [
        Kind(suffix, "libx265", 3, 20, encoder={open_groups["libx265"]: "open-gop=1"})
        for suffix in ("mp4", "ts")
    ]
    found += [
        Kind(suffix, b_frames=0, gap=20, encoder={"x264-params": "intra-refresh=1"})
        for suffix in ("mp4", "ts")
    ]
    for moves in ("frag_keyframe+empty_moov", "frag_every_frame+empty_moov+default_base_moof", "faststart"):
        found.append(Kind("mp4", b_frames=2, container={"movflags": moves}))
    found.append(Kind("mkv", b_frames=2, container={"live": "1"}))
    return found


@pytest.mark.parametrize("kind", kinds(), ids=str)
def test_the_frame_on_screen_is_taken(tmp_path, kind):
    times = [kind.first + time for time in (UNEVEN if kind.uneven else STEADY)]
    path = tmp_path / f"a.{kind.suffix}"
    write_numbered(
        path,
        times,
        codec=kind.codec,
        gap=kind.gap,
        b_frames=kind.b_frames,
        ticks=1000 if kind.uneven else RATE,
        encoder=kind.encoder,
        container=kind.container,
        sound=kind.sound,
    )
    # Before second 0 an MP4 shows nothing: the muxer writes an edit list.
    first = 20 if kind.suffix == "mp4" and kind.first == -0.8 else 0
    hold(path, list(range(first, len(times))), times[first:])


def test_the_grid_is_wide():
    assert len(set(map(str, kinds()))) == len(kinds()) >= 100


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("editlist_refused.mp4", 83, 334),
        ("editlist_silent_h264.mp4", 23, 499),
        ("mpegts_first_10s_lost.ts", 0, 499),
        ("h264_in_avi.avi", 0, 499),
    ],
)
def test_files_that_were_refused_or_lost_their_beginning(name, first, last):
    numbers = list(range(first, last + 1))
    hold(CASES / name, numbers, [n / RATE for n in numbers])
