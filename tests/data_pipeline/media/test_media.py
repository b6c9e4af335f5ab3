"""Images in every mode come out upright in RGB; videos are sampled by their true presentation times."""

import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.media import decoding as media
from onethinker_jax.data_pipeline.media.decoding import (
    MediaError,
    load_image,
    load_video,
    media_kind,
    probe_image,
    probe_video,
)
from onethinker_jax.data_pipeline.media.media_file import MemoryFile
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from tests.data_pipeline.making import (
    brightness,
    frame_numbers,
    picture,
    write_audio,
    write_image,
    write_video,
)
from tests.waiting import HANG_S


def test_plain_image(tmp_path):
    np.testing.assert_array_equal(load_image(write_image(tmp_path / "a.png", 20, 30)), picture(20, 30))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "I", "F", "CMYK", "palette-alpha"])
def test_image_modes_become_rgb(tmp_path, mode):
    grey = np.full((8, 6), 120, np.uint8)
    if mode in ("I;16", "I"):
        image, name = Image.fromarray(grey.astype(np.uint16) * 257), "a.png"
    elif mode == "F":
        image, name = Image.fromarray(grey.astype(np.float32)), "a.tiff"
    elif mode == "palette-alpha":
        image, name = Image.fromarray(grey).convert("P"), "a.png"
        image.info["transparency"] = image.getpixel((0, 0))
    else:
        image = Image.fromarray(np.repeat(grey[..., None], 3, 2)).convert(mode, dither=Image.Dither.NONE)
        name = "a.tiff" if mode == "CMYK" else "a.png"
    image.save(tmp_path / name)
    pixels = load_image(tmp_path / name)
    assert pixels.shape == (8, 6, 3) and pixels.dtype == np.uint8
    expected = {"1": 0, "palette-alpha": 255}.get(mode, 120)
    tolerance = {"P": 20, "CMYK": 3}.get(mode, 0)  # 120 is not in the palette
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").tolist() == [[[10, 20, 30]] * 2, [[255] * 3] * 2]


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, name, orientation):
    image = Image.fromarray(picture(16, 24))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif, lossless=True)
    stored = picture(16, 24)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),  # the camera was turned: by 90 degrees clockwise to view
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }
    np.testing.assert_array_equal(load_image(tmp_path / name), upright[orientation])
    assert probe_image(tmp_path / name) == upright[orientation].shape[:2]


def test_sixteen_bits_of_colour_and_inks_in_a_jpeg(tmp_path):
    deep = np.full((8, 6, 3), (10, 120, 250), np.uint16) * 257
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    assert np.unique(load_image(tmp_path / "deep.png").reshape(-1, 3), axis=0).tolist() == [[10, 120, 250]]
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "inks.jpg", quality=95)
    assert np.abs(load_image(tmp_path / "inks.jpg").astype(int) - (0, 255, 255)).max() <= 6


def test_one_pixel(tmp_path):
    path = write_image(tmp_path / "a.png", 1, 1)
    assert load_image(path).shape == (1, 1, 3)
    grown = load_image(path, bounds=PixelBounds(32, 4096, 40000))
    assert grown.shape == (64, 64, 3) and (grown == load_image(path)).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9500, 60_000])
def test_pictures_that_claim_to_be_huge_are_refused(tmp_path, side):
    """A few bytes that would unpack to a quarter of a gigabyte, or to ten."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(MediaError, match=r"bomb\.png: too large to be read") as caught:
        load_image(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)


def test_narrow_pictures_are_named(tmp_path):
    path = write_image(tmp_path / "thin.png", 2, 500)
    assert load_image(path).shape == (2, 500, 3)
    with pytest.raises(MediaError, match=r"thin\.png: sides 2 x 500 differ by more than 200 times"):
        load_image(path, bounds=PixelBounds(32, 4096, 40000))


def test_bad_images(tmp_path):
    good = write_image(tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    for name in ("cut.png", "empty.png", "text.png", "none.png"):
        with pytest.raises(MediaError, match=name) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_content_says_what_a_file_is(tmp_path):
    """Whatever its name; a text, which FFmpeg would draw, is neither."""
    picture = write_image(tmp_path / "a.png")
    film = write_video(tmp_path / "a.mp4", [0.0, 0.5])
    assert media_kind(picture.rename(tmp_path / "b.mp4")) == "image"
    assert media_kind(film.rename(tmp_path / "b.png")) == "video"
    frames = [Image.fromarray(np.full((32, 48, 3), shade, np.uint8)) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=500)
    assert media_kind(tmp_path / "still.gif") == "image"
    assert media_kind(tmp_path / "moving.gif") == "video"
    assert len(load_video(tmp_path / "moving.gif", fps=2, max_frames=8).frames) == 3
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("words\n" * 50)
    write_audio(tmp_path / "sound.m4a")
    for name in ("empty.png", "notes.txt", "sound.m4a"):
        for file in (tmp_path / name, MemoryFile(name, (tmp_path / name).read_bytes())):
            with pytest.raises(MediaError, match=f"{name}: neither an image nor a video"):
                media_kind(file)
    for name in ("b.mp4", "b.png", "still.gif", "moving.gif"):
        file = MemoryFile(name, (tmp_path / name).read_bytes())
        assert media_kind(file) == media_kind(tmp_path / name)
    with pytest.raises(MediaError, match=r"none\.png: no such file"):
        media_kind(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_regular_video(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", [i / 8 for i in range(40)])
    video = load_video(path, fps=2.0, max_frames=128)
    assert video.frames.shape == (10, 64, 96, 3) and video.frames.dtype == np.uint8
    np.testing.assert_allclose(video.timestamps, np.arange(10) / 2, atol=1e-3)
    assert frame_numbers(video.frames) == list(range(0, 40, 4))
    assert video.duration == pytest.approx(5, abs=1e-2) and video.source_fps == pytest.approx(8, rel=1e-2)


def test_variable_rate_takes_the_frame_on_screen(tmp_path):
    times = [0.0, 0.1, 0.9, 1.6, 3.0, 3.1]
    video = load_video(write_video(tmp_path / "a.mp4", times), fps=2.0, max_frames=128)
    # Asked for 0, 0.5 ... 3.5: on screen are frames 0, 1, 2, 2, 3, 3, 4 and 5; none is taken twice.
    assert frame_numbers(video.frames) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(video.timestamps, times, atol=1e-6)


def test_times_count_from_the_first_frame(tmp_path):
    video = load_video(write_video(tmp_path / "a.mkv", [2 + i / 10 for i in range(20)]), fps=2, max_frames=99)
    np.testing.assert_allclose(video.timestamps, [0, 0.5, 1.0, 1.5], atol=1e-6)
    assert frame_numbers(video.frames) == [0, 5, 10, 15]


def test_long_video_is_spread_over_max_frames(tmp_path):
    """80 frames of 8 s, 5 wanted: every 16th; the key frames every 4 make the reader jump."""
    path = write_video(tmp_path / "a.mp4", [i / 10 for i in range(80)], gap=4)
    video = load_video(path, fps=2.0, max_frames=5)
    assert frame_numbers(video.frames) == [0, 16, 32, 48, 64]
    np.testing.assert_allclose(video.timestamps, [0, 1.6, 3.2, 4.8, 6.4], atol=1e-6)
    far = load_video(path, fps=2.0, max_frames=2)
    assert frame_numbers(far.frames) == [0, 40]


def test_slow_source_is_not_repeated(tmp_path):
    video = load_video(write_video(tmp_path / "a.mp4", [0.0, 1.0, 2.0]), fps=4.0, max_frames=128)
    assert frame_numbers(video.frames) == [0, 1, 2]
    one = load_video(write_video(tmp_path / "b.mp4", [0.0]), fps=2.0, max_frames=128)
    assert one.frames.shape[0] == 1 and one.timestamps.tolist() == [0.0]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_of_the_container_is_applied(tmp_path, quarters):
    """The bright left half goes up, to the right, down."""
    path = write_video(tmp_path / "a.mp4", [0.0, 0.5], left=230, turned=quarters)
    frames = load_video(path, fps=2, max_frames=9).frames
    assert frames.shape == ((2, 64, 96, 3) if quarters % 2 == 0 else (2, 96, 64, 3))
    upright = np.rot90(frames[0], quarters)  # turned back
    assert upright[:, :44].min() > 200 and upright[:, 52:].max() < 50


def test_open_groups_of_pictures(tmp_path):
    """Frames before a key frame in time may need the group before it: jumping must not show them broken."""
    path = tmp_path / "a.mp4"
    write_video(path, [i / 10 for i in range(80)], gap=8, x264="open-gop=1:bframes=3:b-adapt=0:scenecut=0")
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        keys = [p.pts for p in packets if p.is_keyframe]
        leading = [
            p
            for n, p in enumerate(packets)
            if any((k.pts or 0) > (p.pts or 0) for k in packets[:n] if k.is_keyframe)
        ]
    assert len(keys) > 5 and leading, "the file has no open group"
    assert frame_numbers(load_video(path, fps=10, max_frames=80).frames) == list(range(80))
    assert frame_numbers(load_video(path, fps=10, max_frames=3).frames) == [0, 26, 53]
    assert frame_numbers(load_video(path, fps=10, max_frames=4).frames) == [0, 20, 40, 60]


def test_a_container_without_durations(tmp_path):
    path = write_video(tmp_path / "a.mkv", [i / 8 for i in range(40)], options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None and container.streams.video[0].duration is None
    video = load_video(path, fps=2.0, max_frames=128)
    assert frame_numbers(video.frames) == list(range(0, 40, 4))
    assert video.duration == pytest.approx(5, abs=1e-2)


def test_a_bare_stream_has_the_times_of_its_rate(tmp_path):
    path = write_video(tmp_path / "a.h264", [i / 25 for i in range(50)])
    video = load_video(path, fps=5.0, max_frames=128)
    assert frame_numbers(video.frames) == list(range(0, 50, 5))
    np.testing.assert_allclose(video.timestamps, np.arange(10) / 5, atol=1e-6)


def test_a_film_that_changes_its_size_keeps_the_first(tmp_path):
    small = write_video(tmp_path / "small.h264", [i / 25 for i in range(25)])
    large = write_video(tmp_path / "large.h264", [i / 25 for i in range(25)], size=(128, 64))
    (tmp_path / "a.h264").write_bytes(small.read_bytes() + large.read_bytes())
    video = load_video(tmp_path / "a.h264", fps=5.0, max_frames=128)
    assert video.frames.shape == (10, 64, 96, 3)
    shown = [brightness(number) for number in (0, 5, 10, 15, 20)] * 2
    np.testing.assert_allclose(video.frames.mean((1, 2, 3)), shown, atol=2.5)  # grey, not a torn picture
    assert video.frames.std((1, 2, 3)).max() < 2


def test_frames_are_resized_as_they_come(tmp_path):
    path = write_video(tmp_path / "a.mp4", [i / 8 for i in range(16)], size=(120, 200))
    bounds = PixelBounds(32, 1024, 8192)
    full, small = (load_video(path, fps=2, max_frames=9, bounds=b) for b in (None, bounds))
    assert full.frames.shape == (4, 120, 200, 3) and small.frames.shape == (4, 64, 96, 3)
    np.testing.assert_array_equal(small.frames, [bounds.fit(frame) for frame in full.frames])
    np.testing.assert_array_equal(small.timestamps, full.timestamps)


def test_sound_and_empty_streams_are_no_film(tmp_path):
    write_audio(tmp_path / "cover.mp4", cover=True)
    write_audio(tmp_path / "empty.mkv", empty_video=True)
    for name in ("cover.mp4", "empty.mkv"):
        with av.open(str(tmp_path / name)) as container:
            assert len(container.streams.video) == 1
    with pytest.raises(MediaError, match=r"cover\.mp4: has no video stream"):
        load_video(tmp_path / "cover.mp4", fps=2, max_frames=8)
    with pytest.raises(MediaError, match=r"empty\.mkv: holds no video frame"):
        load_video(tmp_path / "empty.mkv", fps=2, max_frames=8)


def test_slow_and_huge_videos_are_given_up(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", [i / 8 for i in range(40)])
    with pytest.raises(MediaError, match=r"a\.mp4: not decoded within 1e-09 s"):
        load_video(path, fps=2, max_frames=8, time_limit=1e-9)
    assert len(load_video(path, fps=2, max_frames=8, time_limit=HANG_S).frames) == 8
    monkeypatch.setattr(media, "MAX_PIXELS", 64 * 95)
    with pytest.raises(MediaError, match=r"a\.mp4: too large to be read, 96 x 64 pixels"):
        load_video(path, fps=2, max_frames=8)


def test_bad_videos(tmp_path):
    times = [i / 8 for i in range(40)]
    whole = write_video(tmp_path / "whole.mkv", times, gap=40).read_bytes()
    mp4 = write_video(tmp_path / "whole.mp4", times).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(mp4[: len(mp4) // 2])  # the index at the end is gone
    (tmp_path / "hole.mp4").write_bytes(front_loaded(tmp_path / "whole.mp4")[: int(len(mp4) * 0.8)])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "head.mkv").write_bytes(whole[:300])
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    write_audio(tmp_path / "sound.mp4")
    for name in ("cut.mp4", "hole.mp4", "empty.mp4", "head.mkv", "half.mkv", "sound.mp4", "none.mp4"):
        with pytest.raises(MediaError, match=name) as caught:
            load_video(tmp_path / name, fps=2, max_frames=8)
        assert "\n" not in str(caught.value)


def front_loaded(path: Path) -> bytes:
    """The same MP4 with its index before its frames, so that cutting the end loses frames only."""
    target_path = path.with_name("front.mp4")
    options = {"movflags": "faststart"}
    with av.open(str(path)) as source, av.open(str(target_path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return target_path.read_bytes()


@pytest.mark.parametrize("turned", [0, 1])
def test_a_probe_says_what_loading_gives(tmp_path, turned):
    path = write_video(tmp_path / "a.mp4", [i / 8 for i in range(40)], turned=turned)
    for fps, max_frames in ((2.0, 128), (2.0, 3), (50.0, 1000)):
        video = load_video(path, fps=fps, max_frames=max_frames)
        probe = probe_video(path, fps=fps, max_frames=max_frames)
        assert (probe.height, probe.width) == video.frames.shape[1:3]
        np.testing.assert_array_equal(probe.timestamps, video.timestamps)
        assert probe.duration == video.duration
    image = Image.fromarray(picture(16, 24))
    exif = image.getexif()
    exif[0x0112] = 6 if turned else 1
    image.save(tmp_path / "a.png", exif=exif)
    assert probe_image(tmp_path / "a.png") == load_image(tmp_path / "a.png").shape[:2]
    for name in ("none", "test"):
        with pytest.raises(MediaError, match=f"{name}: no such"):
            probe_video(tmp_path / name, fps=2, max_frames=8)
        with pytest.raises(MediaError, match=f"{name}: no such"):
            probe_image(tmp_path / name)
