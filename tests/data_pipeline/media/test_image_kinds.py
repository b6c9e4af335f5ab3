"""Deep and float greys, odd transparency, HEIC and AVIF pictures; animations are videos with times of their own."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.media.decoding import (
    MediaError,
    load_image,
    load_video,
    media_kind,
    probe_image,
    probe_video,
)
from tests.data_pipeline.making import picture, write_video
from tests.places import CASES


def grey_of(path: Path) -> list[list[int]]:
    pixels = load_image(path)
    assert pixels.dtype == np.uint8 and (pixels == pixels[..., :1]).all()
    assert probe_image(path) == pixels.shape[:2]
    return pixels[..., 0].tolist()


def test_a_float_picture_of_0_to_1():
    pixels = load_image(CASES / "float01.tif")
    assert (pixels.min(), pixels.max()) == (0, 255) and pixels.mean() == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([0, 0.25, 1], [0, 64, 255]),
        ([-0.04, 0.5, 1.06], [0, 128, 255]),  # overshoot of resampling
        ([0, 0.5, 0.5], [0, 128, 128]),
        ([0, 1.5, 254.6], [0, 2, 255]),
        ([-3, 100, 262], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([0, 25700, 300], [0, 100, 1]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_floats_say_by_their_largest_what_is_white(tmp_path, values, grey):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    assert grey_of(tmp_path / "a.tif") == [grey]


@pytest.mark.parametrize(
    ("values", "grey"),
    [([0, 1, 255], [0, 1, 255]), ([0, 257, 65535], [0, 1, 255]), ([0, 300, 25700], [0, 1, 100])],
)
def test_integers_of_32_bits(tmp_path, values, grey):
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "a.tif")
    assert grey_of(tmp_path / "a.tif") == [grey]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([[0, np.nan]], np.float32), "not all of its values are finite numbers"),
        (np.array([[0, np.inf]], np.float32), "not all of its values are finite numbers"),
        (np.array([[-1, 1]], np.float32), "its values go from -1 to 1, not from 0 to 1, 255 or 65535"),
        (np.array([[0, 1e6]], np.float32), r"its values go from 0 to 1e\+06, not"),
        (np.array([[-5, 200]], np.int32), "its values go from -5 to 200, not"),
        (np.array([[0, 70000]], np.int32), "its values go from 0 to 70000, not"),
    ],
)
def test_numbers_that_are_no_greys_are_refused(tmp_path, values, says):
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(MediaError, match=rf"depth\.tif: not a readable image \({says}") as caught:
        load_image(tmp_path / "depth.tif")
    assert "\n" not in str(caught.value)


def png(path: Path, depth: int, colour: int, rows: list[bytes], clear: bytes, width: int) -> Path:
    """A PNG of these packed rows, in which the sample `clear` is transparent."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", body), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def test_a_transparent_grey_is_white_at_every_depth(tmp_path):
    deep = png(
        tmp_path / "16.png", 16, 0, [struct.pack(">4H", 0, 257, 25700, 300)], struct.pack(">H", 257), 4
    )
    assert grey_of(deep) == [[0, 255, 100, 1]]
    assert grey_of(png(tmp_path / "8.png", 8, 0, [bytes([0, 7, 9])], b"\0\7", 3)) == [[0, 255, 9]]
    assert grey_of(png(tmp_path / "4.png", 4, 0, [bytes([0x0A, 0xF1])], b"\0\x0a", 4)) == [[0, 255, 255, 17]]
    assert grey_of(png(tmp_path / "2.png", 2, 0, [bytes([0b00011011])], b"\0\1", 4)) == [[0, 255, 170, 255]]
    assert grey_of(png(tmp_path / "1.png", 1, 0, [bytes([0b01000000])], b"\0\0", 3)) == [[255, 255, 255]]
    colours = struct.pack(">6H", 30000, 40000, 50000, 257, 2570, 25700)
    path = png(tmp_path / "rgb.png", 16, 2, [colours], struct.pack(">3H", 30000, 40000, 50000), 2)
    assert load_image(path).tolist() == [[[255, 255, 255], [1, 10, 100]]]


def write_heic(path: Path, pixels: np.ndarray, **settings) -> Path:
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=-1, **settings)
    return path


def test_a_heic_is_a_picture(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 180, 3, dtype=np.uint8)[None, :, None], (40, 60, 3)).copy()
    path = write_heic(tmp_path / "IMG_1.HEIC", smooth)
    assert media_kind(path) == "image"
    assert np.abs(load_image(path).astype(int) - smooth).max() <= 3
    assert probe_image(path) == (40, 60)
    clear = np.dstack([smooth, np.zeros((40, 60), np.uint8)])
    assert load_image(write_heic(tmp_path / "clear.heic", clear)).min() >= 253  # over white
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = write_heic(tmp_path / "turned.heic", smooth, exif=exif.tobytes())
    assert load_image(turned).shape == (60, 40, 3) and probe_image(turned) == (60, 40)
    with pytest.raises(MediaError, match=r"IMG_1\.HEIC: a HEIC picture, no video"):
        load_video(path, fps=2, max_frames=8)
    (tmp_path / "cut.heic").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "head.heic").write_bytes(path.read_bytes()[:60])
    for name in ("cut.heic", "head.heic"):
        with pytest.raises(MediaError, match=rf"{name}: not a readable image") as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    code = f"""
import PIL.Image
from onethinker_jax.data_pipeline.media.decoding import load_image
load_image({str(path)!r})
PIL.Image.init()
assert ".heic" not in PIL.Image.registered_extensions()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_a_heic_names_it(tmp_path, monkeypatch):
    path = write_heic(tmp_path / "a.heic", picture(40, 60))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert media_kind(path) == "image"
    for read in (load_image, probe_image):
        with pytest.raises(
            MediaError,
            match=r"a\.heic: a HEIC picture, which needs pillow-heif: pip install 'onethinker_jax\[heic\]'",
        ):
            read(path)


SHADES = (10, 100, 200, 50)
LASTS = (100, 400, 300, 1200)  # milliseconds


def write_animation(path: Path, lasts=LASTS, **settings) -> Path:
    frames = [Image.fromarray(np.full((40, 60, 3), shade, np.uint8)) for shade in SHADES[: len(lasts)]]
    if path.suffix == ".webp":
        settings["lossless"] = True
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(lasts), **settings)
    return path


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_an_animation_is_a_video_with_its_own_durations(tmp_path, suffix):
    path = write_animation(tmp_path / f"a.{suffix}")
    assert media_kind(path) == "video"
    video = load_video(path, fps=20, max_frames=100)
    np.testing.assert_allclose(video.frames.mean((1, 2, 3)), SHADES, atol=2)
    np.testing.assert_allclose(video.timestamps, [0, 0.1, 0.5, 0.8], atol=1e-6)
    assert video.duration == pytest.approx(2.0) and video.source_fps == pytest.approx(2.0)
    few = load_video(path, fps=2, max_frames=2)  # at 0 and 1 s
    np.testing.assert_allclose(few.frames.mean((1, 2, 3)), [10, 50], atol=2)
    np.testing.assert_allclose(few.timestamps, [0, 0.8], atol=1e-6)
    probe = probe_video(path, fps=20, max_frames=100)
    assert (probe.height, probe.width, probe.duration) == (40, 60, video.duration)
    np.testing.assert_array_equal(probe.timestamps, video.timestamps)
    image = load_image(path)
    assert image.shape == (40, 60, 3) and np.abs(image.astype(int) - 10).max() <= 2
    with pytest.raises(MediaError, match=f"a.{suffix}: not decoded within"):
        load_video(path, fps=20, max_frames=100, time_limit=1e-9)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_a_still_of_those_formats_is_an_image(tmp_path, suffix):
    path = write_animation(tmp_path / f"a.{suffix}", lasts=LASTS[:1])
    assert media_kind(path) == "image"
    assert load_video(path, fps=2, max_frames=8).frames.shape == (1, 40, 60, 3)


def test_pictures_in_one_file_are_no_animation(tmp_path):
    frames = [Image.fromarray(picture(8, 8, seed)) for seed in range(3)]
    for name in ("a.tif", "a.mpo"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert media_kind(tmp_path / name) == "image"


def test_a_png_has_a_picture_for_those_who_see_no_animation(tmp_path):
    path = write_animation(tmp_path / "a.png", lasts=(100, 400, 300), default_image=True)
    assert np.unique(load_image(path)).tolist() == [10]
    video = load_video(path, fps=20, max_frames=100)
    assert video.frames.mean((1, 2, 3)).tolist() == [100, 200]


def test_frames_that_should_last_no_time_last_as_long_as_in_browsers(tmp_path):
    for suffix in ("gif", "webp"):
        path = write_animation(tmp_path / f"a.{suffix}", lasts=(0, 10, 20, 1000))
        np.testing.assert_allclose(load_video(path, fps=50, max_frames=99).timestamps, [0, 0.1, 0.2, 0.22])


def test_see_through_animations_lie_over_white(tmp_path):
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        clear = (0, 0, 0, 1 if suffix == "webp" else 0)  # a WebP's encoder leaves out what is wholly clear
        frames = [Image.new("RGBA", (20, 20), clear) for _ in range(2)]
        for number, frame in enumerate(frames):
            frame.paste((255, 0, 0, 255), (number * 10, 0, number * 10 + 10, 20))
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=500, disposal=2, lossless=True)
        video = load_video(path, fps=2, max_frames=8)
        np.testing.assert_allclose(video.frames[:, 5, [5, 15], 1], [[0, 255], [255, 0]], atol=2)
        np.testing.assert_array_equal(load_image(path), video.frames[0])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_truncated_animations_are_refused(tmp_path, suffix):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)) for _ in range(6)]
    whole = tmp_path / f"whole.{suffix}"
    frames[0].save(whole, save_all=True, append_images=frames[1:], duration=100)
    assert len(load_video(whole, fps=10, max_frames=99).frames) == 6
    for share in (0.3, 0.6, 0.9):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        for read in (load_video, probe_video):
            with pytest.raises(MediaError, match=rf"cut\.{suffix}: ") as caught:
                read(path, fps=10, max_frames=99)
            assert "\n" not in str(caught.value)


def test_a_film_is_no_heic(tmp_path):
    """Both are files of the ISO base media format."""
    for suffix in ("mp4", "mov"):
        assert media_kind(write_video(tmp_path / f"a.{suffix}", [0.0, 0.5])) == "video"
