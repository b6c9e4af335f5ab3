"""The frame on screen at each sampling time, for every container, codec, edit list and first time stamp.

Every video is held against two things: the numbers and times it was written with, and a decode of the whole file
from its start.
"""

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from onethinker_jax.data_pipeline.media.decoding import MediaError, load_video, probe_video
from onethinker_jax.data_pipeline.media.film import Film
from tests.data_pipeline.media.numbered_videos import (
    RATE,
    copy_packets,
    decoded_numbers,
    join_transport_streams,
    pack_b_frames,
    set_edits,
    shown_numbers,
    write_numbered,
)
from tests.places import CASES

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


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(
    ("codec", "b_frames", "gap"),
    [("libx264", 3, 50), ("libx264", 0, 30), ("libx265", 3, 50), ("mpeg4", 2, 40)],
)
@pytest.mark.parametrize("cut", [1, 17, 85])
def test_a_cut_by_stream_copy_begins_where_it_was_cut(tmp_path, suffix, codec, b_frames, gap, cut):
    """Frames from the key frame to the cut are in the file, hidden by an edit list."""
    source = write_numbered(tmp_path / "a.mp4", STEADY, codec=codec, b_frames=b_frames, gap=gap)
    path = copy_packets(tmp_path / f"cut.{suffix}", source, start=cut / RATE)
    hold(path, list(range(cut, 96)), STEADY[cut:])


@pytest.mark.parametrize(
    ("edits", "parts"),
    [
        ([(1.0, None), (3.84, 0.0)], [(0.0, range(96))]),  # begins late
        ([(1.0, 0.8)], [(0.0, range(20, 45))]),
        ([(1.0, 2.0), (1.2, 0.4)], [(0.0, range(50, 75)), (1.0, range(10, 40))]),  # the end first
        ([(0.8, 0.0), (0.8, 0.0), (0.8, 1.2)], [(0.0, range(20)), (0.8, range(20)), (1.6, range(30, 50))]),
    ],
)
@pytest.mark.parametrize("gap", [10, 96])
def test_edit_lists_of_several_parts(tmp_path, gap, edits, parts):
    path = set_edits(write_numbered(tmp_path / "a.mp4", STEADY, gap=gap), edits)
    numbers = [n for _, part in parts for n in part]
    times = [start + i / RATE for start, part in parts for i in range(len(part))]
    hold(path, numbers, times)


def test_a_pause_amid_an_edit_list_is_shown_as_ffmpeg_shows_it(tmp_path):
    """Which is with the frames before the second part, each at the time of its own."""
    path = set_edits(
        write_numbered(tmp_path / "a.mp4", STEADY, gap=20), [(0.4, 0.0), (1.0, None), (1.2, 2.4)]
    )
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0) if frame.time is not None]
    numbers = decoded_numbers(path)
    assert numbers[:10] == list(range(10)) and numbers[-30:] == list(range(60, 90))
    hold(path, numbers, times)


def test_b_frames_packed_by_divx(tmp_path):
    hold(pack_b_frames(tmp_path / "a.avi", STEADY), list(range(96)), STEADY)


@pytest.mark.parametrize("suffix", ["ts", "m2ts", "mpg"])
def test_a_clock_that_turns_over(tmp_path, suffix):
    """MPEG counts 90,000 ticks a second in 33 bits."""
    times = [2**33 / 90000 - 2 + time for time in STEADY]
    path = write_numbered(tmp_path / f"a.{suffix}", times, b_frames=2, gap=20)
    hold(path, list(range(96)), times)


@pytest.mark.parametrize("starts", [(0.0, 100.0), (100.0, 0.0), (0.0, 1.0), (5.0, 5.0)])
def test_a_clock_that_begins_anew(tmp_path, starts):
    parts = [
        write_numbered(tmp_path / f"{i}.ts", [start + time for time in STEADY[:50]], b_frames=2, gap=20)
        for i, start in enumerate(starts)
    ]
    path = join_transport_streams(tmp_path / "a.ts", parts)
    hold(path, list(range(50)) * 2, [n / RATE for n in range(100)])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "avi"])
def test_what_comes_before_the_first_key_frame_cannot_be_seen(tmp_path, suffix):
    source = write_numbered(tmp_path / f"whole.{suffix}", STEADY, b_frames=2, gap=20)
    path = copy_packets(tmp_path / f"a.{suffix}", source, start=0.28, first=7)
    hold(path, list(range(20, 96)), STEADY[20:])


def test_a_broadcast_caught_amid_a_picture(tmp_path):
    for codec in ("libx264", "libx265"):
        source = write_numbered(tmp_path / "whole.ts", STEADY, codec=codec, b_frames=2, gap=20)
        (tmp_path / "a.ts").write_bytes(source.read_bytes()[188 * 40 :])
        hold(tmp_path / "a.ts", list(range(20, 96)), STEADY[20:])


def test_of_frames_with_the_same_time_the_last_is_on_screen(tmp_path):
    """Frames 10 and 50 share the times of those before them."""
    source, path = write_numbered(tmp_path / "a.mkv", STEADY, gap=20), tmp_path / "b.mkv"
    with av.open(str(source)) as given, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.pts = packet.dts = (packet.pts or 0) - (40 if number in (10, 50) else 0)
            packet.stream = stream
            target.mux(packet)
    hold(path, list(range(96)), [time - (0.04 if n in (10, 50) else 0) for n, time in enumerate(STEADY)])


def test_hidden_frames_of_vp8_have_no_time_on_screen(tmp_path):
    """Bit 4 of a frame's first byte says whether it is shown."""
    source, path = write_numbered(tmp_path / "a.webm", STEADY, codec="libvpx", gap=40), tmp_path / "b.webm"
    with av.open(str(source)) as given, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            data[0] &= 0xFF if number not in (20, 60) else 0xEF
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            target.mux(copy)
    shown = [n for n in range(96) if n not in (20, 60)]
    hold(path, shown, [STEADY[n] for n in shown])


def test_packets_that_are_called_key_frames_wrongly(tmp_path):
    """All of them: a jump to one that is none gives another picture, or none."""
    for suffix, codec in (
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("mp4", "mpeg4"),
        ("avi", "mpeg4"),
        ("mkv", "libvpx-vp9"),
    ):
        source, path = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        write_numbered(source, STEADY, codec=codec, gap=60)
        with av.open(str(source)) as given, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(given.streams.video[0])
            for packet in (p for p in given.demux(video=0) if p.size):
                packet.is_keyframe, packet.stream = True, stream
                target.mux(packet)
        hold(path, list(range(96)), STEADY)


@pytest.mark.parametrize("lands", ["late", "at the end", "nowhere"])
def test_a_seek_that_goes_wrong_is_noticed(tmp_path, monkeypatch, lands):
    def seek(film: Film, target: int) -> None:
        if lands == "nowhere":
            raise FFmpegError(1, "no way back")
        late = 20 * 512 if lands == "late" else 10**9
        film.container.seek(target + late, stream=film.stream, backward=lands == "late", any_frame=True)

    monkeypatch.setattr(Film, "_seek", seek)
    hold(write_numbered(tmp_path / "a.mp4", STEADY, b_frames=2, gap=20), list(range(96)), STEADY)


@pytest.mark.parametrize(
    "suffix", ["mp4", "mov", "mkv", "avi"]
)  # an MPEG stream has no length to fall short of
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    """Also those whose edit list hides frames."""
    whole = tmp_path / f"whole.{suffix}"
    if suffix in ("mp4", "mov"):
        source = write_numbered(tmp_path / "a.mp4", STEADY, b_frames=2, gap=50)
        copy_packets(whole, source, start=0.6, container={"movflags": "faststart"})
    else:
        write_numbered(whole, STEADY, b_frames=2, gap=50)
    assert len(load_video(whole, fps=2, max_frames=8).frames) >= 6
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    for read in (load_video, probe_video):
        with pytest.raises(MediaError, match=rf"cut\.{suffix}: ") as caught:
            read(path, fps=2, max_frames=8)
        assert "\n" not in str(caught.value)


def test_a_truncated_avi_of_h264_is_refused(tmp_path):
    data = (CASES / "h264_in_avi.avi").read_bytes()
    for share in (0.2, 0.5):
        (tmp_path / "cut.avi").write_bytes(data[: int(share * len(data))])
        with pytest.raises(MediaError, match=r"cut\.avi: truncated"):
            load_video(tmp_path / "cut.avi", fps=2, max_frames=8)
    (tmp_path / "no_index.avi").write_bytes(data[: int(0.8 * len(data))])  # all frames are there
    hold(tmp_path / "no_index.avi", list(range(500)), [n / RATE for n in range(500)])


@pytest.mark.parametrize("num_frames", [1, 2, 7, 96, 500])
def test_a_number_of_frames_is_taken_evenly(tmp_path: Path, num_frames: int) -> None:
    """Whatever the rate is: the very frames that transformers' video processor takes, with their own times."""
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
    from transformers.video_utils import VideoMetadata

    path = write_numbered(tmp_path / "a.mp4", UNEVEN, ticks=1000)
    total = len(UNEVEN)
    wanted = min(num_frames, total)
    theirs = Qwen3VLVideoProcessor().sample_frames(VideoMetadata(total_num_frames=total), num_frames=wanted)
    video = load_video(path, fps=2.0, max_frames=3, num_frames=num_frames)
    assert shown_numbers(video.frames) == theirs.tolist() and len(theirs) == wanted
    np.testing.assert_allclose(video.timestamps, np.array(UNEVEN)[theirs], atol=1.1e-3)
    probe = probe_video(path, fps=2.0, max_frames=3, num_frames=num_frames)
    np.testing.assert_array_equal(probe.timestamps, video.timestamps)
