"""The one writer of H.264: when frames are shown and for how long, and what is said where it cannot write."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from onethinker_jax.data_pipeline.media import h264_file
from onethinker_jax.data_pipeline.media.h264_file import EncoderError, H264File
from onethinker_jax.data_pipeline.worlds.film import write_mp4
from tests.data_pipeline.media.numbered_videos import decoded_numbers, numbered_frame


def frame(number: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")


@pytest.mark.parametrize("index_first", [False, True])
def test_frames_come_back_at_their_times(tmp_path: Path, index_first: bool) -> None:
    path, starts = tmp_path / "a.mp4", [0, 2, 3, 9, 10]
    with H264File(path, 4, {"bf": "0"}, time_base=Fraction(1, 10), index_first=index_first) as film:
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], 25], strict=True)):
            film.add(frame(number), start, end - start)
    assert decoded_numbers(path) == [0, 1, 2, 3, 4]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert [shown.time for shown in container.decode(video=0)] == [start / 10 for start in starts]
        assert stream.duration and stream.time_base and stream.duration * stream.time_base == Fraction(25, 10)
    content = path.read_bytes()
    assert (content.index(b"moov") < content.index(b"mdat")) == index_first


def test_without_times_of_their_own_frames_come_at_the_rate(tmp_path: Path) -> None:
    write_mp4((numbered_frame(number) for number in range(30)), 5, tmp_path / "a.mp4")
    assert decoded_numbers(tmp_path / "a.mp4") == list(range(30))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [shown.time for shown in container.decode(video=0)] == [number / 5 for number in range(30)]


def test_an_error_on_the_way_closes_the_file_and_is_the_one_that_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    film = H264File(path, 5, {"tune": "zerolatency"})
    with pytest.raises(ZeroDivisionError), film:
        film.add(frame(0), 0)
        assert path in open_files()
        raise ZeroDivisionError
    assert path not in open_files()


def open_files() -> list[Path]:
    return [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


def test_without_an_encoder_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h264_file, "ENCODER", "libx26x")
    with pytest.raises(EncoderError, match=r"^PyAV [\d.]+ has no H\.264 encoder \(libx26x\)$"):
        write_mp4([numbered_frame(0)], 5, tmp_path / "a.mp4")
