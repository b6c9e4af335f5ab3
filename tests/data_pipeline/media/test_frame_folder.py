"""A folder of frames as a video: the pictures themselves, at the folder's rate."""

import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.media.decoding import MediaError, load_video, probe_video
from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import read_records
from tests.data_pipeline.making import picture, rl_row, write_rows


def write_frames(
    folder: Path, count: int, *, ending: str = "png", size: tuple[int, int] = (34, 50), first: int = 0
) -> Path:
    """Frames whose picture i is `picture(*size, i)`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(*size, number)).save(folder / f"{first + number}.{ending}", quality=95)
    return folder


@pytest.mark.parametrize("fps", [10, 6.0, 30000 / 1001])
def test_frames_and_times_are_the_folders(tmp_path: Path, fps: float) -> None:
    video = FrameFolder(write_frames(tmp_path / "film", 12), fps)
    loaded = load_video(video, fps=1000, max_frames=1000)
    assert np.array_equal(loaded.frames, np.stack([picture(34, 50, number) for number in range(12)]))
    np.testing.assert_allclose(loaded.timestamps, np.arange(12) / fps, atol=1e-9)
    assert loaded.duration == pytest.approx(12 / fps) and loaded.source_fps == pytest.approx(fps)
    probed = probe_video(video, fps=2, max_frames=4)
    assert (probed.height, probed.width) == (34, 50) and probed.timestamps[0] == 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpegs_are_copied_byte_for_byte(tmp_path: Path, options: dict) -> None:
    for number in range(3):
        Image.fromarray(picture(34, 50, number)).save(tmp_path / f"{number:05}.jpg", quality=95, **options)
    video = FrameFolder(tmp_path, 5)
    with av.open(video.open("rb"), mode="r") as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert packets == [(tmp_path / f"{number:05}.jpg").read_bytes() for number in range(3)]
    assert load_video(video, fps=5, max_frames=9).frames.shape == (3, 34, 50, 3)


def test_it_is_a_media_file(tmp_path: Path) -> None:
    video = FrameFolder(write_frames(tmp_path / "film", 11, first=95), 4)
    assert str(video) == str(tmp_path / "film") and video.name == "film" and video.is_file()
    assert [path.name for path in video.frames] == [f"{number}.png" for number in range(95, 106)]
    assert video.stat().st_size == sum(path.stat().st_size for path in video.frames)
    assert pickle.loads(pickle.dumps(video)) == video
    reader = MediaReader(cache=FrameCache(tmp_path / "cache", 2**30))
    first, second = (reader.video(video, None, fps=2, max_frames=9) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    before = video.stat().st_mtime_ns
    write_frames(tmp_path / "film", 1, first=106)
    assert video.stat().st_mtime_ns > before
    assert len(reader.video(video, None, fps=4, max_frames=99).frames) == 12


def test_what_is_no_film_is_one_line(tmp_path: Path) -> None:
    assert not FrameFolder(tmp_path / "gone", 4).is_file()
    assert not FrameFolder(tmp_path, 4).is_file()
    with pytest.raises(MediaError, match="no such video file"):
        load_video(FrameFolder(tmp_path, 4), fps=2, max_frames=4)
    write_frames(tmp_path / "two", 2)
    write_frames(tmp_path / "two", 1, ending="jpg", first=7)
    with pytest.raises(OSError, match=r"two: 7\.jpg is of another format than 0\.png"):
        FrameFolder(tmp_path / "two", 4).open("rb")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"bad: cannot be read \(.*0\.jpg: not a readable picture"):
        load_video(FrameFolder(tmp_path / "bad", 4), fps=2, max_frames=4)


def test_a_record_names_a_folder_of_frames(tmp_path: Path) -> None:
    write_frames(tmp_path / "film", 8)
    film = {"problem": "<video>Which letter?", "data_type": "video", "images": ..., "videos": ["film"]}
    (record,) = read_records(write_rows(tmp_path / "a.json", [rl_row(**film, fps=4)]), purpose="rl")
    assert record.videos == (FrameFolder(tmp_path / "film", 4.0),)
    with pytest.raises(RecordError, match=r"videos: .*film is a folder of frames, which needs fps"):
        read_records(write_rows(tmp_path / "b.json", [rl_row(**film)]))
    with pytest.raises(RecordError, match="fps: must be a positive number, is 'x'"):
        read_records(write_rows(tmp_path / "c.json", [rl_row(**film, fps="x")]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"videos: no such file .*empty"):
        read_records(write_rows(tmp_path / "d.json", [rl_row(**{**film, "videos": ["empty"]}, fps=4)]))
